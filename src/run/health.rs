//! What `/readyz` says about each part, decided from what the part reports.

use undertone_gateway::{Part, PartState};
use undertone_inference::EngineStats;
use undertone_proto::timestamp;
use undertone_sinks::pump::SinkSnapshot;

/// A forward pass takes milliseconds; one that takes this long will not end.
const STUCK_SECONDS: f64 = 30.0;

/// The core is ready while a worker is alive and none has been at one batch for too long.
pub(super) fn engine_part(stats: &EngineStats) -> Part {
    if stats.workers == 0 {
        return Part::not_ready("engine", PartState::Failed, "no worker is alive; restart the process");
    }
    if stats.ill >= stats.workers {
        return Part::not_ready("engine", PartState::Failed, "every worker is restarting its device");
    }
    if stats.oldest_batch_seconds > STUCK_SECONDS {
        let reason = format!("a batch has been running for {:.0} s", stats.oldest_batch_seconds);
        return Part::not_ready("engine", PartState::Failed, reason);
    }
    Part::ready("engine")
}

/// A sink that waits is degraded, not unready: taking the gateway out of a load balancer would not make a store well.
/// One that has given up needs a person, and says so by failing.
pub(super) fn sink_part(snapshot: &SinkSnapshot) -> Part {
    match (&snapshot.stopped, &snapshot.waiting) {
        (Some(reason), _) => Part::not_ready(&snapshot.sink, PartState::Failed, reason),
        (None, Some(waiting)) => {
            let since = timestamp(waiting.since_ms.saturating_mul(1000)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            Part::not_ready(&snapshot.sink, PartState::Degraded, &waiting.reason).since(since)
        }
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
    fn a_dead_or_stuck_engine_is_not_ready() {
        let stats =
            |workers, oldest_batch_seconds| EngineStats { workers, oldest_batch_seconds, ..EngineStats::default() };
        let ill = |ill| EngineStats { ill, ..stats(2, 0.0) };
        let cases =
            [(stats(2, 0.1), true), (stats(0, 0.0), false), (stats(2, 31.0), false), (ill(1), true), (ill(2), false)];
        for (stats, ready) in cases {
            assert_eq!(engine_part(&stats).state.is_ready(), ready, "{stats:?}");
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
