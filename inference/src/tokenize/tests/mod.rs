//! The fast path against the crate: ids, `truncated` and `empty`, over every character and over texts of all kinds.
//!
//! `make test` compares 20,000 texts. A million, and every character under every normaliser, take some minutes:
//! `. scripts/env.sh && cargo test --release --locked -p undertone-inference --lib tokenize -- --ignored --nocapture`

mod texts;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{NormalizedString, Normalizer};

use super::*;
use texts::Texts;

/// Lengths that a text is truncated to.
const LENGTHS: std::ops::RangeInclusive<usize> = 3..=64;

/// What a cased, an uncased and some odd model do, the shipped one's first.
const NORMALIZERS: [(bool, bool, Option<bool>, bool); 5] = [
    (true, true, None, true),
    (true, true, None, false),
    (true, false, Some(false), true),
    (false, true, Some(true), false),
    (false, false, None, true),
];

fn file() -> Value {
    let shipped = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/sentiment");
    let path = std::env::var_os("UNDERTONE_TEST_MODEL").map_or_else(shipped, PathBuf::from).join("tokenizer.json");
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `scripts/setup.py run` fetches it", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

fn normalizer((clean_text, handle_chinese_chars, strip_accents, lowercase): (bool, bool, Option<bool>, bool)) -> Value {
    json!({
        "type": "BertNormalizer", "clean_text": clean_text, "handle_chinese_chars": handle_chinese_chars,
        "strip_accents": strip_accents, "lowercase": lowercase
    })
}

fn tokenizer(file: &Value, max_tokens: usize) -> TextTokenizer {
    TextTokenizer::new(file.to_string().as_bytes(), max_tokens, usize::MAX).unwrap()
}

thread_local! {
    /// One for each normaliser; whoever uses one sets its length.
    static TOKENIZERS: RefCell<Vec<TextTokenizer>> = RefCell::new({
        let mut file = file();
        let tokenizer = |options| {
            file["normalizer"] = normalizer(options);
            tokenizer(&file, 512)
        };
        NORMALIZERS.map(tokenizer).to_vec()
    });
}

/// Runs a test with the tokeniser of a normaliser, cut to a length.
fn with<T>(options: usize, length: usize, test: impl FnOnce(&TextTokenizer) -> T) -> T {
    TOKENIZERS.with_borrow_mut(|tokenizers| {
        let tokenizer = &mut tokenizers[options];
        tokenizer.max_tokens = length;
        let by_crate = Arc::get_mut(&mut tokenizer.tokenizer).expect("nobody else has it");
        by_crate.get_truncation_mut().expect("it truncates").max_length = length;
        test(tokenizer)
    })
}

/// Compares the two paths, and tells whether the fast one took the text.
#[track_caller]
fn compare(tokenizer: &TextTokenizer, text: &str) -> bool {
    let text = tokenizer.readable(text);
    let expected = tokenizer.encode_by_crate(text).unwrap();
    let fast = tokenizer.wordpiece.as_ref().expect("the file has a fast path").encode(text, tokenizer.max_tokens);
    if let Some(fast) = &fast {
        assert_eq!(*fast, expected, "{text:?}, at most {} tokens", tokenizer.max_tokens);
    }
    assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
    fast.is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn mixed_texts_have_the_ids_of_the_crate(
        text in texts::mixed(),
        length in LENGTHS,
        options in 0..NORMALIZERS.len(),
    ) {
        with(options, length, |tokenizer| compare(tokenizer, &text));
        with(options, 512, |tokenizer| compare(tokenizer, &text));
    }
}

#[test]
fn a_text_is_truncated_and_empty_where_the_crate_says_so() {
    let word = |count: usize| vec!["time"; count].join(" ");
    // Of several pieces, so that the end falls into a word; of none that are known; of too many letters.
    let long =
        (0..20).map(|i| format!("untokenizable{i} \u{1f9ff}\u{1f9ff} {}", "x".repeat(99 + i % 3))).collect::<Vec<_>>();
    for (length, options) in LENGTHS.flat_map(|length| (0..NORMALIZERS.len()).map(move |options| (length, options))) {
        let fits = length - 2;
        with(options, length, |tokenizer| {
            for count in [fits.saturating_sub(1), fits, fits + 1, fits + 2, fits + 3, 2 * fits + 1] {
                assert!(compare(tokenizer, &word(count)));
                assert_eq!(tokenizer.encode(&word(count)).unwrap().truncated, count > fits);
            }
            for skip in 0..5 {
                compare(tokenizer, &long[skip..].join(" "));
            }
        });
    }
    for text in ["", " ", "\n\t ", "\u{0}", "\u{200d}\u{fe0f}", "\u{301}", "\u{fffd} \u{ad}", "\u{a0}\u{3000}"] {
        assert!((0..NORMALIZERS.len()).all(|options| with(options, 16, |tokenizer| compare(tokenizer, text))));
        assert!(with(0, 16, |tokenizer| tokenizer.encode(text).unwrap().empty), "{text:?}");
    }
}

#[test]
fn prefixes_end_between_characters() {
    assert_eq!(prefix("aé", 2), "a");
    assert_eq!(prefix("aé", 3), "aé");
    assert_eq!(prefix("", 3), "");
}

#[test]
fn a_damaged_tokeniser_is_named() {
    let error = TextTokenizer::new(b"{", 16, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

/// Blanks fill all that is read of a text; the word after them counts as cut off.
#[test]
fn what_is_not_read_is_truncated() {
    let tokenizer = tokenizer(&file(), 3);
    let text = " ".repeat(3 * BYTES_PER_TOKEN);
    assert!(!tokenizer.encode(&text).unwrap().truncated);
    let tokens = tokenizer.encode(&(text + "a")).unwrap();
    assert!(tokens.truncated && tokens.empty);
}

/// `texts` from a seed, each under some normaliser and length. Returns how many the fast path took.
fn compare_texts(seed: u64, texts: usize) -> usize {
    let pieces = file()["model"]["vocab"].as_object().unwrap().keys().cloned().collect();
    let mut stream = Texts::new(seed, pieces);
    (0..texts)
        .filter(|_| {
            let text = stream.next().unwrap();
            let length = match stream.below(3) {
                0 => 512,
                _ => LENGTHS.start() + stream.below(LENGTHS.count()),
            };
            with(stream.below(NORMALIZERS.len()), length, |tokenizer| compare(tokenizer, &text))
        })
        .count()
}

#[test]
fn texts_from_a_seed_have_the_ids_of_the_crate() {
    let taken = compare_texts(1, 20_000);
    assert!(taken > 12_000, "the fast path took {taken} of 20,000 texts");
}

#[test]
#[ignore = "takes minutes; the module says how"]
#[allow(clippy::print_stdout, reason = "whoever asks for a million texts wants the count")]
fn a_million_texts_have_the_ids_of_the_crate() {
    let seed = std::env::var("UNDERTONE_TEST_SEED").map_or(7, |seed| seed.parse().unwrap());
    let threads: Vec<_> = (0..4).map(|i| std::thread::spawn(move || compare_texts(seed * 4 + i, 250_000))).collect();
    let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    println!("the fast path took {taken} of 1,000,000 texts");
    assert!(taken > 600_000, "the fast path took {taken} of 1,000,000 texts");
}

/// A tokeniser to which no two characters look alike: each that its normaliser leaves of these is a piece.
fn speller(characters: impl Iterator<Item = char> + Clone, options: (bool, bool, Option<bool>, bool)) -> TextTokenizer {
    let (clean, chinese, accents, lowercase) = options;
    let normalizes = BertNormalizer::new(clean, chinese, accents, lowercase);
    let mut left = BTreeSet::from(['a', 'b']);
    for c in characters {
        let mut text = NormalizedString::from(c.to_string());
        normalizes.normalize(&mut text).unwrap();
        left.extend(text.get().chars());
    }
    let pieces = left.iter().flat_map(|c| [c.to_string(), format!("##{c}")]);
    let special = ["[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).into_iter();
    let vocabulary: serde_json::Map<_, _> =
        special.chain(pieces).enumerate().map(|(id, piece)| (piece, json!(id))).collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "decoder": null,
        "normalizer": normalizer(options), "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary}
    });
    tokenizer(&file, 64)
}

/// Compares these characters: alone, between letters, doubled, and with a mark on either side. Returns which are the
/// crate's.
fn compare_characters(range: std::ops::RangeInclusive<char>, options: (bool, bool, Option<bool>, bool)) -> Vec<char> {
    let tokenizer = speller(range.clone(), options);
    range
        .filter(|c| {
            let text = format!("{c} a{c}b A{c}B {c}{c} \u{327}{c}\u{301}a");
            !compare(&tokenizer, &text)
        })
        .collect()
}

#[test]
fn every_character_has_the_ids_of_the_crate() {
    // The characters that a table reads, and a part of those that none does.
    let unordered = compare_characters('\0'..='\u{2_0fff}', NORMALIZERS[0]);
    let unstripped = compare_characters('\0'..='\u{1_ffff}', NORMALIZERS[4]);
    assert!(unordered.len() < 100 && unstripped.len() < 100, "left to the crate: {unordered:?} {unstripped:?}");
    assert!(unordered.contains(&'\u{302e}'), "a mark that has a class and is not stripped");
    assert!(
        compare_characters('\0'..='\u{2fff}', NORMALIZERS[2]).is_empty(),
        "nothing moves where nothing is stripped"
    );
    compare_characters('\u{e_0000}'..='\u{e_01ff}', NORMALIZERS[0]);
}

#[test]
#[ignore = "takes minutes; the module says how"]
fn every_character_under_every_normalizer_has_the_ids_of_the_crate() {
    for options in NORMALIZERS {
        for plane in 0..=0x10_u32 {
            let [first, last] = [plane << 16, plane << 16 | 0xffff].map(|code| char::from_u32(code).unwrap());
            compare_characters(first..=last, options);
        }
    }
}

#[test]
fn added_tokens_are_found_as_the_crate_finds_them() {
    let mut file = file();
    let token = |id: u32, content: &str, flags: [bool; 3]| {
        let [single_word, lstrip, rstrip] = flags;
        json!({"id": id, "content": content, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip,
               "normalized": false, "special": false})
    };
    let tokens = [
        token(103, "[MASK]", [false, true, false]),
        token(30522, "Über", [true, false, false]),
        token(30523, "lol", [false, false, true]),
    ];
    file["added_tokens"] = json!(tokens);
    let tokenizer = tokenizer(&file, 32);
    for (text, by_crate) in [
        ("an [MASK] b", true),
        ("Über uns", true),
        ("Übermut", true),
        ("über", false),
        ("lollipop  a", true),
        ("LOL", false),
        ("lo l", false),
        ("[mask] [MASK", false),
        ("", false),
    ] {
        assert_eq!(compare(&tokenizer, text), !by_crate, "{text:?}");
    }
}

#[test]
fn other_kinds_of_files_are_left_to_the_crate() {
    let fast = |change: &dyn Fn(&mut Value)| {
        let mut file = file();
        change(&mut file);
        let tokenizer = tokenizer(&file, 16);
        assert_eq!(tokenizer.encode("Hello you").unwrap(), tokenizer.encode_by_crate("Hello you").unwrap());
        tokenizer.wordpiece.is_some()
    };
    assert!(fast(&|_| ()));
    assert!(fast(
        &|file| file["post_processor"] = json!({"type": "BertProcessing", "sep": ["[SEP]", 5], "cls": ["[CLS]", 6]})
    ));
    assert!(!fast(&|file| file["normalizer"] = json!({"type": "Lowercase"})));
    assert!(!fast(&|file| file["normalizer"] = json!(null)));
    assert!(!fast(&|file| file["pre_tokenizer"] = json!({"type": "Whitespace"})));
    assert!(!fast(&|file| file["post_processor"] = json!(null)));
    assert!(!fast(&|file| file["post_processor"]["single"] = json!([{"Sequence": {"id": "A", "type_id": 0}}])));
    assert!(!fast(&|file| file["post_processor"]["special_tokens"]["[SEP]"] =
        json!({"id": "[SEP]", "ids": [102, 102], "tokens": ["[SEP]", "[SEP]"]})));
    assert!(!fast(&|file| file["added_tokens"][0]["normalized"] = json!(true)));
    assert!(!fast(&|file| file["model"]["unk_token"] = json!("[NONE]")));
    assert!(!fast(&|file| {
        let vocabulary = file["model"]["vocab"].clone();
        file["model"] = json!({"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocabulary});
    }));
}

#[test]
fn pieces_inside_a_word_may_be_written_otherwise() {
    for (prefix, vocabulary) in [
        ("", json!({"[UNK]": 0, "a": 1, "ab": 2, "b": 3, "": 4})),
        ("a", json!({"[UNK]": 0, "a": 1, "ab": 2, "aab": 3, "b": 4, "aé": 5})),
        ("@@", json!({"[UNK]": 0, "a": 1, "b": 2})),
    ] {
        let mut file = file();
        file["model"] = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": prefix,
                               "max_input_chars_per_word": 4, "vocab": vocabulary});
        file["normalizer"] = normalizer(NORMALIZERS[2]);
        file["added_tokens"] = json!([]);
        let tokenizer = tokenizer(&file, 32);
        for text in ["a", "ab", "aab", "abab", "ababa", "ba", "bab", "aé", "éa", "éé", "aaaa", "ab éb abé", "c", "aac"]
        {
            assert!(compare(&tokenizer, text));
        }
    }
}
