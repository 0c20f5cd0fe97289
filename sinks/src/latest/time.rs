//! Times that stores can hold.

use std::ops::RangeInclusive;

use undertone_proto::EventTime;

/// A UTC day.
pub(crate) const DAY_US: i64 = 86_400_000_000;
/// 1900-01-01 to the end of 2299-12-31: what ClickHouse's types hold, and more than any post needs.
const TIMES: RangeInclusive<EventTime> = -25_567 * DAY_US..=120_530 * DAY_US - 1;

/// The nearest time that stores can hold; those beyond come from no clock. It is a function of the time's day as far as days
/// go, so that what is held stays together whose uid is the same.
pub(crate) fn held(time: EventTime) -> EventTime {
    time.clamp(*TIMES.start(), *TIMES.end())
}
