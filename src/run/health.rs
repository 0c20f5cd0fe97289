//! What `/readyz` says about each part, decided from what the part reports.

use undertone_gateway::{Part, PartState};
use undertone_sinks::pump::SinkSnapshot;

/// A sink that waits is degraded, not unready: taking the gateway out of a load balancer would not make a store well.
/// One that has given up needs a person, and says so by failing.
pub(super) fn sink_part(snapshot: &SinkSnapshot) -> Part {
    match (&snapshot.stopped, &snapshot.waiting) {
        (Some(reason), _) => Part::not_ready(&snapshot.sink, PartState::Failed, reason),
        (None, Some(waiting)) => Part::not_ready(&snapshot.sink, PartState::Degraded, &waiting.reason),
        (None, None) => Part::ready(&snapshot.sink),
    }
}

#[cfg(test)]
mod tests {
    use undertone_sinks::pump::Waiting;

    use super::*;

    fn snapshot(stopped: Option<&str>, waiting: Option<&str>) -> SinkSnapshot {
        SinkSnapshot {
            sink: "silver.posts".to_owned(),
            position: 0,
            lag_posts: 0,
            lag_seconds: 0.0,
            waiting: waiting.map(|reason| Waiting { since_ms: 0, reason: reason.to_owned() }),
            last_commit: None,
            stopped: stopped.map(str::to_owned),
            finished: false,
        }
    }

    #[test]
    fn a_waiting_sink_stays_ready_and_a_stopped_one_does_not() {
        let cases = [
            (None, None, PartState::Ready, None),
            (None, Some("disk full"), PartState::Degraded, Some("disk full")),
            (Some("rolled back"), None, PartState::Failed, Some("rolled back")),
            (Some("rolled back"), Some("disk full"), PartState::Failed, Some("rolled back")),
        ];
        for (stopped, waiting, state, reason) in cases {
            let part = sink_part(&snapshot(stopped, waiting));
            assert_eq!((part.state, part.reason.as_deref()), (state, reason));
        }
    }
}
