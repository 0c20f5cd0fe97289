//! How the world feels about a topic at a moment: a slow drift, and events that turn it upside down for minutes.
//!
//! A mood is a number in [-1, 1] and a function of (seed, topic, time) alone. Time is cut into slots of twenty minutes;
//! in about every other slot of a topic something happens (an outage, a win), begins and ends inside that slot, and
//! draws attention: more posts, and most of them of one mind.

use undertone_proto::EventTime;

use super::chance::{Draws, Purpose};
use super::topics::TOPICS;

const SECOND: EventTime = 1_000_000;
const SLOT: EventTime = 20 * 60 * SECOND;
const EVENT_CHANCE: f64 = 0.5;
const RISE: EventTime = 15 * SECOND;

/// (period, weight) of the two layers of drift.
const DRIFTS: [(EventTime, f64); 2] = [(40 * 60 * SECOND, 0.30), (6 * 60 * SECOND, 0.12)];

/// Something that happens to a topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Happening {
    pub(super) from_us: EventTime,
    pub(super) until_us: EventTime,
    /// The mood at its height: in [-1, -0.75] or [0.75, 1].
    pub(super) mood: f64,
}

impl Happening {
    /// How much it governs the mood: up within seconds, down over the last two fifths. In [0, 1].
    fn grip(&self, at_us: EventTime) -> f64 {
        if at_us < self.from_us || at_us >= self.until_us {
            return 0.0;
        }
        let fall = (self.until_us - self.from_us) * 2 / 5;
        let up = (at_us - self.from_us) as f64 / RISE as f64;
        let down = (self.until_us - at_us) as f64 / fall as f64;
        up.min(down).min(1.0)
    }
}

/// A topic at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mood {
    /// In [-1, 1].
    pub(super) value: f64,
    /// How much an event governs it now, in [0, 1].
    pub(super) grip: f64,
}

/// What happens to the topic in the slot around this time, if anything does.
pub(super) fn happening(seed: u64, topic: usize, at_us: EventTime) -> Option<Happening> {
    let slot = at_us.div_euclid(SLOT);
    let mut draws = Draws::new(seed, Purpose::Event, stream(topic, slot));
    if !draws.chance(EVENT_CHANCE) {
        return None;
    }
    let length = (180 + draws.below(240) as EventTime) * SECOND;
    let from_us = slot * SLOT + draws.below((SLOT - length) as u64) as EventTime;
    let strength = 0.75 + 0.25 * draws.unit();
    let mood = if draws.chance(0.5) { strength } else { -strength };
    Some(Happening { from_us, until_us: from_us + length, mood })
}

/// The mood of a topic at a time.
pub(super) fn mood(seed: u64, topic: usize, at_us: EventTime) -> Mood {
    let mut calm = TOPICS[topic].usual;
    for (layer, (period, weight)) in DRIFTS.iter().enumerate() {
        calm += weight * drift(seed, topic * DRIFTS.len() + layer, at_us, *period);
    }
    let (grip, peak) = match happening(seed, topic, at_us) {
        Some(happening) => (happening.grip(at_us), happening.mood),
        None => (0.0, 0.0),
    };
    Mood { value: (calm * (1.0 - grip) + peak * grip).clamp(-1.0, 1.0), grip }
}

/// Value noise: random numbers a period apart, joined smoothly. In [-1, 1].
fn drift(seed: u64, layer: usize, at_us: EventTime, period: EventTime) -> f64 {
    let knot = at_us.div_euclid(period);
    let x = at_us.rem_euclid(period) as f64 / period as f64;
    let at = |knot| Draws::new(seed, Purpose::Drift, stream(layer, knot)).signed();
    let smooth = x * x * (3.0 - 2.0 * x);
    at(knot) * (1.0 - smooth) + at(knot + 1) * smooth
}

/// Numbers the streams of a table of rows without end.
fn stream(row: usize, column: i64) -> u64 {
    (column as u64).wrapping_mul(64).wrapping_add(row as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moods_stay_in_range_and_move_slowly(seed: u64, topic in 0..TOPICS.len(), at in 0i64..4_000_000_000_000_000) {
            let (now, soon) = (mood(seed, topic, at), mood(seed, topic, at + SECOND));
            prop_assert!((-1.0..=1.0).contains(&now.value) && (0.0..=1.0).contains(&now.grip));
            // The steepest change is an event's rise: at most 2 in RISE.
            prop_assert!((now.value - soon.value).abs() < 0.2, "{now:?} {soon:?}");
        }

        #[test]
        fn an_event_lies_inside_its_slot(seed: u64, topic in 0..TOPICS.len(), slot in 0i64..2_000_000) {
            if let Some(event) = happening(seed, topic, slot * SLOT) {
                prop_assert!(event.from_us >= slot * SLOT && event.until_us <= (slot + 1) * SLOT);
                prop_assert_eq!(happening(seed, topic, event.until_us - 1), Some(event));
            }
        }
    }

    #[test]
    fn about_every_other_slot_has_an_event_of_either_sign() {
        let events: Vec<_> = (0..1000).filter_map(|slot| happening(9, 2, slot * SLOT)).collect();
        assert!((430..570).contains(&events.len()), "{}", events.len());
        let good = events.iter().filter(|event| event.mood > 0.0).count();
        assert!((180..320).contains(&good), "{good}");
    }
}
