//! Bytes that are almost right: a good example with a few things wrong, the same for the same seed.

/// Chance that repeats itself (SplitMix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn range(&mut self, length: usize, longest: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        from..from + self.below((length - from).min(longest) + 1)
    }
}

/// Longer inputs are cut: limits have tests of their own.
const LONGEST: usize = 1 << 16;

/// Numbers at which something may overflow, in the widths that formats use.
const EDGES: [&[u8]; 8] = [
    &[0xff; 4],
    &[0xff; 8],
    &[0, 0, 0, 0x80],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0, 0, 0, 0, 0, 0, 0, 0x80],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0, 0, 0, 0],
    "\u{0}\u{feff}\u{1f469}\u{200d}".as_bytes(),
];

/// One of the examples with some mistakes in it.
pub(crate) fn mutate(chance: &mut Chance, examples: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut bytes = examples.get(chance.below(examples.len())).cloned().unwrap_or_default();
    for _ in 0..1 + chance.below(5) {
        mistake(chance, &mut bytes, examples, words);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn mistake(chance: &mut Chance, bytes: &mut Vec<u8>, examples: &[Vec<u8>], words: &[&str]) {
    let at = chance.below(bytes.len());
    match chance.below(11) {
        0 | 1 => {
            let bit = chance.below(8);
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
        }
        2 => {
            let byte = chance.below(256) as u8;
            bytes.iter_mut().skip(at).take(1).for_each(|old| *old = byte);
        }
        3 => {
            let step = [1, 0xff, 0x10, 0x80][chance.below(4)];
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = byte.wrapping_add(step));
        }
        4 => {
            let edge = EDGES[chance.below(EDGES.len())];
            let end = (at + edge.len() * chance.below(2)).min(bytes.len());
            bytes.splice(at..end, edge.iter().copied());
        }
        5 if !words.is_empty() => {
            let word = words[chance.below(words.len())].bytes();
            let end = (at + word.len() * chance.below(2)).min(bytes.len());
            bytes.splice(at..end, word);
        }
        6 => {
            let range = chance.range(bytes.len(), 64);
            bytes.drain(range);
        }
        7 => bytes.truncate(at),
        8 => {
            let range = chance.range(bytes.len(), 128);
            let again = bytes[range.clone()].repeat(1 + chance.below(if range.len() < 8 { 400 } else { 6 }));
            bytes.splice(range.end..range.end, again);
        }
        9 => {
            let other = &examples[chance.below(examples.len())];
            let range = chance.range(other.len(), 256);
            bytes.splice(at..at, other[range].iter().copied());
        }
        _ => {
            let range = chance.range(bytes.len(), 64);
            let moved: Vec<u8> = bytes.drain(range).collect();
            let at = chance.below(bytes.len() + 1);
            bytes.splice(at..at, moved);
        }
    }
}
