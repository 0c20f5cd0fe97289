//! The keys of this server, as their hashes.
//!
//! A key is 64 hexadecimal digits of chance behind `ut_`: nobody guesses one, so a plain SHA-256 keeps it as safe as a
//! slow hash would, and costs a microsecond a call.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::rate::Bucket;

/// How much the holder of a key may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Texts a second, on the average.
    pub per_second: f64,
    /// Texts that may come at once after a rest.
    pub burst: f64,
}

/// One key.
pub struct Key {
    name: String,
    sha256: [u8; 32],
    rate: Option<(Rate, Mutex<Bucket>)>,
}

impl Key {
    /// A key by the hash of its text; without a rate its holder may send what fits.
    pub fn new(name: impl Into<String>, sha256: [u8; 32], rate: Option<Rate>) -> Self {
        let full = |rate: Rate| (rate, Mutex::new(Bucket::full(rate.burst, Instant::now())));
        Self { name: name.into(), sha256, rate: rate.map(full) }
    }

    /// What the log calls its holder.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn per_second(&self) -> f64 {
        self.rate.as_ref().map_or(f64::INFINITY, |(rate, _)| rate.per_second)
    }

    pub(super) fn take(&self) -> Result<(), Duration> {
        match &self.rate {
            Some((rate, bucket)) => locked(bucket).take(*rate, Instant::now()),
            None => Ok(()),
        }
    }

    pub(super) fn charge(&self, texts: usize) {
        if let Some((_, bucket)) = &self.rate {
            locked(bucket).charge(texts);
        }
    }
}

fn locked(bucket: &Mutex<Bucket>) -> std::sync::MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every key of this server; none lets everybody call.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<[Arc<Key>]>);

impl Keys {
    /// Whether anybody may call.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, for whoever checks a configuration.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.name())
    }

    /// The key whose text this is. Takes as long whichever it is, or none.
    pub(super) fn find(&self, sent: &[u8]) -> Option<Arc<Key>> {
        let hash: [u8; 32] = Sha256::digest(sent).into();
        let mut found = None;
        for key in self.0.iter() {
            if bool::from(key.sha256.ct_eq(&hash)) {
                found = Some(Arc::clone(key));
            }
        }
        found
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<T: IntoIterator<Item = Key>>(keys: T) -> Self {
        Self(keys.into_iter().map(Arc::new).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_text_alone_and_never_shown() {
        let hash = |text: &str| Sha256::digest(text).into();
        let keys: Keys =
            [Key::new("ci", hash("ut_1"), None), Key::new("page", hash("ut_2"), None)].into_iter().collect();
        let name = |sent: &str| keys.find(sent.as_bytes()).map(|key| key.name().to_owned());
        assert_eq!((name("ut_1").as_deref(), name("ut_2").as_deref()), (Some("ci"), Some("page")));
        for sent in ["", "ut_", "ut_3", "ci", "ut_1 "] {
            assert_eq!(name(sent), None, "{sent:?}");
        }
        assert_eq!(format!("{:?}", keys.find(b"ut_1").expect("a key")), "Key { name: \"ci\", .. }");
    }
}
