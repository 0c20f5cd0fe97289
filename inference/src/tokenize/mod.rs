//! Text to token ids. A `tokenizer.json` fixes padding and truncation for the batches it was trained with; here padding
//! is switched off (batches are packed) and truncation is set to what the model folder says, and reported.
//!
//! It guarantees the ids of the `tokenizers` crate for every file and every text. The usual file of a BERT model is read
//! by `wordpiece`, which is several times as fast and proven against the crate by `tests`; any other file, and the rare
//! text that `wordpiece` leaves aside, goes through the crate.

mod characters;
#[cfg(test)]
mod tests;
mod trie;
mod wordpiece;

use std::sync::Arc;

use tokenizers::{PostProcessor, Tokenizer, TruncationParams};
use undertone_error::{Error, ErrorKind, Result};
use wordpiece::WordPiece;

/// The bytes of text that are looked at for each token that fits. A longer text is cut before it is normalised, and again
/// before it is tokenised: the time for a text stays bounded, and only a text that is made of longer words, links or
/// escapes than this could come out differently.
const BYTES_PER_TOKEN: usize = 1024;

/// A text as the encoder reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, special tokens included; never empty.
    pub ids: Vec<u32>,
    /// Whether the text had more tokens than fit.
    pub truncated: bool,
    /// Whether all of them are special tokens: the text has nothing that the encoder could read.
    pub empty: bool,
}

impl AsRef<[u32]> for Tokens {
    fn as_ref(&self) -> &[u32] {
        &self.ids
    }
}

/// The tokeniser of a model. Cloning is cheap; clones may be used from any thread.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Arc<Tokenizer>,
    /// The fast path, if the file is of the kind that has one.
    wordpiece: Option<Arc<WordPiece>>,
    max_tokens: usize,
}

impl TextTokenizer {
    /// Builds a tokeniser from the bytes of a `tokenizer.json`. `vocabulary` is the number of word embeddings.
    ///
    /// # Errors
    /// `InvalidConfig` if the file is damaged or does not belong to the encoder.
    pub fn new(json: &[u8], max_tokens: usize, vocabulary: usize) -> Result<Self> {
        let refuse = |message: &str| Error::new(ErrorKind::InvalidConfig, message).with("file", "tokenizer.json");
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| {
            refuse("tokeniser cannot be read").source(error).help("copy the file again from where the model comes from")
        })?;
        let ids = tokenizer.get_vocab_size(true);
        if ids > vocabulary {
            return Err(refuse("tokeniser has more tokens than the encoder has embeddings")
                .with("tokens", ids)
                .with("vocab_size", vocabulary)
                .help("take tokenizer.json and config.json from the same model"));
        }
        let framing = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if framing >= max_tokens {
            return Err(refuse("max_tokens leaves no room for text")
                .with("max_tokens", max_tokens)
                .with("special_tokens", framing));
        }
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(|error| refuse("tokeniser refuses truncation").source(error))?;
        let wordpiece = WordPiece::recognise(&tokenizer).map(Arc::new);
        Ok(Self { tokenizer: Arc::new(tokenizer), wordpiece, max_tokens })
    }

    /// The beginning of a text that is worth a look: 1,024 bytes for each token that fits, cut between two characters.
    pub fn readable<'a>(&self, text: &'a str) -> &'a str {
        prefix(text, self.max_tokens.saturating_mul(BYTES_PER_TOKEN))
    }

    /// Tokenises a text.
    ///
    /// # Errors
    /// `InvalidInput` if the tokeniser has no token for a part of the text, not even an unknown one.
    pub fn encode(&self, text: &str) -> Result<Tokens> {
        let readable = self.readable(text);
        let fast = self.wordpiece.as_ref().and_then(|wordpiece| wordpiece.encode(readable, self.max_tokens));
        let tokens = fast.map_or_else(|| self.encode_by_crate(readable), Ok)?;
        Ok(Tokens { truncated: tokens.truncated || readable.len() < text.len(), ..tokens })
    }

    /// What [`encode`](Self::encode) must return for any text: the crate's word.
    fn encode_by_crate(&self, text: &str) -> Result<Tokens> {
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, "text cannot be tokenised").source(error))?;
        let truncated = !encoding.get_overflowing().is_empty();
        let ids = encoding.get_ids().to_vec();
        let empty = encoding.get_special_tokens_mask().iter().all(|&special| special == 1);
        match ids.is_empty() {
            true => {
                Err(Error::new(ErrorKind::InvalidInput, "text has no tokens").help("send a text that is not empty"))
            }
            false => Ok(Tokens { ids, truncated, empty }),
        }
    }
}

/// The longest prefix of at most `limit` bytes that ends between two characters.
fn prefix(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}
