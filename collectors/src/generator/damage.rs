//! Payloads that no parser can take: what broken senders really send.
//!
//! None holds a line feed, so that they survive a file of one payload a line, and none is blank, so that no reader
//! takes one for nothing.

use super::chance::Draws;

/// Breaks the JSON of a post in one of the ways that senders break theirs.
pub(super) fn damaged(draws: &mut Draws, json: Vec<u8>) -> Vec<u8> {
    let mut json = json;
    match draws.below(6) {
        // Cut off: an object that is never closed.
        0 => {
            let keep = 1 + draws.below(json.len() as u64 - 1) as usize;
            json.truncate(keep);
        }
        // Latin-1 where UTF-8 belongs.
        1 => json.splice(1..1, *b"\"caf\xe9\":1,").for_each(drop),
        2 => return br#"{"id":"no-text","source":"webhook","created_at":"2026-01-01T00:00:00Z"}"#.to_vec(),
        3 => return br#"{"source":"webhook","text":"   "}"#.to_vec(),
        4 => return format!(r#"{{"source":"webhook","text":{}}}"#, draws.below(1000)).into_bytes(),
        // A time that only a person understands. The last of two equal keys is the one that counts.
        _ => {
            json.pop();
            json.extend_from_slice(br#","created_at":"yesterday evening"}"#);
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use undertone_proto::Post;

    use super::super::chance::Purpose;
    use super::*;

    #[test]
    fn nothing_damaged_can_be_parsed() {
        let json = r#"{"id":"1","text":"häuser \n\n and \u00e9","created_at":"2026-01-01T00:00:00Z"}"#;
        for index in 0..500 {
            let broken = damaged(&mut Draws::new(1, Purpose::Damage, index), json.as_bytes().to_vec());
            assert!(Post::parse(&broken, 0).is_err(), "{}", String::from_utf8_lossy(&broken));
            assert!(!broken.contains(&b'\n') && !broken.trim_ascii().is_empty());
        }
    }
}
