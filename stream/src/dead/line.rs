//! A dead letter as one line of JSON, and back.

use arrow_cast::base64::{BASE64_STANDARD, Engine};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::timestamp;
use undertone_proto::v1::{self, DeadLetter};

#[derive(Serialize, Deserialize)]
struct Line {
    origin: Origin,
    stage: String,
    reason: String,
    /// The bytes, if they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    /// The bytes, if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    payload_sha256: String,
    payload_bytes: u64,
    attempts: u32,
    ingested_at: Timestamp,
    dead_at: Timestamp,
    /// Where the outcome stands in the scored log, if not at the event's offset: that of a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replay: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Origin {
    cluster: String,
    topic: String,
    partition: i32,
    offset: i64,
}

/// The letter as one line of JSON, with its line feed.
///
/// # Errors
/// [`ErrorKind::Internal`] if it cannot be written as JSON.
pub fn encode(letter: &DeadLetter) -> Result<String> {
    encode_at(letter, None)
}

/// [`encode`], with the place of the outcome in the scored log.
pub(super) fn encode_at(letter: &DeadLetter, at: Option<i64>) -> Result<String> {
    let v1::Origin { cluster, topic, partition, offset } = letter.origin.clone().unwrap_or_default();
    let kept = !letter.payload.is_empty() || letter.payload_bytes == 0;
    let text = std::str::from_utf8(&letter.payload).ok();
    let line = Line {
        replay: at.filter(|at| *at != offset),
        origin: Origin { cluster, topic, partition, offset },
        stage: letter.stage.clone(),
        reason: letter.reason.clone(),
        payload: text.filter(|_| kept).map(str::to_owned),
        payload_base64: text.is_none().then(|| BASE64_STANDARD.encode(&letter.payload)),
        payload_sha256: letter.payload_sha256.clone(),
        payload_bytes: letter.payload_bytes,
        attempts: letter.attempts,
        ingested_at: timestamp(letter.ingested_at_us),
        dead_at: timestamp(letter.dead_at_us),
    };
    match serde_json::to_string(&line) {
        Ok(line) => Ok(line + "\n"),
        Err(e) => Err(Error::new(ErrorKind::Internal, "dead letter cannot be written as JSON").source(e)),
    }
}

/// Reads one line, without its line feed: the letter and its place in the scored log.
pub(super) fn decode(line: &[u8]) -> Result<(i64, DeadLetter)> {
    let bad = || Error::new(ErrorKind::Corrupt, "line is no dead letter");
    let line: Line = serde_json::from_slice(line).map_err(|e| bad().source(e))?;
    let payload = match (line.payload, line.payload_base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(encoded)) => BASE64_STANDARD.decode(encoded).map_err(|e| bad().source(e))?,
        (None, None) => Vec::new(),
    };
    let Origin { cluster, topic, partition, offset } = line.origin;
    let letter = DeadLetter {
        origin: Some(v1::Origin { cluster, topic, partition, offset }),
        stage: line.stage,
        reason: line.reason,
        payload,
        payload_sha256: line.payload_sha256,
        payload_bytes: line.payload_bytes,
        attempts: line.attempts,
        ingested_at_us: line.ingested_at.as_microsecond(),
        dead_at_us: line.dead_at.as_microsecond(),
    };
    Ok((line.replay.unwrap_or(offset), letter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_line_is_what_people_and_scripts_expect() {
        let letter = DeadLetter {
            origin: Some(v1::Origin { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 7 }),
            stage: "parse".into(),
            reason: "post is not JSON".into(),
            payload: b"{\"a\"\n".to_vec(),
            payload_sha256: "ab".into(),
            payload_bytes: 5,
            attempts: 1,
            ingested_at_us: 1_777_629_600_000_000,
            dead_at_us: 1_777_629_600_250_000,
        };
        let expected = r#"{"origin":{"cluster":"c","topic":"t","partition":0,"offset":7},"stage":"parse","reason":"post is not JSON","payload":"{\"a\"\n","payload_sha256":"ab","payload_bytes":5,"attempts":1,"ingested_at":"2026-05-01T10:00:00Z","dead_at":"2026-05-01T10:00:00.25Z"}"#;
        assert_eq!(encode(&letter).unwrap(), format!("{expected}\n"));
        let binary = DeadLetter { payload: vec![0xff], ..letter.clone() };
        assert!(encode(&binary).unwrap().contains(r#""payload_base64":"/w==""#));
        let left_out = DeadLetter { payload: Vec::new(), ..letter };
        assert!(!encode(&left_out).unwrap().contains(r#""payload":"#));
    }

    proptest! {
        #[test]
        fn any_payload_comes_back(payload: Vec<u8>, reason: String, offset: i64, at in -1_000_000_000_000_000i64..4_000_000_000_000_000) {
            let letter = DeadLetter {
                origin: Some(v1::Origin { offset, ..Default::default() }),
                reason,
                payload_bytes: payload.len() as u64,
                payload,
                dead_at_us: at,
                ..Default::default()
            };
            let line = encode(&letter).unwrap();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(decode(line.trim_end().as_bytes()).unwrap(), (offset, letter.clone()));
            let replayed = encode_at(&letter, Some(7)).unwrap();
            prop_assert_eq!(decode(replayed.trim_end().as_bytes()).unwrap(), (7, letter));
        }
    }
}
