//! What a batch sends to the GPU, as one array: one copy instead of five.

use tch::{Device, Tensor};
use undertone_error::{Error, ErrorKind, Result};

use super::fused::SHORT;
use super::shim;
use crate::model::encoder::Torch;
use crate::model::pack::Packed;

/// A batch's numbers behind each other, in the 32 bits that CUDA's kernels index with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Staging {
    numbers: Vec<i32>,
    tokens: i64,
    sequences: i64,
    /// The most tokens of a sequence.
    pub(super) longest: i64,
    /// The sequences of at most [`SHORT`] tokens, which lie first.
    pub(super) short: Short,
}

/// The short sequences of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Short {
    /// How many there are.
    pub(super) sequences: i64,
    /// The most tokens of one of them.
    pub(super) longest: i64,
}

/// The parts of [`Staging`] on the device, each one-dimensional int32.
#[derive(Debug)]
pub(super) struct Staged {
    /// Token ids, [tokens].
    pub(super) ids: Tensor,
    /// Positions, [tokens].
    pub(super) positions: Tensor,
    /// Where the sequences start, and the total at the end, [sequences + 1].
    pub(super) bounds: Tensor,
    /// How many tokens each sequence has, [sequences].
    pub(super) lengths: Tensor,
    /// For each sequence as it was given, its place in the packed order, [sequences].
    pub(super) places: Tensor,
    pub(super) longest: i64,
    pub(super) short: Short,
}

impl Staging {
    /// Lays a batch out. `limits` are the numbers of word and position embeddings.
    ///
    /// # Errors
    /// `Internal` for an id or a position without an embedding: on a GPU reading it would end the process's whole use of
    /// the device.
    pub(super) fn new(batch: &Packed, limits: (i64, i64)) -> Result<Self> {
        for (what, values, limit) in [("token id", &batch.ids, limits.0), ("position", &batch.positions, limits.1)] {
            if let Some(value) = values.iter().find(|value| !(0..limit).contains(*value)) {
                return Err(Error::new(ErrorKind::Internal, format!("{what} has no embedding"))
                    .with("value", value)
                    .with("embeddings", limit));
            }
        }
        let lengths: Vec<i64> = batch.cumulative.windows(2).map(|bounds| bounds[1] - bounds[0]).collect();
        let parts = [&batch.ids, &batch.positions, &batch.cumulative, &lengths, &batch.places];
        let numbers = parts.into_iter().flatten().map(|&number| i32::try_from(number)).collect::<Result<_, _>>();
        Ok(Self {
            numbers: numbers.map_err(|error| {
                Error::new(ErrorKind::Internal, "batch has more tokens than 32 bits count").source(error)
            })?,
            tokens: batch.tokens() as i64,
            sequences: batch.sequences() as i64,
            longest: lengths.iter().copied().max().unwrap_or(0),
            short: Short {
                sequences: lengths.iter().take_while(|&&length| length <= SHORT).count() as i64,
                longest: lengths.iter().copied().take_while(|&length| length <= SHORT).last().unwrap_or(0),
            },
        })
    }

    /// Copies the batch to a device. To a GPU the copy goes from pinned memory and is not waited for; libtorch keeps the
    /// pinned memory until the stream has read it, and uses it again for later batches.
    pub(super) fn send(&self, device: Device) -> Torch<Staged> {
        let numbers = Tensor::f_from_slice(&self.numbers)?;
        let sent = match device {
            Device::Cpu => numbers,
            _ => shim::pin(&numbers)?.f_to_device_(device, tch::Kind::Int, true, false)?,
        };
        let mut start = 0;
        let mut part = |length: i64| {
            let part = sent.f_narrow(0, start, length);
            start += length;
            part
        };
        Ok(Staged {
            ids: part(self.tokens)?,
            positions: part(self.tokens)?,
            bounds: part(self.sequences + 1)?,
            lengths: part(self.sequences)?,
            places: part(self.sequences)?,
            longest: self.longest,
            short: self.short,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.to_kind(tch::Kind::Int64)).unwrap()
    }

    proptest! {
        #[test]
        fn what_arrives_is_what_was_packed(sequences in prop::collection::vec(prop::collection::vec(0u32..1000, 1..20), 1..20)) {
            let packed = Packed::new(&sequences, None);
            let staging = Staging::new(&packed, (1000, 20)).unwrap();
            let staged = staging.send(Device::Cpu).unwrap();
            prop_assert_eq!(numbers(&staged.ids), &packed.ids[..]);
            prop_assert_eq!(numbers(&staged.positions), &packed.positions[..]);
            prop_assert_eq!(numbers(&staged.bounds), &packed.cumulative[..]);
            prop_assert_eq!(numbers(&staged.places), &packed.places[..]);
            let lengths = numbers(&staged.lengths);
            prop_assert_eq!(lengths.iter().copied().max(), Some(staging.longest));
            for (sequence, place) in sequences.iter().zip(&packed.places) {
                prop_assert_eq!(lengths[*place as usize], sequence.len() as i64);
            }
        }
    }

    #[test]
    fn what_has_no_embedding_never_reaches_the_device() {
        let packed = Packed::new(&[vec![3, 9], vec![5]], None);
        assert!(Staging::new(&packed, (10, 2)).is_ok());
        let error = Staging::new(&packed, (9, 2)).expect_err("id 9").to_string();
        assert!(error.contains("token id") && error.contains('9'), "{error}");
        assert!(Staging::new(&packed, (10, 1)).expect_err("position 1").to_string().contains("position"));
    }
}
