//! What BERT's normaliser and pre-tokeniser make of a character, looked up in a table.
//!
//! It guarantees what the `tokenizers` crate does: clean, set Chinese characters apart, decompose (NFD), drop accents,
//! lowercase, split at white space, split off punctuation. All but one of these read a character by itself; NFD may also
//! change the order of neighbours. Only characters of a combining class other than 0 move, and nearly all of those are
//! accents, which are dropped wherever they stand; the rest are [`Reading::Unordered`], and a text that has one is the
//! crate's.

use tokenizers::normalizers::BertNormalizer;
// The crate's own tables, of Unicode 8 and 9, decide what is an accent or punctuation. Cargo has one version of each in
// the whole program, since both packages ask for 0.1; newer tables would give other tokens.
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::char::{canonical_combining_class, decompose_canonical};

/// Above are rare ideographs and tags, which are read without a table.
const TABLE: u32 = 0x2_0000;

/// In [`Characters::ascii`]: white space, which ends a word.
pub(super) const SPACE: u8 = 0x80;
/// In [`Characters::ascii`]: punctuation, a word of its own.
pub(super) const ALONE: u8 = 0x81;
/// In [`Characters::ascii`]: [`Characters::read`] knows.
pub(super) const OTHER: u8 = 0x82;

/// What is left of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// This character, as a part of a word.
    Word(char),
    /// This character, as a word of its own.
    Alone(char),
    /// The end of a word.
    Space,
    /// Nothing: the word goes on.
    Nothing,
    /// Other characters, each to be read by itself: [`Characters::expand`] says which.
    Several,
    /// What it is depends on its neighbours.
    Unordered,
}

/// The readings of all characters under one normaliser.
pub(super) struct Characters {
    normalizer: BertNormalizer,
    table: Vec<Reading>,
    /// By byte: a byte below 0x80 is a part of a word, and this is how it is written there; others are [`SPACE`],
    /// [`ALONE`] or [`OTHER`]. Bytes of longer characters are [`OTHER`].
    ascii: [u8; 256],
}

impl Characters {
    pub(super) fn new(normalizer: BertNormalizer) -> Self {
        let mut characters = Self { normalizer, table: Vec::new(), ascii: [OTHER; 256] };
        // Surrogates have slots that nothing asks for.
        let reading = |code| char::from_u32(code).map_or(Reading::Nothing, |c| characters.classify(c));
        characters.table = (0..TABLE).map(reading).collect();
        for (c, code) in ('\0'..='\x7f').zip(&mut characters.ascii) {
            *code = match characters.table[c as usize] {
                Reading::Word(c) if c.is_ascii() => c as u8,
                Reading::Alone(same) if same == c => ALONE,
                Reading::Space => SPACE,
                _ => OTHER,
            };
        }
        characters
    }

    pub(super) fn ascii(&self) -> &[u8; 256] {
        &self.ascii
    }

    pub(super) fn read(&self, c: char) -> Reading {
        self.table.get(c as usize).copied().unwrap_or_else(|| self.classify(c))
    }

    fn strips_accents(&self) -> bool {
        self.normalizer.strip_accents.unwrap_or(self.normalizer.lowercase)
    }

    fn classify(&self, c: char) -> Reading {
        let removed = self.normalizer.clean_text && is_removed(c);
        if self.strips_accents() && !removed && has_a_class(c) {
            return Reading::Unordered;
        }
        let mut left = Vec::new();
        self.expand(c, |c| left.push(c));
        match left[..] {
            [] => Reading::Nothing,
            [c] => read_normalized(c),
            [' ', c, ' '] if !c.is_whitespace() => Reading::Alone(c),
            _ => Reading::Several,
        }
    }

    /// Calls `emit` with each character that the normaliser makes of this one, in order. [`read_normalized`] reads them.
    /// White space stays as it is, where `clean_text` would write a space: it ends a word either way.
    pub(super) fn expand(&self, c: char, mut emit: impl FnMut(char)) {
        let BertNormalizer { clean_text, handle_chinese_chars, lowercase, .. } = self.normalizer;
        if clean_text && is_removed(c) {
            return;
        }
        let apart = handle_chinese_chars && is_chinese(c);
        if apart {
            emit(' ');
        }
        let mut lower = |c: char| if lowercase { c.to_lowercase().for_each(&mut emit) } else { emit(c) };
        if self.strips_accents() {
            decompose_canonical(c, |part| {
                if !part.is_mark_nonspacing() {
                    lower(part)
                }
            });
        } else {
            lower(c);
        }
        if apart {
            emit(' ');
        }
    }
}

/// What the pre-tokeniser makes of a character that the normaliser has left.
pub(super) fn read_normalized(c: char) -> Reading {
    match c {
        _ if c.is_whitespace() => Reading::Space,
        _ if c.is_ascii_punctuation() || c.is_punctuation() => Reading::Alone(c),
        _ => Reading::Word(c),
    }
}

/// Whether something is left of it, without its accents, that NFD may move.
fn has_a_class(c: char) -> bool {
    let mut moves = false;
    decompose_canonical(c, |part| moves |= !part.is_mark_nonspacing() && canonical_combining_class(part) != 0);
    moves
}

/// What `clean_text` removes; `is_other` is Cc, Cf or Co.
fn is_removed(c: char) -> bool {
    c == '\u{fffd}' || (c.is_other() && !matches!(c, '\t' | '\n' | '\r'))
}

/// The blocks that `handle_chinese_chars` sets apart, with the crate's bounds (extension E begins late, by the crate).
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x2_0000..=0x2_a6df | 0x2_a700..=0x2_b73f | 0x2_b740..=0x2_b81f
        | 0x2_b920..=0x2_ceaf | 0xf900..=0xfaff | 0x2_f800..=0x2_fa1f)
}
