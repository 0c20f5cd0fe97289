//! BERT's WordPiece without the bookkeeping of a general tokeniser: no offsets, no copies of strings, no map of strings.
//!
//! It guarantees the ids of the `tokenizers` crate, or `None`. [`WordPiece::recognise`] takes a tokeniser only if each of
//! its parts is one that is known here, and [`WordPiece::encode`] leaves a text to the crate if an added token is written
//! in it (the crate looks for those before it normalises) or if NFD could change the order of its characters. The tests
//! compare it with the crate over every Unicode character and a million texts.

use std::fmt;

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{Model, Tokenizer};

use super::Tokens;
use super::characters::{ALONE, Characters, Reading, SPACE, read_normalized};
use super::trie::{ROOT, Trie};

/// Bytes of text for each id that is made room for; English has about 5.
const BYTES_PER_ID: usize = 3;

/// The whole vocabulary and what surrounds it.
pub(super) struct WordPiece {
    characters: Characters,
    pieces: Trie,
    /// The node that pieces inside a word start from; `None` if there are no such pieces.
    inside: Option<u32>,
    unknown: u32,
    max_word: usize,
    added: Added,
    /// The ids before and after a text.
    frame: [u32; 2],
}

/// Without its tables, which fill megabytes.
impl fmt::Debug for WordPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WordPiece").field("frame", &self.frame).field("unknown", &self.unknown).finish_non_exhaustive()
    }
}

impl WordPiece {
    /// Reads what the crate has read. `None` if it is not exactly BERT's kind of tokeniser: then it is the crate's.
    pub(super) fn recognise(tokenizer: &Tokenizer) -> Option<Self> {
        let Some(NormalizerWrapper::BertNormalizer(normalizer)) = tokenizer.get_normalizer() else { return None };
        let Some(PreTokenizerWrapper::BertPreTokenizer(_)) = tokenizer.get_pre_tokenizer() else { return None };
        let ModelWrapper::WordPiece(model) = tokenizer.get_model() else { return None };
        let frame = frame(tokenizer.get_post_processor()?)?;
        let vocabulary = model.get_vocab();
        let strings = vocabulary.iter().filter(|(string, _)| !string.is_empty());
        let pieces = Trie::new(strings.map(|(string, &id)| (string.as_bytes(), id)))?;
        Some(Self {
            characters: Characters::new(*normalizer),
            inside: pieces.node(model.continuing_subword_prefix.as_bytes()),
            pieces,
            // Without it the crate refuses a text with an unknown word, and is left to.
            unknown: *vocabulary.get(&model.unk_token)?,
            max_word: model.max_input_chars_per_word,
            added: Added::new(tokenizer)?,
            frame,
        })
    }

    /// Tokenises a text into at most this many tokens. `None` if the crate has to.
    pub(super) fn encode(&self, text: &str, max_tokens: usize) -> Option<Tokens> {
        if self.added.is_in(text) {
            return None;
        }
        let [before, after] = self.frame;
        // The first id, those that fit, and one more, which tells that there were more. The last id goes over it.
        let enough = max_tokens.max(self.frame.len());
        let mut ids = Vec::with_capacity(enough.min(text.len() / BYTES_PER_ID + self.frame.len()));
        ids.push(before);
        self.scan(text, enough, &mut ids)?;
        let truncated = ids.len() >= enough;
        ids.truncate(enough - 1);
        let empty = ids.len() == 1;
        ids.push(after);
        Some(Tokens { ids, truncated, empty })
    }

