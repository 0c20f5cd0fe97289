//! Outcomes as records of a topic; no I/O. The guarantee: what [`fit`] answers is not larger than a record may be, and
//! names the same event.

use prost::Message;
use sha2::{Digest, Sha256};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::{DeadLetter, Outcome, ScoredPost, outcome};
use undertone_proto::{Event, to_json};

use super::outcome::reason;
use crate::source::hex;

/// How scored posts are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoredFormat {
    /// `undertone.v1.ScoredPost`
    #[default]
    Protobuf,
    /// [`to_json`]
    Json,
}

impl ScoredFormat {
    /// The value of a record.
    ///
    /// # Errors
    /// As [`to_json`].
    pub fn encode(self, post: &ScoredPost) -> Result<Vec<u8>> {
        match self {
            Self::Protobuf => Ok(post.encode_to_vec()),
            Self::Json => to_json(post).map(String::into_bytes),
        }
    }
}

/// How large the value of a record may be.
#[derive(Clone, Copy, Debug)]
pub struct RecordLimit {
    /// In bytes; at least [`RecordLimit::LEAST`].
    pub bytes: usize,
    /// How scored posts are written. Dead letters are protocol buffers.
    pub format: ScoredFormat,
}

impl RecordLimit {
    /// A dead letter without a payload is smaller than this.
    pub const LEAST: usize = 4096;

    fn admits(self, post: &ScoredPost) -> Result<bool> {
        Ok(match self.format {
            ScoredFormat::Protobuf => post.encoded_len() <= self.bytes,
            ScoredFormat::Json => self.format.encode(post)?.len() <= self.bytes,
        })
    }
}

/// The outcome of `event` as it is, if it fits. A scored post that does not becomes a dead letter of the stage `score`; a
/// dead letter that does not loses its payload, which keeps its hash and its length.
///
/// # Errors
/// As [`to_json`].
pub fn fit(outcome: Outcome, event: &Event, limit: RecordLimit) -> Result<Outcome> {
    let kind = match outcome.kind {
        Some(outcome::Kind::Scored(post)) if !limit.admits(&post)? => {
            let error = Error::new(ErrorKind::TooLarge, "scored post is larger than a record may be");
            let error = error.with("limit", limit.bytes).help("raise max.message.bytes of the topics, or send less");
            outcome::Kind::Dead(DeadLetter {
                origin: Some(event.origin.clone()),
                stage: "score".to_owned(),
                reason: reason(&error),
                payload: Vec::new(),
                payload_sha256: hex(&Sha256::digest(&event.payload)),
                payload_bytes: event.payload.len() as u64,
                attempts: 1,
                ingested_at_us: event.ingested_at_us,
                dead_at_us: post.scored_at_us,
            })
        }
        Some(outcome::Kind::Dead(letter)) if letter.encoded_len() > limit.bytes => {
            outcome::Kind::Dead(DeadLetter { payload: Vec::new(), ..letter })
        }
        kind => return Ok(Outcome { kind }),
    };
    Ok(Outcome { kind: Some(kind) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use undertone_proto::Envelope;
    use undertone_proto::v1::Origin;

    use super::super::outcome::dead;
    use super::*;

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

    fn value(outcome: &Outcome, format: ScoredFormat) -> Vec<u8> {
        match outcome.kind.as_ref().unwrap() {
            outcome::Kind::Scored(post) => format.encode(post).unwrap(),
            outcome::Kind::Dead(letter) => letter.encode_to_vec(),
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
            let format = if json { ScoredFormat::Json } else { ScoredFormat::Protobuf };
            let limit = RecordLimit { bytes: RecordLimit::LEAST + over, format };
            let fitted = fit(outcome.clone(), &event, limit).unwrap();
            prop_assert!(value(&fitted, format).len() <= limit.bytes);
            prop_assert_eq!(origin(&fitted), &event.origin);
            if value(&outcome, format).len() <= limit.bytes {
                prop_assert_eq!(fitted, outcome);
            } else {
                let Some(outcome::Kind::Dead(letter)) = fitted.kind else { panic!("a dead letter") };
                prop_assert_eq!(letter.payload_sha256, hex(&Sha256::digest(&event.payload)));
                prop_assert_eq!(letter.payload_bytes, event.payload.len() as u64);
                prop_assert!(letter.payload.is_empty());
                prop_assert_eq!((letter.stage.as_str(), letter.attempts), if is_dead { ("parse", 3) } else { ("score", 1) });
                prop_assert_eq!((letter.ingested_at_us, letter.dead_at_us), (event.ingested_at_us, event.ingested_at_us + 1));
            }
        }
    }

    #[test]
    fn a_post_that_fits_to_the_byte_is_kept() {
        let event = event(vec![b'a'; 5000]);
        let post = scored(&event, "a".repeat(5000));
        for format in [ScoredFormat::Protobuf, ScoredFormat::Json] {
            let bytes = value(&post, format).len();
            let fitted = |bytes| fit(post.clone(), &event, RecordLimit { bytes, format }).unwrap();
            assert_eq!(fitted(bytes), post);
            let Some(outcome::Kind::Dead(letter)) = fitted(bytes - 1).kind else { panic!("a dead letter") };
            assert!(
                letter.reason.contains("larger") && letter.reason.contains("max.message.bytes"),
                "{}",
                letter.reason
            );
        }
    }
}
