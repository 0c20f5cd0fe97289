//! Text normalisers, by versioned name. A name's behaviour never changes once a model has been trained with it: a
//! change gets a new name. Every face of Undertone reads text through the normaliser of the model folder, so a post
//! scored over REST equals the same post scored by the stream.
//!
//! Guarantees, property-tested: no input panics; a text with something visible never becomes empty; the output is at
//! most [`MAX_GROWTH`] times as long as the input (plus a constant); applying a normaliser twice equals applying it once.

mod emoji;
mod entities;
mod links;
mod social;

use undertone_error::{Error, ErrorKind, Result};

/// The most bytes of output for each byte of input.
pub const MAX_GROWTH: usize = 16;

/// A text normaliser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalizer {
    /// `none`: the text as it came.
    None,
    /// `social-1`: see [`social_1`].
    Social1,
}

impl Normalizer {
    /// Finds a normaliser by its name.
    ///
    /// # Errors
    /// `Unsupported`, listing the names that exist.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::None),
            "social-1" => Ok(Self::Social1),
            _ => Err(Error::new(ErrorKind::Unsupported, "unknown text normalizer")
                .with("normalizer", name)
                .help("use one of: none, social-1")),
        }
    }

    /// The versioned name, as model folders spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Social1 => "social-1",
        }
    }

    /// Normalises a text.
    pub fn apply(self, text: &str) -> String {
        match self {
            Self::None => text.to_owned(),
            Self::Social1 => social_1(text),
        }
    }
}

/// Turns a social post into words that a BERT vocabulary knows, and drops what identifies people:
///
/// | in the post | becomes |
/// |---|---|
/// | HTML entities, also doubly escaped | the characters |
/// | variation selectors, zero-width spaces, soft hyphens | nothing |
/// | curly quotes, `…` | `'`, `"`, `...` |
/// | emoji | their CLDR names; at most two of the same in a row; without skin tones |
/// | emoticons | `smile`, `sad face`, … |
/// | links | `http` |
/// | handles | `@user`, at most two in a row |
/// | hashtags | `#` and the words of the tag: `#NoMoreRain` is `#No More Rain` |
/// | a letter three times or more | twice: `sooooo` is `soo` |
/// | one of `! ? . , * - _ = ~` four times or more | three times |
/// | whitespace and control characters | one space; none at the ends |
pub fn social_1(text: &str) -> String {
    let text = entities::reveal(text);
    let text = emoji::name_emoji(&text);
    let text = links::replace_links(&text);
    let text = social::shorten_runs(&text);
    // Shortening can complete a link (`pic.twittter.com/x`).
    let text = links::replace_links(&text);
    let text = social::replace_marks(&text);
    social::join_words(&text)
}

/// Whether a text shows nothing: it has no character but whitespace, control characters and those that join or separate
/// others without being seen.
pub fn is_blank(text: &str) -> bool {
    let joins = |c| matches!(c, '\u{200c}' | '\u{200d}');
    text.chars().all(|c| c.is_whitespace() || c.is_control() || entities::is_invisible(c) || joins(c))
}

