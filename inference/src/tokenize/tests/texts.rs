//! Texts that a tokeniser may trip over: a strategy for properties, which can shrink, and a seeded stream for numbers.

use std::ops::RangeInclusive;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Characters by what they do to a tokeniser. Ends are inside.
const RANGES: [(char, char); 46] = [
    (' ', '~'),
    ('a', 'z'),
    ('a', 'z'),
    ('A', 'Z'),
    ('0', '9'),
    // Control, Latin with accents, letters that decompose or lowercase to several.
    ('\0', '\x1f'),
    ('\x7f', '\u{a0}'),
    ('\u{a1}', '\u{ff}'),
    ('\u{100}', '\u{24f}'),
    ('\u{1e00}', '\u{1eff}'),
    ('\u{2b0}', '\u{2ff}'),
    // Combining marks, some of which move, and some that are not stripped.
    ('\u{300}', '\u{36f}'),
    ('\u{1ab0}', '\u{1aff}'),
    ('\u{1dc0}', '\u{1dff}'),
    ('\u{20d0}', '\u{20ff}'),
    ('\u{1b00}', '\u{1b7c}'),
    ('\u{302a}', '\u{302f}'),
    ('\u{1d15e}', '\u{1d172}'),
    ('\u{fe00}', '\u{fe0f}'),
    // Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai, Georgian, Ethiopic.
    ('\u{370}', '\u{3ff}'),
    ('\u{1f00}', '\u{1fff}'),
    ('\u{400}', '\u{4ff}'),
    ('\u{591}', '\u{5f4}'),
    ('\u{600}', '\u{6ff}'),
    ('\u{900}', '\u{97f}'),
    ('\u{e01}', '\u{e5b}'),
    ('\u{10a0}', '\u{10ff}'),
    ('\u{1200}', '\u{137f}'),
    // Chinese, with what is set apart, Japanese, Korean.
    ('\u{4e00}', '\u{9fff}'),
    ('\u{3400}', '\u{4dbf}'),
    ('\u{f900}', '\u{faff}'),
    ('\u{20000}', '\u{2ceff}'),
    ('\u{2f800}', '\u{2fa1f}'),
    ('\u{3000}', '\u{30ff}'),
    ('\u{ac00}', '\u{d7a3}'),
    ('\u{1100}', '\u{11ff}'),
    ('\u{ff00}', '\u{ffef}'),
    // Spaces and format characters, punctuation, symbols, emoji and what joins them.
    ('\u{2000}', '\u{200f}'),
    ('\u{2010}', '\u{206f}'),
    ('\u{2190}', '\u{27bf}'),
    ('\u{1f300}', '\u{1faff}'),
    ('\u{1f3fb}', '\u{1f3ff}'),
    ('\u{e0000}', '\u{e01ef}'),
    // Private use, replacement characters, anything.
    ('\u{e000}', '\u{f8ff}'),
    ('\u{fff0}', '\u{ffff}'),
    ('\0', char::MAX),
];

/// Strings that mean something to a tokeniser, or nearly.
const STRINGS: [&str; 28] = [
    "[SEP]",
    "[MASK]",
    "[CLS]",
    "[PAD]",
    "[UNK]",
    "[sep]",
    "[SEP",
    "SEP]",
    "[ SEP ]",
    "##",
    "##ing",
    "#",
    "[",
    " ",
    "  ",
    "\r\n",
    "\t",
    "don't",
    "https://example.org/p/77?x=1",
    "@handle_1",
    "#SundayRun",
    "👩‍👩‍👧‍👦",
    "❤️",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "İstanbul",
    "e\u{301}\u{327}",
    "ﬁﬂ",
    "ΣΑΣ",
];

fn ranges() -> impl Iterator<Item = RangeInclusive<char>> {
    RANGES.into_iter().map(|(first, last)| first..=last)
}

/// A text of words of all kinds, shorter and longer than a tokeniser takes.
pub(super) fn mixed() -> impl Strategy<Value = String> {
    let words = select(ranges().collect::<Vec<_>>()).prop_flat_map(|range| {
        let c = proptest::char::range(*range.start(), *range.end());
        prop_oneof![9 => vec(c.clone(), 0..6), 1 => vec(c, 90..120)]
    });
    let word = prop_oneof![
        3 => words.prop_map(String::from_iter),
        1 => select(&STRINGS[..]).prop_map(str::to_owned),
    ];
    vec((word, select(&["", "", " "][..])), 0..16)
        .prop_map(|words| words.into_iter().flat_map(|(word, gap)| [word, gap.to_owned()]).collect())
}

/// A stream of texts that a seed determines: from the vocabulary, like posts, and of anything.
pub(super) struct Texts {
    state: u64,
    pieces: Vec<String>,
}

impl Texts {
    pub(super) fn new(seed: u64, pieces: Vec<String>) -> Self {
        Self { state: seed, pieces }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014), below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn piece(&mut self) -> String {
        let piece = self.below(self.pieces.len());
        let piece = self.pieces[piece].trim_start_matches('#').to_owned();
        match self.below(8) {
            0 => piece.to_uppercase(),
            1 => piece.chars().take(1).flat_map(char::to_uppercase).chain(piece.chars().skip(1)).collect(),
            _ => piece,
        }
    }

    fn characters(&mut self, most: usize) -> String {
        let (first, last) = self.one_of(&RANGES);
        let (first, last) = (u32::from(first), u32::from(last));
        let count = self.below(most + 1);
        let mut c = || char::from_u32(first + self.below((last - first + 1) as usize) as u32).unwrap_or('\u{fffd}');
        (0..count).map(|_| c()).collect()
    }

    fn word(&mut self, kind: usize) -> String {
        match (kind, self.below(20)) {
            (_, 0) => self.one_of(&STRINGS).to_owned(),
            (_, 1) => self.characters(3),
            (0, 2) => (0..self.below(60)).map(|_| self.piece()).collect(),
            (0, _) => (0..=self.below(4)).map(|_| self.piece()).collect(),
            (1, 2) => format!("#{}", self.piece()),
            (1, 3) => format!("@{}_{}", self.piece(), self.below(100)),
            (1, 4) => {
                format!("{}{}", self.piece(), self.one_of(&["!!!", "?", "...", ",", "…", " — ", ":)", "😍", "❤️‍🔥"]))
            }
            (1, _) => self.piece(),
            (_, 2) => self.characters(120),
            (_, _) => self.characters(8),
        }
    }
}

impl Iterator for Texts {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let kind = self.below(3);
        let count = self.below(24);
        let mut text = String::new();
        for _ in 0..count {
            text.push_str(&self.word(kind));
            text.push_str(self.one_of(&[" ", " ", " ", "", "  ", "\n"]));
        }
        Some(text)
    }
}
