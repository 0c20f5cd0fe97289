//! The seeded generator of synthetic posts.
//!
//! It guarantees that post number `index` is a pure function of the configuration and `index`: two runs are the same
//! byte for byte on every platform, and a run that was interrupted goes on at any index without making what came
//! before. A post that refers to an earlier one (an edit, a repost, a reply) makes that one again.
//!
//! What it makes looks like what people post: a dozen topics whose mood drifts and is turned over by events (see
//! [`GeneratorConfig`] for how often what happens), slang, emoji, hashtags, handles, links, seven languages, reposts,
//! edits, very long texts, broken payloads and wild clocks. All words are our own; names are invented, links lead to
//! `example.com` and `example.org`. A payload never holds a line feed, so a run can be kept as one payload a line.
//!
//! ```
//! use undertone_collectors::generator::{Generator, GeneratorConfig};
//!
//! let mut posts = Generator::new(GeneratorConfig { seed: 7, ..GeneratorConfig::default() })?;
//! let first = posts.next_post();
//! let second = posts.next_post();
//! assert!(first.at_us <= second.at_us);
//!
//! posts.seek(1);
//! assert_eq!(posts.next_post(), second);
//! # Ok::<(), undertone_error::Error>(())
//! ```

mod chance;
mod clock;
mod config;
mod damage;
mod draft;
mod mood;
mod names;
mod phrases;
mod record;
#[cfg(test)]
mod tests;
mod text;
mod topics;

pub use config::{GeneratorConfig, Shares};
use draft::World;
use undertone_error::Result;
use undertone_proto::EventTime;

/// One synthetic post, as a source would hand it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedPost {
    /// Its number in the run, from 0.
    pub index: u64,
    /// When it arrives, in microseconds since 1970-01-01T00:00:00Z; never earlier than the post before it.
    pub at_us: EventTime,
    /// JSON, or, now and then, something that should have been JSON. Holds no line feed.
    pub payload: Vec<u8>,
}

/// Makes posts, one after the other, without end.
#[derive(Clone, Debug)]
pub struct Generator {
    world: World,
    next: u64,
}

impl Generator {
    /// A generator that stands before post 0.
    ///
    /// # Errors
    /// [`InvalidConfig`](undertone_error::ErrorKind::InvalidConfig), naming what is out of range.
    pub fn new(config: GeneratorConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { world: World::new(config), next: 0 })
    }

    /// The number of the post that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Goes on at this post; costs nothing.
    pub fn seek(&mut self, index: u64) {
        self.next = index;
    }

    /// Makes the next post. Only the end of `u64` would end a run.
    pub fn next_post(&mut self) -> GeneratedPost {
        let index = self.next;
        self.next = index.saturating_add(1);
        GeneratedPost { index, at_us: self.world.arrival_us(index), payload: self.world.payload(index) }
    }
}

impl Iterator for Generator {
    type Item = GeneratedPost;

    fn next(&mut self) -> Option<GeneratedPost> {
        Some(self.next_post())
    }
}