/// Whether a character is part of a word: of a handle, a hashtag, or next to an emoticon that is none.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_find_their_normalizers() {
        for normalizer in [Normalizer::None, Normalizer::Social1] {
            assert_eq!(Normalizer::from_name(normalizer.name()).unwrap(), normalizer);
        }
        let error = Normalizer::from_name("social-9").unwrap_err();
        assert!(error.to_string().contains("social-9") && error.to_string().contains("social-1"), "{error}");
    }

    #[test]
    fn social_1_by_example() {
        let table = [
            ("", ""),
            ("   \n\t ", ""),
            ("plain words, kept as they are.", "plain words, kept as they are."),
            // entities
            ("Tom &amp; Jerry", "Tom & Jerry"),
            ("&amp;lt;3", "love heart"),
            ("it&#39;s &#x2014; fine&nbsp;now", "it's \u{2014} fine now"),
            ("&nosuch; &#xD800; &#99999999; & ; &;", "&nosuch; & #x D 800 ; & #99999999 ; & ; &;"),
            // links
            ("look https://example.org/a?b=c now", "look http now"),
            ("www.example.org and pic.twitter.com/abc", "http and http"),
            ("https:// is a scheme", "https:// is a scheme"),
            // handles
            ("thanks @Bob_7!", "thanks @user!"),
            ("@a @b @c @d hi", "@user @user hi"),
            ("mail bob@example.org", "mail bob@example.org"),
            ("@me@social.example hi", "@user hi"),
            // hashtags
            ("#NoMoreRain", "#No More Rain"),
            ("#HTMLParser #covid19 #snake_case_tag", "#HTML Parser #covid 19 #snake case tag"),
            ("#हिन्दी #ไม่ไป #cafe\u{301}Noir", "#हिन्दी #ไม่ไป #cafe\u{301}Noir"),
            ("C# and #", "C# and #"),
            ("#one#TwoThree", "#one #Two Three"),
            // emoji
            ("nice 😂", "nice tears of joy"),
            ("😂😂😂😂😂", "tears of joy tears of joy"),
            ("👍🏽 ok", "thumbs up ok"),
            ("I ❤️ it", "I red heart it"),
            ("🇩🇪!", "Germany !"),
            ("👩‍🚀", "woman astronaut"),
            ("1️⃣", "keycap 1"),
            // emoticons
            ("good :) bad :-( fun :DDDD", "good smile bad sad face fun grin"),
            ("ratio 3:1, at 10:30", "ratio 3:1, at 10:30"),
            // runs
            ("soooo goooood", "soo good"),
            ("дааааа", "даа"),
            ("哈哈哈哈", "哈哈哈哈"),
            ("what?!?! nooo!!!!!!", "what?!?! noo!!!"),
            ("hmm......", "hmm..."),
            // quotes and invisible characters
            ("\u{201c}it\u{2019}s\u{201d}", "\"it's\""),
            ("wait\u{2026}", "wait..."),
            ("zero\u{200b}width\u{fe0f}", "zerowidth"),
            ("a\u{0}b", "a b"),
            ("many   spaces\n\nand lines", "many spaces and lines"),
        ];
        for (input, expected) in table {
            assert_eq!(social_1(input), expected, "input {input:?}");
        }
    }

    #[test]
    fn a_text_of_nothing_is_blank() {
        for text in ["", " ", "\u{0}", "\u{200b}\u{200d}", "\u{200d}\u{200c}", "\u{feff}\n\u{a0}", "&nbsp;&#8205;"] {
            assert!(is_blank(&social_1(text)), "{text:?}");
        }
        for text in ["a", ".", "😀", "\u{301}", "\u{200d}ж\u{200d}", "哈"] {
            assert!(!is_blank(&social_1(text)), "{text:?}");
        }
    }

    /// Strings in which the things that the normaliser looks for are likely, and likely to touch.
    fn posts() -> impl Strategy<Value = String> {
        let fragments = prop::sample::select(vec![
            "@",
            "#",
            ":",
            ")",
            "(",
            "-",
            "_",
            "=",
            "<3",
            "/",
            "//",
            "http",
            "htttp",
            "https://",
            "www.",
            "wwww.",
            "t.co/",
            "pic.twittter.com/",
            "XD",
            "xD",
            "&",
            "&amp;",
            "&helllip;",
            "&am\u{fe0f}p;",
            ";",
            "&#39;",
            "&#x1F600;",
            "😂",
            "👍🏽",
            "❤️",
            "\u{200d}",
            "\u{fe0f}",
            "🇩🇪",
            "🇦",
            "a",
            "aaa",
            "Aa",
            "B",
            "Zz",
            "1",
            "9",
            " ",
            "\n",
            "!",
            "!!!!",
            ".",
            "....",
            "\u{2019}",
            "\u{2026}",
            "\u{301}",
            "\u{94d}",
            "\u{20e3}",
            "\u{200c}",
            "क",
            "é",
            "ß",
            "哈",
            "م",
            "\"",
            "'",
            "\u{0}",
            "user",
            "@user",
            "#fooBar",
            "😀\u{200d}😀",
            "💤",
            "#️⃣",
            ":o",
            ":D",
        ]);
        prop_oneof![
            3 => prop::collection::vec(fragments, 0..24).prop_map(|parts| parts.concat()),
            1 => any::<String>(),
        ]
    }

    fn visible(text: &str) -> bool {
        text.chars().any(|c| !entities::is_invisible(c) && !c.is_whitespace() && !c.is_control())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn social_1_is_idempotent_bounded_and_never_loses_a_visible_text(text in posts()) {
            let once = social_1(&text);
            prop_assert_eq!(social_1(&once), once.clone(), "not idempotent for {:?}", text);
            prop_assert!(once.len() <= MAX_GROWTH * text.len() + 16);
            prop_assert!(!visible(&text) || !once.is_empty() || only_invisible_entities(&text));
            prop_assert_eq!(once.trim(), &once);
        }
    }

    /// `&nbsp;` is visible as typed, but means a space.
    fn only_invisible_entities(text: &str) -> bool {
        !visible(&entities::reveal(text))
    }

    #[test]
    fn every_emoji_becomes_words_and_stays_bounded() {
        for emoji in emojis::iter() {
            let once = social_1(emoji.as_str());
            assert!(!once.is_empty() && once != emoji.as_str(), "{emoji:?}");
            assert_eq!(social_1(&once), once, "{emoji:?}");
            assert!(once.len() <= MAX_GROWTH * emoji.as_str().len(), "{emoji:?} becomes {once:?}");
        }
    }
}
