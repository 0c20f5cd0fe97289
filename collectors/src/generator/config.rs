//! What a run of the generator is made from, and the check that it makes sense.

use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::EventTime;

use super::clock::Clock;

/// Everything that the bytes of a run depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorConfig {
    /// Two runs with the same configuration are the same byte for byte; another seed is another world.
    pub seed: u64,
    /// When the run starts, in microseconds since 1970-01-01T00:00:00Z. No post arrives earlier.
    pub start_us: EventTime,
    /// Posts per second of event time, on average; the momentary rate moves between 0.69 and 1.82 times that.
    pub rate: f64,
    /// How often the unusual happens.
    pub shares: Shares,
}

/// The shares of unusual posts, each in [0, 1] and together at most 1; what is left are ordinary posts.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares {
    /// Payloads that no parser can take.
    pub malformed: f64,
    /// Posts dated 1970, 2099 or 40 days back.
    pub wild_clock: f64,
    /// Posts of 2,000 to 12,000 characters.
    pub long: f64,
    /// New versions of recent posts: the same id, source and `created_at`, with another text and `edited_at`.
    pub edit: f64,
    /// Posts whose whole text is `RT @author: ` and that of a recent post.
    pub repost: f64,
}

impl Default for Shares {
    /// Malformed 0.3 %, wild clocks 0.1 %, long 0.5 %, edits 1 %, reposts 6 %.
    fn default() -> Self {
        Self { malformed: 0.003, wild_clock: 0.001, long: 0.005, edit: 0.01, repost: 0.06 }
    }
}

impl Default for GeneratorConfig {
    /// Seed 1, from 2026-01-01T00:00:00Z, 20 posts a second, the default shares.
    fn default() -> Self {
        Self { seed: 1, start_us: 1_767_225_600_000_000, rate: 20.0, shares: Shares::default() }
    }
}

impl GeneratorConfig {
    /// The earliest start, 2000-01-01, and the latest, 2090-01-01: a century in which 1970 and 2099 are wild.
    const STARTS_US: std::ops::Range<EventTime> = 946_684_800_000_000..3_786_912_000_000_000;

    /// The same posts with the start moved, so that post `index` arrives at `at_us`.
    ///
    /// A run that was interrupted goes on in the present with this. Moods belong to the time of day and stay where
    /// they are; versions of posts from before the pause repeat a `created_at` that moved along with the start.
    #[must_use]
    pub fn with_arrival(self, index: u64, at_us: EventTime) -> Self {
        let elapsed_us = Clock::new(self.seed, 0, self.rate).elapsed_us(index);
        Self { start_us: at_us.saturating_sub(elapsed_us), ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        if !(self.rate.is_finite() && self.rate > 0.0) {
            let error = invalid("rate of the generator is not a positive number").with("rate", self.rate);
            return Err(error.help("set it to posts per second, such as 20"));
        }
        if !Self::STARTS_US.contains(&self.start_us) {
            let error = invalid("start of the generator is out of range").with("start_us", self.start_us);
            return Err(error.help("choose a time between 2000-01-01 and 2090-01-01, in microseconds since 1970"));
        }
        let shares = self.shares.all();
        if let Some((name, share)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            let error =
                invalid("share of the generator is not between 0 and 1").with("share", name).with("value", share);
            return Err(error.help("0.01 is one post in a hundred"));
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        if sum > 1.0 {
            return Err(invalid("shares of the generator sum to more than 1")
                .with("sum", sum)
                .help("lower some of them"));
        }
        Ok(())
    }
}

impl Shares {
    fn all(&self) -> [(&'static str, f64); 5] {
        [
            ("malformed", self.malformed),
            ("wild_clock", self.wild_clock),
            ("long", self.long),
            ("edit", self.edit),
            ("repost", self.repost),
        ]
    }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_by_name() {
        let good = GeneratorConfig::default;
        let shares = Shares::default;
        let cases = [
            (GeneratorConfig { rate: 0.0, ..good() }, "rate"),
            (GeneratorConfig { rate: f64::NAN, ..good() }, "rate"),
            (GeneratorConfig { start_us: 5, ..good() }, "start"),
            (GeneratorConfig { shares: Shares { edit: -0.1, ..shares() }, ..good() }, "edit"),
            (GeneratorConfig { shares: Shares { long: f64::NAN, ..shares() }, ..good() }, "long"),
            (GeneratorConfig { shares: Shares { repost: 0.9, edit: 0.2, ..shares() }, ..good() }, "sum"),
        ];
        for (config, wanted) in cases {
            let error = config.check().expect_err("nonsense");
            assert!(error.to_string().contains(wanted), "{error} should name {wanted}");
        }
        good().check().expect("the default is good");
    }

    #[test]
    fn the_start_moves_so_that_a_post_arrives_when_it_should() {
        let moved = GeneratorConfig::default().with_arrival(1000, 1_800_000_000_000_000);
        let clock = Clock::new(moved.seed, moved.start_us, moved.rate);
        assert_eq!(clock.at_us(1000), 1_800_000_000_000_000);
    }
}
