//! Packing: a batch as one long row of tokens instead of a padded rectangle.
//!
//! Sequences lie behind each other, sorted by length, with their cumulative lengths beside them. Linear layers,
//! layer norm and GELU work on rows of tokens and do not care where a text ends; only attention and pooling do. Attention
//! runs once for each group of sequences of equal length, on a view of the packed rows. Nothing is ever padded, so no
//! arithmetic is wasted and no mask can be forgotten.

/// A batch of token sequences, packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Token ids of all sequences, shortest sequence first.
    pub(crate) ids: Vec<i64>,
    /// Which position embedding each token takes.
    pub(crate) positions: Vec<i64>,
    /// Where the packed sequences start, and the total at the end: `sequences + 1` entries.
    pub(crate) cumulative: Vec<i64>,
    /// For each input sequence, its place in the packed order.
    pub(crate) places: Vec<i64>,
}

/// Sequences of equal length that lie next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The first row.
    pub(crate) start: i64,
    /// How many sequences.
    pub(crate) sequences: i64,
    /// How many tokens each has.
    pub(crate) length: i64,
}

impl Group {
    /// How many rows the group has.
    pub(crate) fn rows(&self) -> i64 {
        self.sequences * self.length
    }
}

impl Packed {
    /// Packs sequences. Empty sequences are not allowed and are packed as a single token 0: a tokeniser that frames
    /// texts with special tokens gives none.
    ///
    /// Positions count from 0 in each sequence. With a `padding`, as RoBERTa has one, they count from 1, and that token takes
    /// 0 without being counted: no batch is padded, but a text may spell `<pad>`.
    pub(crate) fn new<S: AsRef<[u32]>>(sequences: &[S], padding: Option<u32>) -> Self {
        let row = |sequence: &S| match sequence.as_ref() {
            [] => vec![0],
            ids => ids.iter().map(|&id| i64::from(id)).collect(),
        };
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&i| sequences[i].as_ref().len().max(1));
        let mut packed =
            Self { ids: Vec::new(), positions: Vec::new(), cumulative: vec![0], places: vec![0; order.len()] };
        for (place, &i) in order.iter().enumerate() {
            let ids: Vec<i64> = row(&sequences[i]);
            packed.positions.extend(positions(&ids, padding));
            packed.ids.extend(ids);
            packed.cumulative.push(packed.ids.len() as i64);
            packed.places[i] = place as i64;
        }
        packed
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.places.len()
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The groups of equal length, in packed order; together they cover all rows.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for bounds in self.cumulative.windows(2) {
            let (start, length) = (bounds[0], bounds[1] - bounds[0]);
            match groups.last_mut() {
                Some(group) if group.length == length => group.sequences += 1,
                _ => groups.push(Group { start, sequences: 1, length }),
            }
        }
        groups
    }
}

fn positions(ids: &[i64], padding: Option<u32>) -> Vec<i64> {
    let Some(padding) = padding else { return (0..ids.len() as i64).collect() };
    let mut counted = 0;
    let position = |&id: &i64| {
        let counts = i64::from(id != i64::from(padding));
        counted += counts;
        counted * counts
    };
    ids.iter().map(position).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequences_lie_sorted_behind_each_other() {
        let packed = Packed::new(&[vec![5, 6, 7], vec![1], vec![8, 9, 10]], None);
        assert_eq!(packed.ids, [1, 5, 6, 7, 8, 9, 10]);
        assert_eq!(packed.positions, [0, 0, 1, 2, 0, 1, 2]);
        assert_eq!(packed.cumulative, [0, 1, 4, 7]);
        assert_eq!(packed.places, [1, 0, 2]);
        assert_eq!(
            packed.groups(),
            [Group { start: 0, sequences: 1, length: 1 }, Group { start: 1, sequences: 2, length: 3 }]
        );
    }

    #[test]
    fn padding_takes_a_position_of_its_own_and_is_not_counted() {
        let packed = Packed::new(&[vec![0, 5, 1, 1, 6, 2], vec![0, 2], vec![1]], Some(1));
        assert_eq!(packed.ids, [1, 0, 2, 0, 5, 1, 1, 6, 2]);
        assert_eq!(packed.positions, [0, 1, 2, 1, 2, 0, 0, 3, 4]);
    }

    proptest! {
        #[test]
        fn every_token_is_packed_once_and_can_be_found_again(sequences in prop::collection::vec(prop::collection::vec(0u32..1000, 1..20), 0..20)) {
            let packed = Packed::new(&sequences, None);
            prop_assert_eq!(packed.tokens(), sequences.iter().map(Vec::len).sum::<usize>());
            for (sequence, &place) in sequences.iter().zip(&packed.places) {
                let (from, to) = (packed.cumulative[place as usize] as usize, packed.cumulative[place as usize + 1] as usize);
                let ids: Vec<i64> = sequence.iter().map(|&id| i64::from(id)).collect();
                prop_assert_eq!(&packed.ids[from..to], &ids[..]);
                prop_assert_eq!(&packed.positions[from..to], &(0..ids.len() as i64).collect::<Vec<_>>()[..]);
            }
            let groups = packed.groups();
            prop_assert_eq!(groups.iter().map(Group::rows).sum::<i64>(), packed.tokens() as i64);
            prop_assert!(groups.windows(2).all(|pair| pair[0].length < pair[1].length && pair[0].start + pair[0].rows() == pair[1].start));
        }
    }
}
