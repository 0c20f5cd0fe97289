//! What came back, counted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::http::{Answer, Broken};
use crate::latency::Latencies;

/// What became of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Every text of it has its scores.
    Scored,
    /// An answer of 200 without all the scores.
    Incomplete,
    /// A 429 that says when to come again.
    Refused,
    /// Any other status, a 429 without `Retry-After` among them.
    Status(u16),
    /// The transport failed.
    Broken(Broken),
}

impl Ended {
    /// What an answer to a call of so many texts is, `scored` of which have scores.
    pub(crate) fn of(answer: &Result<Answer, Broken>, texts: usize, scored: impl Fn(&[u8]) -> usize) -> Self {
        match answer {
            Err(broken) => Self::Broken(broken),
            Ok(answer) => match answer.status {
                200 if scored(&answer.body) == texts => Self::Scored,
                200 => Self::Incomplete,
                429 if answer.retry_after => Self::Refused,
                status => Self::Status(status),
            },
        }
    }

    fn name(self) -> String {
        match self {
            Self::Scored => "scored".to_owned(),
            Self::Incomplete => "incomplete".to_owned(),
            Self::Refused => "refused".to_owned(),
            Self::Status(429) => "429 without retry-after".to_owned(),
            Self::Status(status) => status.to_string(),
            Self::Broken(how) => how.to_owned(),
        }
    }
}

/// How many calls ended how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Ends(BTreeMap<String, u64>);

impl Ends {
    pub(crate) fn add(&mut self, ended: Ended) {
        *self.0.entry(ended.name()).or_default() += 1;
    }
}

/// One call of an open loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// When it was due, from the start.
    pub(crate) due: Duration,
    /// When it was sent.
    pub(crate) sent: Duration,
    /// When the whole answer was there.
    pub(crate) done: Duration,
    pub(crate) ended: Ended,
}

/// A call that was sent later than this was not sent as planned: the sender has a grain, and the machine a scheduler.
pub(crate) const LATE: Duration = Duration::from_millis(10);

/// What an open loop measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OpenReport {
    /// Calls that were due.
    pub(crate) planned: usize,
    /// Calls that were sent.
    pub(crate) sent: usize,
    /// Of these, those that were sent more than 10 ms late: no connection was free, or the machine was not.
    pub(crate) late: usize,
    /// Calls that were due and never sent.
    pub(crate) unsent: usize,
    /// The seconds over which they were due.
    pub(crate) seconds: f64,
    /// How the calls ended.
    pub(crate) ends: Ends,
    /// Texts scored for each second, from the first answer to the last time at which a call was due.
    pub(crate) scored_per_s: f64,
    /// Of what was scored, from the planned time to the answer.
    pub(crate) scored: Latencies,
    /// Of what was refused, from the planned time.
    pub(crate) refused: Latencies,
    /// Of what was refused, from the time at which it was sent.
    pub(crate) refused_from_sent: Latencies,
    /// By how much calls were sent later than planned.
    pub(crate) lag: Latencies,
    /// From the end of the load to the first text that was scored after it; absent where nobody asked.
    pub(crate) recovered_ms: Option<f64>,
}

impl OpenReport {
    /// Counts what was sent of `planned` calls in a load of this length.
    pub(crate) fn of(planned: usize, length: Duration, sent: &[Sent], recovered: Option<Duration>) -> Self {
        let latencies = |which: Ended, from: fn(&Sent) -> Duration| -> Latencies {
            let these = sent.iter().filter(|call| call.ended == which);
            these.map(|call| call.done.saturating_sub(from(call))).collect()
        };
        let mut ends = Ends::default();
        sent.iter().for_each(|call| ends.add(call.ended));
        let lags = || sent.iter().map(|call| call.sent.saturating_sub(call.due));
        Self {
            planned,
            sent: sent.len(),
            late: lags().filter(|&lag| lag > LATE).count(),
            unsent: planned.saturating_sub(sent.len()),
            seconds: length.as_secs_f64(),
            ends,
            scored_per_s: goodput(sent, length),
            scored: latencies(Ended::Scored, |call| call.due),
            refused: latencies(Ended::Refused, |call| call.due),
            refused_from_sent: latencies(Ended::Refused, |call| call.sent),
            lag: lags().collect(),
            recovered_ms: recovered.map(|time| time.as_secs_f64() * 1e3),
        }
    }
}

/// Scored calls a second within a load of this length, from the first of them on: before it, the queue was filling.
fn goodput(sent: &[Sent], length: Duration) -> f64 {
    let done = || sent.iter().filter(|call| call.ended == Ended::Scored && call.done <= length).map(|call| call.done);
    let Some(first) = done().min() else { return 0.0 };
    let seconds = (length - first).as_secs_f64();
    if seconds > 0.0 { (done().count() - 1) as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn an_answer_is_what_its_status_and_its_scores_say() {
        let answer = |status, retry_after| Ok(Answer { status, retry_after, body: Bytes::from_static(b"body") });
        for (answer, scored, wanted) in [
            (answer(200, false), 2, Ended::Scored),
            (answer(200, false), 1, Ended::Incomplete),
            (answer(429, true), 0, Ended::Refused),
            (answer(429, false), 0, Ended::Status(429)),
            (answer(503, true), 0, Ended::Status(503)),
            (Err("closed"), 0, Ended::Broken("closed")),
        ] {
            assert_eq!(Ended::of(&answer, 2, |_| scored), wanted);
        }
    }

    #[test]
    fn what_was_not_sent_as_planned_is_said() {
        let call = |due, sent, done, ended| Sent { due: ms(due), sent: ms(sent), done: ms(done), ended };
        let sent = [
            call(0, 0, 100, Ended::Scored),
            call(100, 111, 120, Ended::Refused),
            call(200, 210, 600, Ended::Scored),
            call(300, 300, 1100, Ended::Scored),
            call(400, 400, 401, Ended::Status(429)),
        ];
        let report = OpenReport::of(7, ms(1000), &sent, Some(ms(250)));
        assert_eq!((report.planned, report.sent, report.late, report.unsent), (7, 5, 1, 2));
        assert_eq!((report.refused.percentile_ms(1.0), report.refused_from_sent.percentile_ms(1.0)), (20.0, 9.0));
        // Two were scored in time, and one of them in the 900 ms after the first.
        assert!((report.scored_per_s - 1.0 / 0.9).abs() < 1e-9, "{}", report.scored_per_s);
        assert_eq!(report.scored.len(), 3);
        let ends = serde_json::to_value(&report.ends).unwrap();
        assert_eq!(ends, serde_json::json!({"429 without retry-after": 1, "refused": 1, "scored": 3}));
        assert_eq!(report.recovered_ms, Some(250.0));
    }

    proptest! {
        #[test]
        fn every_call_is_counted_once(ends in prop::collection::vec(0u8..4, 0..50), more in 0usize..9) {
            let of = |end| match end {
                0 => Ended::Scored,
                1 => Ended::Refused,
                2 => Ended::Status(504),
                _ => Ended::Broken("closed"),
            };
            let sent: Vec<Sent> = ends
                .iter()
                .map(|&end| Sent { due: ms(0), sent: ms(1), done: ms(2), ended: of(end) })
                .collect();
            let report = OpenReport::of(sent.len() + more, ms(3), &sent, None);
            let total: u64 = report.ends.0.values().sum();
            prop_assert_eq!(total as usize + report.unsent, report.planned);
        }
    }
}
