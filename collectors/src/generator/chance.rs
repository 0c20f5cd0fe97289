//! Random numbers that are functions of (seed, purpose, index), so that any post can be made without its predecessors.
//!
//! SplitMix64, written out here rather than taken from a crate: the bytes of a run are part of what the generator
//! promises, and the distributions of general random-number crates may change between their versions. Only integer
//! operations, additions and multiplications are used; no libm function, whose last bit differs between platforms.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a stream of draws is for. Draws for one purpose never shift those for another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Kind = 1,
    Identity,
    Clock,
    Text,
    Fields,
    Target,
    Damage,
    Drift,
    Event,
}

/// SplitMix64's finaliser: a bijection on 64 bits, so different inputs never collide.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A sequence of draws.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    state: u64,
}

impl Draws {
    pub(super) fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let stream = mix(seed.wrapping_add(GOLDEN.wrapping_mul(purpose as u64)));
        Self { state: mix(stream ^ mix(index.wrapping_add(GOLDEN))) }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [-1, 1).
    pub(super) fn signed(&mut self) -> f64 {
        self.unit() * 2.0 - 1.0
    }

    /// Uniform in 0..bound; 0 if the bound is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One item of a table, which is never empty.
    pub(super) fn pick<'a, T: ?Sized>(&mut self, table: &[&'a T]) -> &'a T {
        table[self.below(table.len() as u64) as usize]
    }

    /// The index of one weight, with probability proportional to it.
    pub(super) fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (i, weight) in weights.iter().enumerate() {
            if left < *weight {
                return i;
            }
            left -= weight;
        }
        weights.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_those_of_the_published_algorithm() {
        // The first outputs of SplitMix64 from the state 1234567, as in its reference implementation.
        let mut draws = Draws { state: 1_234_567 };
        assert_eq!([draws.next(), draws.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn purposes_and_indices_are_independent() {
        let first = |purpose, index| Draws::new(7, purpose, index).next();
        let mut seen: Vec<u64> = (0..1000).flat_map(|i| [first(Purpose::Text, i), first(Purpose::Kind, i)]).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 2000);
    }

    #[test]
    fn weights_are_met() {
        let mut draws = Draws::new(1, Purpose::Text, 0);
        let mut counts = [0; 3];
        for _ in 0..30_000 {
            counts[draws.weighted(&[1.0, 0.0, 2.0])] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((9_600..10_400).contains(&counts[0]), "{counts:?}");
    }
}
