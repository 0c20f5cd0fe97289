//! Spans of events on their way to a durable score, for those whose records carry a trace.
//!
//! The guarantee: a transaction makes one span for each span that its events come from, however many events that sent: a
//! call of ten thousand posts is no ten thousand spans. Events without a trace, and all where nothing is traced, cost a look
//! at their headers at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use undertone_proto::v1::outcome::Kind;
use undertone_proto::{EventTime, Headers};
use undertone_trace as trace;

use super::replay::is_replay;
use super::score::KafkaOutcome;

/// The events of one span that became durable together.
#[derive(Debug, PartialEq, Eq)]
struct Together<'a> {
    headers: &'a Headers,
    /// When the first of them was made durable as an event.
    since_us: EventTime,
    events: i64,
    dead: i64,
}

/// Tells the traces of outcomes that they are durable now.
pub(super) fn tell(outcomes: &[Arc<KafkaOutcome>]) {
    if !trace::is_on() {
        return;
    }
    for Together { headers, since_us, events, dead } in together(outcomes.iter().map(|outcome| &**outcome)) {
        let since = UNIX_EPOCH + Duration::from_micros(u64::try_from(since_us).unwrap_or(0));
        let Some(span) = trace::record("score posts", since, |name| text(headers, name)) else { continue };
        span.word("messaging.system", "kafka");
        span.count("messaging.batch.message_count", events);
        span.count("undertone.dead_letters", dead);
    }
}

fn together<'a>(outcomes: impl Iterator<Item = &'a KafkaOutcome>) -> Vec<Together<'a>> {
    let mut spans = BTreeMap::new();
    for KafkaOutcome { outcome, headers, .. } in outcomes {
        let Some(parent) = text(headers, trace::TRACEPARENT) else { continue };
        let (since_us, dead) = match &outcome.kind {
            // Its event was long ago, and so was its trace.
            _ if is_replay(headers) => continue,
            Some(Kind::Scored(post)) => (post.ingested_at_us, 0),
            Some(Kind::Dead(letter)) => (letter.ingested_at_us, 1),
            None => continue,
        };
        let span = spans.entry(parent).or_insert(Together { headers, since_us, events: 0, dead: 0 });
        span.since_us = span.since_us.min(since_us);
        span.events += 1;
        span.dead += dead;
    }
    spans.into_values().collect()
}

/// The value of a header, if it is text.
fn text<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(known, _)| known == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use undertone_proto::v1::{DeadLetter, Outcome, ScoredPost};

    use super::super::replay::REPLAY_OF;
    use super::*;

    fn outcome(headers: &[(&str, Option<&[u8]>)], ingested_at_us: i64, dead: bool) -> KafkaOutcome {
        let kind = match dead {
            false => Kind::Scored(ScoredPost { ingested_at_us, ..ScoredPost::default() }),
            true => Kind::Dead(DeadLetter { ingested_at_us, ..DeadLetter::default() }),
        };
        let owned = |(name, value): &(&str, Option<&[u8]>)| ((*name).to_owned(), value.map(<[u8]>::to_vec));
        let headers = headers.iter().map(owned).collect();
        KafkaOutcome { outcome: Outcome { kind: Some(kind) }, headers, size: 1 }
    }

    #[test]
    fn events_of_one_span_are_one_span() {
        let outcomes = [
            outcome(&[], 1, false),
            outcome(&[("x", Some(b"1")), ("traceparent", Some(b"a"))], 30, false),
            outcome(&[("traceparent", Some(b"b"))], 10, false),
            outcome(&[("traceparent", Some(b"a"))], 20, true),
            outcome(&[("traceparent", None)], 1, false),
            outcome(&[("traceparent", Some(b"\xff"))], 1, false),
            outcome(&[("traceparent", Some(b"a")), (REPLAY_OF, Some(b"r"))], 1, false),
        ];
        let found: Vec<_> = together(outcomes.iter())
            .into_iter()
            .map(|span| (text(span.headers, "traceparent"), span.since_us, span.events, span.dead))
            .collect();
        assert_eq!(found, [(Some("a"), 20, 2, 1), (Some("b"), 10, 1, 0)]);
    }
}
