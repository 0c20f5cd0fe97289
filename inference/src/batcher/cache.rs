//! Scores of texts that were scored before: reposts are answered without a forward pass.
//!
//! The guarantee: a hit is exactly what the forward pass of the same clean text gave, and memory stays within the bytes
//! given. The key is the clean text alone: a cache lives and dies with one loaded model, so revision, precision and heads
//! are the same for everything in it. What does not follow from the clean text (the language, and whether the raw text
//! was cut) is not kept here.
//!
//! Eviction is first in, first out, with a second chance for what was hit meanwhile (CLOCK). The shards keep workers from
//! waiting for each other.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Outcome;
use crate::scored::HeadScores;

/// A shard has at least this much room, so that a small cache is not cut into pieces that hold nothing.
const SHARD_BYTES: usize = 1 << 20;
const MAX_SHARDS: usize = 16;

/// About what the maps, the reference counts and the allocator take for an entry.
const ENTRY_BYTES: usize = 192;

/// What is kept of a scored text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) outcome: Outcome,
    /// How many tokens went through the encoder.
    pub(crate) tokens: usize,
    /// Whether the clean text had more tokens than fit.
    pub(crate) truncated: bool,
}

/// The cache. With no bytes it keeps nothing and costs nothing.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Shard {
    entries: HashMap<Arc<str>, Entry>,
    /// The keys of all entries, in the order in which they will be looked at for eviction.
    order: VecDeque<Arc<str>>,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    bytes: usize,
    /// Whether it was hit since it was last looked at.
    hit: bool,
}

impl Cache {
    /// A cache that holds at most about `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let shards = match bytes {
            0 => 0,
            bytes => (bytes / SHARD_BYTES).clamp(1, MAX_SHARDS),
        };
        let shard =
            || Shard { entries: HashMap::new(), order: VecDeque::new(), bytes: 0, limit: bytes / shards.max(1) };
        let shards = (0..shards).map(|_| Mutex::new(shard())).collect();
        Self { shards, hasher: RandomState::new(), bytes: AtomicUsize::new(0) }
    }

    /// Whether it can keep anything.
    pub(crate) fn is_on(&self) -> bool {
        !self.shards.is_empty()
    }

    /// What is kept of this clean text.
    pub(crate) fn get(&self, clean_text: &str) -> Option<Arc<Kept>> {
        let mut shard = self.shard(clean_text)?.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.entries.get_mut(clean_text)?;
        entry.hit = true;
        Some(Arc::clone(&entry.kept))
    }

    /// Keeps what is known of a clean text. The first of several stays: all are right.
    pub(crate) fn insert(&self, clean_text: &str, kept: impl FnOnce() -> Kept) {
        let Some(shard) = self.shard(clean_text) else { return };
        let kept = kept();
        let bytes = size(clean_text, &kept);
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shard.bytes;
        shard.insert(clean_text, kept, bytes);
        // Within the shard's lock; wrapping, since another shard may be ahead with its part of the sum.
        self.bytes.fetch_add(shard.bytes.wrapping_sub(before), Ordering::Relaxed);
    }

    /// The bytes that are taken, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, clean_text: &str) -> Option<&Mutex<Shard>> {
        let hash = self.hasher.hash_one(clean_text) as usize;
        self.shards.get(hash.checked_rem(self.shards.len())?)
    }
}

impl Shard {
    fn insert(&mut self, clean_text: &str, kept: Kept, bytes: usize) {
        if bytes > self.limit || self.entries.contains_key(clean_text) {
            return;
        }
        while self.bytes + bytes > self.limit {
            let Some(oldest) = self.order.pop_front() else { return };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.hit => {
                    entry.hit = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    let evicted = self.entries.remove(&oldest);
                    self.bytes = self.bytes.saturating_sub(evicted.map_or(0, |entry| entry.bytes));
                }
            }
        }
        let key: Arc<str> = clean_text.into();
        self.order.push_back(Arc::clone(&key));
        self.entries.insert(key, Entry { kept: Arc::new(kept), bytes, hit: false });
        self.bytes += bytes;
    }
}

/// About the memory of an entry, in bytes.
fn size(clean_text: &str, kept: &Kept) -> usize {
    let Outcome { embedding, verdict } = &kept.outcome;
    let heads: usize =
        verdict.heads.iter().map(|head| size_of::<HeadScores>() + size_of_val(head.probabilities.as_slice())).sum();
    ENTRY_BYTES + size_of::<Kept>() + clean_text.len() + size_of_val(embedding.as_slice()) + heads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Verdict;

    fn kept(text: &str) -> Kept {
        let verdict = Verdict { heads: Vec::new(), sentiment: None };
        Kept {
            outcome: Outcome { embedding: vec![text.len() as f32; 8], verdict },
            tokens: text.len(),
            truncated: false,
        }
    }

    fn room_for(entries: usize) -> Cache {
        Cache::new(entries * size("0", &kept("0")))
    }

    #[test]
    fn what_was_hit_stays_longer_than_what_was_not() {
        let cache = room_for(3);
        for text in ["a", "b", "c"] {
            cache.insert(text, || kept(text));
        }
        assert!(cache.get("a").is_some());
        cache.insert("d", || kept("d"));
        assert_eq!(["a", "b", "c", "d"].map(|text| cache.get(text).is_some()), [true, false, true, true]);
        // All were hit: each has its second chance, then the oldest goes.
        cache.insert("e", || kept("e"));
        assert_eq!(["a", "b", "c", "d", "e"].iter().filter(|text| cache.get(text).is_some()).count(), 3);
        assert!(cache.get("e").is_some());
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let cache = Cache::new(0);
        cache.insert("a", || unreachable!("nothing is even copied"));
        assert!(!cache.is_on() && cache.get("a").is_none());
    }

    #[test]
    fn a_text_that_fills_a_shard_is_not_kept_at_the_cost_of_all_others() {
        let cache = room_for(2);
        cache.insert("a", || kept("a"));
        let long = "x".repeat(10_000);
        cache.insert(&long, || kept(&long));
        assert!(cache.get(&long).is_none() && cache.get("a").is_some());
    }

    proptest! {
        #[test]
        fn hits_are_what_was_kept_and_memory_is_bounded(bytes in 0usize..(3 << 20), texts in prop::collection::vec(0u32..4000, 1..3000)) {
            let cache = Cache::new(bytes);
            for number in texts {
                let text = format!("{number} {}", "x".repeat(number as usize % 997));
                match cache.get(&text) {
                    Some(found) => prop_assert_eq!(&*found, &kept(&text)),
                    None => cache.insert(&text, || kept(&text)),
                }
                prop_assert!(cache.bytes() <= bytes);
            }
            let held: usize = cache.shards.iter().map(|shard| {
                let shard = shard.lock().unwrap();
                assert_eq!(shard.order.len(), shard.entries.len());
                shard.entries.iter().map(|(text, entry)| size(text, &entry.kept)).sum::<usize>()
            }).sum();
            prop_assert_eq!(cache.bytes(), held);
        }
    }
}
