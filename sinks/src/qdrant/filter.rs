//! Versions as the server compares them.
//!
//! Ranges of a filter are compared as 64-bit floats, which do not tell neighbouring versions apart: a version has 61 bits.
//! So a point also has its two parts, the time in ms and the hash, which floats hold exactly.

use qdrant_client::qdrant::{Condition, Filter, Range};

pub(super) const VERSION: &str = "version";
pub(super) const VERSION_MS: &str = "version_ms";
pub(super) const VERSION_HASH: &str = "version_hash";
const HASH_BITS: u32 = 20;

/// The parts of a version.
pub(super) fn parts(version: i64) -> (i64, i64) {
    (version >> HASH_BITS, version & ((1 << HASH_BITS) - 1))
}

/// Points whose version is at most `version`.
pub(super) fn at_most(version: i64) -> Filter {
    let (ms, hash) = parts(version);
    let earlier = Condition::range(VERSION_MS, Range { lt: Some(ms as f64), ..Range::default() });
    let same = Condition::matches(VERSION_MS, ms);
    let no_later = Condition::range(VERSION_HASH, Range { lte: Some(hash as f64), ..Range::default() });
    Filter::should([earlier, Filter::must([same, no_later]).into()])
}

/// Points that nobody has given a version: none of ours. With it an upsert only adds.
pub(super) fn none() -> Filter {
    Filter::must([Condition::is_empty(VERSION)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_parts_are_ordered_as_versions_are_and_exact_as_floats(a in 0..i64::MAX, b in 0..i64::MAX) {
            prop_assert_eq!(parts(a).cmp(&parts(b)), a.cmp(&b));
            let (ms, hash) = parts(a);
            prop_assert_eq!((ms as f64 as i64, hash as f64 as i64), (ms, hash));
        }
    }
}
