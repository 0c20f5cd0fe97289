//! Why an event died, as one word of a closed set: what dashboards count by. People read the reason itself.
//!
//! A dead letter holds the reason as it was written when the event died, so the word is told from how that begins: then it
//! can be told of any letter, however old.

/// How reasons begin, and their words. The first that fits counts.
const CLASSES: [(&str, &str); 16] = [
    ("post is not JSON", "not_json"),
    ("post is not a JSON object", "not_an_object"),
    ("post is not UTF-8", "not_utf8"),
    ("post is empty", "empty"),
    ("post is framed by a schema registry", "schema_registry"),
    ("post has no text", "no_text"),
    ("tombstone has no", "tombstone"),
    ("field has a wrong type", "wrong_type"),
    ("field is not a time", "not_a_time"),
    ("scored post is larger than a record may be", "too_large"),
    ("text is too long", "too_large"),
    ("text is empty", "no_text"),
    ("text has nothing that the model reads", "nothing_to_read"),
    ("process or device died", "crash"),
    ("device was lost", "crash"),
    ("model panicked", "crash"),
];

/// The word for a reason; `other` for one that is not known here.
pub fn class(reason: &str) -> &'static str {
    CLASSES.iter().find(|(beginning, _)| reason.starts_with(beginning)).map_or("other", |(_, class)| class)
}

#[cfg(test)]
mod tests {
    use undertone_proto::PostReader;

    use super::*;

    #[test]
    fn every_way_in_which_a_post_is_malformed_has_a_word() {
        let cases: [(&[u8], &str); 10] = [
            (b"{\"text\": ", "not_json"),
            (b"[1]", "not_an_object"),
            (b"{\"text\":\"\xff\"}", "not_utf8"),
            (b"", "empty"),
            (b"\x00\x00\x00\x00\x07abc", "schema_registry"),
            (br#"{"id":"1","source":"x"}"#, "no_text"),
            (br#"{"id":"1","source":"x","deleted":true}"#, "tombstone"),
            (br#"{"source":"x","deleted":true,"created_at":"2026-05-01T12:00:00Z"}"#, "tombstone"),
            (br#"{"text":7}"#, "wrong_type"),
            (br#"{"text":"a","created_at":"yesterday"}"#, "not_a_time"),
        ];
        for (payload, wanted) in cases {
            let error = PostReader::default().read(payload, 0).expect_err(wanted);
            assert_eq!(class(&error.to_string()), wanted, "{error}");
        }
        assert_eq!(class("a new reason"), "other");
    }
}
