//! Outcomes as records of a topic; no I/O. The guarantee: what [`fit`] answers is not larger than a record may be, and
//! names the same event.

use prost::Message;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::{Outcome, ScoredPost, outcome};
use undertone_proto::{Event, to_json};

use super::outcome::dead;

/// How large the value of a record may be.
#[derive(Clone, Copy, Debug)]
pub struct RecordLimit {
    /// In bytes; at least [`RecordLimit::LEAST`].
    pub bytes: usize,
    /// Whether scored posts are written as JSON too, which is larger.
    pub json: bool,
}

/// JSON is at most so many times as large as a protocol buffer: a control character takes six bytes for one, a number
/// at most 24 for four.
const JSON_FACTOR: usize = 6;
/// What JSON has beside that: the names of its fields.
const JSON_NAMES: usize = 2048;

impl RecordLimit {
    /// A dead letter without a payload is smaller than this.
    pub const LEAST: usize = 4096;

    fn admits(self, post: &ScoredPost) -> Result<bool> {
        let bytes = post.encoded_len();
        if bytes > self.bytes || !self.json {
            return Ok(bytes <= self.bytes);
        }
        // Nearly every post is far from the limit, and needs not be written to be measured.
        let surely = bytes.saturating_mul(JSON_FACTOR).saturating_add(JSON_NAMES) <= self.bytes;
        Ok(surely || to_json(post)?.len() <= self.bytes)
    }
}

/// The outcome of `event` as it is, if it fits. A scored post that does not becomes a dead letter of the stage `score`; a
/// dead letter that does not loses its payload, which keeps its hash and its length.
///
/// # Errors
/// As [`to_json`].
pub fn fit(outcome: Outcome, event: &Event, limit: RecordLimit) -> Result<Outcome> {
    match outcome.kind {
        Some(outcome::Kind::Scored(post)) if !limit.admits(&post)? => {
            let error = Error::new(ErrorKind::TooLarge, "scored post is larger than a record may be");
            let error = error.with("limit", limit.bytes).help("raise kafka.topics.max_event_bytes, or send less");
            fit(dead(event, "score", &error, 1, limit.bytes, post.scored_at_us), event, limit)
        }
        Some(outcome::Kind::Dead(mut letter)) if letter.encoded_len() > limit.bytes => {
            letter.payload = Vec::new();
            Ok(Outcome { kind: Some(outcome::Kind::Dead(letter)) })
        }
        kind => Ok(Outcome { kind }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};
    use undertone_proto::Envelope;
    use undertone_proto::v1::{DeadLetter, Origin};

    use super::*;
    use crate::source::hex;

    fn event(payload: Vec<u8>) -> Event {
        let origin = Origin { cluster: "c".repeat(22), topic: "t".repeat(22), partition: i32::MAX, offset: i64::MAX };
        Event { origin, payload, ingested_at_us: 1_800_000_000_000_000, envelope: Envelope::default() }
    }

    fn scored(event: &Event, text: String) -> Outcome {
        let post = ScoredPost {
            origin: Some(event.origin.clone()),
            clean_text: text.clone(),
            text,
            scored_at_us: event.ingested_at_us + 1,
            ..ScoredPost::default()
        };
        Outcome { kind: Some(outcome::Kind::Scored(post)) }
    }

    /// The size of the larger record that is written.
    fn size(outcome: &Outcome, json: bool) -> usize {
        match outcome.kind.as_ref().unwrap() {
            outcome::Kind::Scored(post) if json => post.encoded_len().max(to_json(post).unwrap().len()),
            outcome::Kind::Scored(post) => post.encoded_len(),
            outcome::Kind::Dead(letter) => letter.encoded_len(),
        }
    }

    fn origin(outcome: &Outcome) -> &Origin {
        crate::scored::origin(outcome).unwrap()
    }

    proptest! {
        #[test]
        fn whatever_is_made_to_fit_fits_and_names_its_event(
            text in "[a-zé\"\\\\\u{1}]{0,6000}", over in 0_usize..6000, json: bool, is_dead: bool, reason_chars in 0_usize..3000,
        ) {
            let event = event(text.clone().into_bytes());
            let outcome = if is_dead {
                let error = Error::new(ErrorKind::InvalidInput, "é".repeat(reason_chars));
                dead(&event, "parse", &error, 3, usize::MAX, event.ingested_at_us + 1)
            } else {
                scored(&event, text)
            };
            let limit = RecordLimit { bytes: RecordLimit::LEAST + over, json };
            let fitted = fit(outcome.clone(), &event, limit).unwrap();
            prop_assert!(size(&fitted, json) <= limit.bytes);
            prop_assert_eq!(origin(&fitted), &event.origin);
            if size(&outcome, json) <= limit.bytes {
                prop_assert_eq!(fitted, outcome);
            } else {
                let Some(outcome::Kind::Dead(letter)) = fitted.kind else { panic!("a dead letter") };
                prop_assert_eq!(letter.payload_sha256.clone(), hex(&Sha256::digest(&event.payload)));
                prop_assert_eq!(letter.payload_bytes, event.payload.len() as u64);
                // The bytes stay where there is room for them.
                let whole = DeadLetter { payload: event.payload.clone(), ..letter.clone() };
                let kept = if whole.encoded_len() <= limit.bytes { event.payload.as_slice() } else { &[] };
                prop_assert_eq!(letter.payload.as_slice(), kept);
                prop_assert_eq!((letter.stage.as_str(), letter.attempts), if is_dead { ("parse", 3) } else { ("score", 1) });
                prop_assert_eq!((letter.ingested_at_us, letter.dead_at_us), (event.ingested_at_us, event.ingested_at_us + 1));
            }
        }
    }

    #[test]
    fn a_post_that_fits_to_the_byte_is_kept() {
        let event = event(vec![b'a'; 5000]);
        let post = scored(&event, "a".repeat(5000));
        for json in [false, true] {
            let bytes = size(&post, json);
            let fitted = |bytes| fit(post.clone(), &event, RecordLimit { bytes, json }).unwrap();
            assert_eq!(fitted(bytes), post);
            let Some(outcome::Kind::Dead(letter)) = fitted(bytes - 1).kind else { panic!("a dead letter") };
            assert!(letter.reason.contains("larger") && letter.reason.contains("max_event_bytes"), "{}", letter.reason);
        }
    }
}