    /// Appends ids until there are `enough` or the text ends. `None` if the crate has to read the text.
    fn scan(&self, text: &str, enough: usize, ids: &mut Vec<u32>) -> Option<()> {
        let (bytes, ascii) = (text.as_bytes(), self.characters.ascii());
        let fold = |byte: u8| ascii[usize::from(byte)];
        // A word, or the beginning of one, that is not looked up where it stands since it is written otherwise there.
        let mut word = Word::default();
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let run = rest.iter().position(|&byte| fold(byte) >= 0x80).unwrap_or(rest.len());
            let (run, next) = (&rest[..run], rest.get(run).copied());
            at += run.len();
            let sign = next.map_or(SPACE, fold);
            if sign == SPACE || sign == ALONE {
                if word.characters == 0 {
                    self.split(run, run.len(), fold, ids);
                } else {
                    word.extend(run, fold);
                    self.end(&mut word, ids);
                }
                let Some(next) = next else { break };
                if sign == ALONE {
                    self.split(&[next], 1, |byte| byte, ids);
                }
                if ids.len() >= enough {
                    break;
                }
                at += 1;
            } else {
                word.extend(run, fold);
                let Some(c) = text[at..].chars().next() else { break };
                at += c.len_utf8();
                match self.characters.read(c) {
                    Reading::Unordered => return None,
                    Reading::Several => self.characters.expand(c, |c| self.take(read_normalized(c), &mut word, ids)),
                    reading => self.take(reading, &mut word, ids),
                }
                if ids.len() >= enough {
                    break;
                }
            }
        }
        Some(())
    }

    /// Goes on with a word.
    fn take(&self, reading: Reading, word: &mut Word, ids: &mut Vec<u32>) {
        match reading {
            Reading::Word(c) => word.push(c),
            Reading::Alone(c) => {
                self.end(word, ids);
                word.push(c);
                self.end(word, ids);
            }
            Reading::Space => self.end(word, ids),
            Reading::Nothing | Reading::Several | Reading::Unordered => (),
        }
    }

    fn end(&self, word: &mut Word, ids: &mut Vec<u32>) {
        self.split(&word.bytes, word.characters, |byte| byte, ids);
        word.bytes.clear();
        word.characters = 0;
    }

    /// Appends the pieces of a word: the longest that it begins with, then the longest that the rest begins with. A word
    /// that is too long, or has a part that is no piece, is one unknown piece. Nothing for no word.
    ///
    /// `word` is UTF-8 and so is the vocabulary, hence a piece ends between two characters.
    #[inline]
    fn split(&self, word: &[u8], characters: usize, fold: impl Fn(u8) -> u8, ids: &mut Vec<u32>) {
        if word.is_empty() {
            return;
        }
        if characters > self.max_word {
            return ids.push(self.unknown);
        }
        let (begin, mut rest, mut from) = (ids.len(), word, Some(ROOT));
        while !rest.is_empty() {
            let Some((length, id)) = from.and_then(|node| self.pieces.longest(node, rest, &fold)) else {
                ids.truncate(begin);
                return ids.push(self.unknown);
            };
            ids.push(id);
            rest = &rest[length..];
            from = self.inside;
        }
    }
}

/// A normalised word that grows.
#[derive(Default)]
struct Word {
    bytes: Vec<u8>,
    characters: usize,
}

impl Word {
    fn push(&mut self, c: char) {
        self.bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        self.characters += 1;
    }

    fn extend(&mut self, ascii: &[u8], fold: impl Fn(u8) -> u8) {
        self.bytes.extend(ascii.iter().map(|&byte| fold(byte)));
        self.characters += ascii.len();
    }
}

/// The tokens, such as `[SEP]`, that are looked for in a text as it came.
struct Added {
    contents: Vec<String>,
    /// By byte: whether one of them begins with it.
    begins: [bool; 256],
}

impl Added {
    /// `None` if one of them is looked for in the normalised text, which is never written out here.
    fn new(tokenizer: &Tokenizer) -> Option<Self> {
        let tokens = tokenizer.get_added_tokens_decoder();
        if tokens.values().any(|token| token.normalized) {
            return None;
        }
        let contents: Vec<_> = tokens.into_values().map(|token| token.content).collect();
        let mut begins = [false; 256];
        for byte in contents.iter().filter_map(|content| content.bytes().next()) {
            begins[usize::from(byte)] = true;
        }
        Some(Self { contents, begins })
    }

    fn is_in(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        bytes.iter().enumerate().any(|(i, &byte)| {
            self.begins[usize::from(byte)]
                && self.contents.iter().any(|content| bytes[i..].starts_with(content.as_bytes()))
        })
    }
}

/// The ids before and after a text, if there is one on either side.
fn frame(processor: &PostProcessorWrapper) -> Option<[u32; 2]> {
    let template = match processor {
        PostProcessorWrapper::Bert(bert) => return Some([bert.get_cls_copy().1, bert.get_sep_copy().1]),
        // Its fields are private, but for what it writes to a file.
        PostProcessorWrapper::Template(template) => serde_json::to_value(template).ok()?,
        _ => return None,
    };
    let id = |piece: &Value| {
        let name = piece["SpecialToken"]["id"].as_str()?;
        match template["special_tokens"].get(name)?["ids"].as_array()?.as_slice() {
            [id] => u32::try_from(id.as_u64()?).ok(),
            _ => None,
        }
    };
    match template["single"].as_array()?.as_slice() {
        [before, text, after] if text["Sequence"]["id"] == "A" => Some([id(before)?, id(after)?]),
        _ => None,
    }
}
