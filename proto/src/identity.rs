//! The identity of a post and the order of its versions.
//!
//! `uid` is a UUIDv5 of (source, id, UTC day of `created_at`): an edit or a tombstone repeats `created_at`, so it finds
//! the same partition and index everywhere. A version is `edited_at` in milliseconds, else `created_at`, at most the
//! ingestion time + 5 minutes (a clock gone wild must not win for ever), shifted left by 20 bits, plus 20 bits of the
//! content's hash, so that two edits in one millisecond are ordered the same way by every store. A tombstone that does not
//! say when the post was deleted is of the time at which it was ingested: in the millisecond of `created_at` it could lose
//! to the very post that it deletes.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{EventTime, Post};

/// Namespace of every UUIDv5 made here (itself the UUIDv5 of "undertone" in the nil namespace, see the test).
pub const NAMESPACE: Uuid = Uuid::from_u128(0x96bc_82ba_6842_58ef_851a_ef4e_31ea_ba99);

const DAY_US: i64 = 86_400_000_000;
const VERSION_CLOCK_SKEW_MS: i64 = 5 * 60 * 1000;
const HASH_BITS: u32 = 20;
/// What has room beside the hash: the year 2248.
const LATEST_MS: i64 = i64::MAX >> HASH_BITS;

/// The id of a post that came without one: a replay derives the same again.
pub fn derive_id(source: &str, author: Option<&str>, created_at_us: EventTime, text: &str) -> String {
    let name = framed(&[source, author.unwrap_or(""), &created_at_us.to_string(), text]);
    Uuid::new_v5(&NAMESPACE, &name).to_string()
}

/// The post's unique id across sources: UUIDv5 of source, id and the UTC day of `created_at`.
pub fn uid(post: &Post) -> Uuid {
    let day = post.created_at_us.div_euclid(DAY_US);
    Uuid::new_v5(&NAMESPACE, &framed(&[&post.source, &post.id, &day.to_string()]))
}

/// The post's version: greater wins in every latest-wins store.
pub fn version(post: &Post, payload: &[u8], ingested_at_us: EventTime) -> i64 {
    let said = match post.edited_at_us {
        Some(edited) => edited,
        // Not earlier than the post, whose clock may have been ahead.
        None if post.deleted => post.created_at_us.max(ingested_at_us),
        None => post.created_at_us,
    };
    // Also where the time of ingestion is a forger's: any number at all.
    let latest = ingested_at_us.div_euclid(1000).saturating_add(VERSION_CLOCK_SKEW_MS).clamp(0, LATEST_MS);
    let ms = said.div_euclid(1000).clamp(0, latest);
    let hash = Sha256::digest(payload);
    let low = u32::from_be_bytes([0, hash[0], hash[1], hash[2]]) >> (24 - HASH_BITS);
    (ms << HASH_BITS) | i64::from(low)
}

/// The earliest time, in microseconds, of an edit that is newer than a version.
pub fn after(version: i64) -> EventTime {
    ((version >> HASH_BITS) + 1).saturating_mul(1000)
}

/// Joins parts so that no two different lists of parts give the same bytes.
fn framed(parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn post(json: &str) -> Post {
        Post::parse(json.as_bytes(), 1_800_000_000_000_000).expect("a good post")
    }

    #[test]
    fn namespace_is_what_its_docstring_says() {
        assert_eq!(NAMESPACE, Uuid::new_v5(&Uuid::nil(), b"undertone"));
    }

    #[test]
    fn an_edit_keeps_the_uid_and_raises_the_version() {
        let first = r#"{"id":"1","source":"s","text":"a","created_at":"2026-05-01T23:59:00Z"}"#;
        let edit = r#"{"id":"1","source":"s","text":"b","created_at":"2026-05-01T23:59:00Z","edited_at":"2026-05-02T00:10:00Z"}"#;
        assert_eq!(uid(&post(first)), uid(&post(edit)));
        let version = |json: &str| version(&post(json), json.as_bytes(), 1_800_000_000_000_000);
        assert!(version(edit) > version(first));
    }

    #[test]
    fn a_wild_clock_cannot_win_for_ever() {
        let json = r#"{"id":"1","text":"a","created_at":"2099-01-01T00:00:00Z"}"#;
        let ingested = 1_800_000_000_000_000;
        let capped = version(&post(json), json.as_bytes(), ingested) >> HASH_BITS;
        assert_eq!(capped, ingested / 1000 + VERSION_CLOCK_SKEW_MS);
    }

    #[test]
    fn a_tombstone_without_a_time_of_its_own_wins_over_the_post_that_it_deletes() {
        let ingested = 1_800_000_000_000_000;
        // Created long ago, just now, and by a clock that is a year ahead.
        for created in ["2026-05-01T12:00:00Z", "2027-01-15T08:00:00Z", "2028-01-15T08:00:00Z"] {
            for number in 0..200 {
                let text = format!(r#"{{"id":"1","source":"s","text":"{number}","created_at":"{created}"}}"#);
                let gone = format!(r#"{{"id":"1","source":"s","created_at":"{created}","deleted":true,"n":{number}}}"#);
                let first = version(&post(&text), text.as_bytes(), ingested);
                // A millisecond later: within one, Kafka's order is all that there is.
                assert!(version(&post(&gone), gone.as_bytes(), ingested + 1000) > first, "{created} {number}");
            }
        }
        let said = r#"{"id":"1","source":"s","created_at":"2026-05-01T12:00:00Z","deleted":true,"edited_at":"2026-05-02T12:00:00Z"}"#;
        let edited = version(&post(said), said.as_bytes(), ingested) >> HASH_BITS;
        assert_eq!(edited, post(said).edited_at_us.map_or(0, |us| us / 1000), "what it says itself counts");
    }

    proptest! {
        #[test]
        fn an_edit_after_a_version_is_newer(created in 0_i64..1_900_000_000_000_000, ingested in 1_700_000_000_000_000_i64..1_900_000_000_000_000) {
            let first = Post { created_at_us: created, ..post(r#"{"text":"a"}"#) };
            let of_first = version(&first, b"first", ingested);
            let edit = Post { edited_at_us: Some(after(of_first)), ..first };
            prop_assert!(version(&edit, b"edit", ingested + 1000) > of_first);
        }

        #[test]
        fn any_times_give_a_version(created: i64, edited: Option<i64>, deleted: bool, ingested: i64) {
            let times = Post { created_at_us: created, edited_at_us: edited, deleted, ..post(r#"{"text":"a"}"#) };
            prop_assert!(version(&times, b"", ingested) >= 0);
        }

        #[test]
        fn parts_are_never_confused(a in ".*", b in ".*", c in ".*", d in ".*") {
            prop_assume!((&a, &b) != (&c, &d));
            prop_assert_ne!(framed(&[&a, &b]), framed(&[&c, &d]));
        }
    }
}
