//! The language of a text, or honestly nothing; and whether a model that knows some languages knows this one.
//!
//! A language is named only when the detector calls its guess reliable and the text has enough letters for a guess to
//! mean something. Whether a text is in a model's domain can be said of more texts: it asks "one of these, or the
//! likeliest other?", which is easier than "which of 69?". A short post leaves Danish or Norwegian open, but not that it
//! is no English.

use undertone_error::{Error, ErrorKind, Result};
use whatlang::{Detector, Info, Lang, Script};

/// Letters below which words of two languages that share a script look alike.
const LETTERS_SHARED_SCRIPT: usize = 16;
/// Letters that suffice where the script alone nearly decides.
const LETTERS_OWN_SCRIPT: usize = 4;

/// A text is foreign if the likeliest language wins against the model's own with more confidence than this. Lower flags
/// more posts of the model's languages, higher misses more of others: models/language.py measures both.
const SURELY_FOREIGN: f64 = 0.6;

/// What the letters of a text say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The ISO 639-3 code of the language that the text is written in (macrolanguages by their most common member:
    /// Mandarin is `cmn`); `None` if the text is too short or the guess is not reliable.
    pub language: Option<&'static str>,
    /// Whether the text is in one of the model's languages, or in none (emoji, numbers, names); `None` if nobody said
    /// which languages the model knows.
    pub in_domain: Option<bool>,
}

/// The languages that a model knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Languages(Vec<Lang>);

impl Languages {
    /// The languages of these ISO 639-3 codes.
    ///
    /// # Errors
    /// `InvalidConfig` if there is none, or one that cannot be told from others.
    pub fn new(codes: &[String]) -> Result<Self> {
        if codes.is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, "languages is an empty list")
                .with("key", "languages")
                .help("list at least one, or leave it out"));
        }
        let known = |(i, code): (usize, &String)| {
            Lang::from_code(code).filter(|lang| lang.code() == code).ok_or_else(|| {
                let codes: Vec<_> = Lang::all().iter().map(Lang::code).collect();
                Error::new(ErrorKind::InvalidConfig, format!("languages[{i}] is no language that we can detect"))
                    .with("key", format!("languages[{i}]"))
                    .with("value", code)
                    .help(format!("use ISO 639-3 codes out of {}; or leave languages out", codes.join(", ")))
            })
        };
        Ok(Self(codes.iter().enumerate().map(known).collect::<Result<_>>()?))
    }

    /// The ISO 639-3 codes.
    pub fn codes(&self) -> Vec<&'static str> {
        self.0.iter().map(Lang::code).collect()
    }
}

/// Reads a text as it came. Handles, hashtags and links are not looked at: they are spelled alike in all languages.
pub fn read(text: &str, languages: Option<&Languages>) -> Reading {
    let words: Vec<&str> = text.split_whitespace().filter(|word| !is_marker(word)).collect();
    let text = words.join(" ");
    let guess = whatlang::detect(&text);
    let language = guess.as_ref().filter(|info| is_reliable(info, &text)).map(|info| info.lang());
    let in_domain = |Languages(own): &Languages| match language {
        Some(language) => own.contains(&language),
        None => !is_foreign(&words, &text, guess.as_ref().map(|info| info.lang()), own),
    };
    Reading { language: language.map(|language| language.code()), in_domain: languages.map(in_domain) }
}

fn is_reliable(info: &Info, text: &str) -> bool {
    let needed = match info.script() {
        Script::Latin | Script::Cyrillic | Script::Arabic | Script::Devanagari | Script::Hebrew => {
            LETTERS_SHARED_SCRIPT
        }
        _ => LETTERS_OWN_SCRIPT,
    };
    info.is_reliable() && text.chars().filter(|c| c.is_alphabetic()).nth(needed - 1).is_some()
}

/// Whether one other language than these fits clearly better. `text` is the words, `likeliest` its language. Names are left
/// out: they, too, are spelled alike everywhere, and a short post with two of them in it looks like the language that they
/// come from.
fn is_foreign(words: &[&str], text: &str, likeliest: Option<Lang>, own: &[Lang]) -> bool {
    let said: Vec<&str> =
        words.iter().enumerate().filter(|(i, word)| *i == 0 || !is_name(word)).map(|(_, word)| *word).collect();
    // Most short posts hold no name, and the guess stands.
    if said.len() == words.len() {
        return fits_better(text, likeliest, own);
    }
    let text = said.join(" ");
    fits_better(&text, whatlang::detect_lang(&text), own)
}

fn fits_better(text: &str, likeliest: Option<Lang>, own: &[Lang]) -> bool {
    let Some(likeliest) = likeliest else {
        // No script that any language here is written in: what letters there are, the model has not learned.
        return text.chars().any(char::is_alphabetic);
    };
    if own.contains(&likeliest) {
        return false;
    }
    let contest = Detector::with_allowlist(own.iter().copied().chain([likeliest]).collect());
    contest.detect(text).is_some_and(|info| info.lang() == likeliest && info.confidence() > SURELY_FOREIGN)
}

/// A capital letter, and small ones after it.
fn is_name(word: &str) -> bool {
    let mut letters = word.chars().filter(|c| c.is_alphabetic());
    letters.next().is_some_and(char::is_uppercase) && letters.any(char::is_lowercase)
}

fn is_marker(word: &str) -> bool {
    word.starts_with(['@', '#']) || word.contains("://") || word.starts_with("www.") || word == "http"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn languages(codes: &[&str]) -> Languages {
        Languages::new(&codes.iter().map(|&code| code.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn languages_are_named_or_left_open() {
        let table = [
            ("I really enjoyed the concert last night, the band played for three hours", Some("eng")),
            ("Das Konzert gestern Abend war wirklich großartig, sie haben drei Stunden gespielt", Some("deu")),
            (
                "Ayer estuvimos en el concierto y fue increíble, los músicos tocaron muchas canciones que nos gustan",
                Some("spa"),
            ),
            ("Вчерашний концерт был просто замечательным, группа играла три часа", Some("rus")),
            ("昨日のコンサートは本当に素晴らしかったです", Some("jpn")),
            ("오늘 공연은 정말 좋았어요", Some("kor")),
            ("ok", None),
            ("", None),
            ("😂😂😂 !!! 123", None),
            ("https://example.org/das-ist-ein-langer-deutscher-satz @jemand #nurEinHashtag", None),
        ];
        for (text, expected) in table {
            assert_eq!(read(text, None), Reading { language: expected, in_domain: None }, "{text:?}");
        }
    }

    #[test]
    fn foreign_posts_are_told_from_those_that_the_model_knows() {
        let english = languages(&["eng"]);
        let table = [
            ("omg this is so good", true),
            ("ok", true),
            ("lol", true),
            ("late again, awful", true),
            ("So ready for Minecraft and Nintendo tomorrow", true),
            ("", true),
            ("😂😂😂 !!! 123", true),
            ("https://example.org/das-ist-ein-langer-deutscher-satz @jemand #nurEinHashtag", true),
            ("endlich feierabend, so schön", false),
            ("qué rabia, otra vez tarde", false),
            ("опять дождь", false),
            ("眠い", false),
            ("좋아요 👍", false),
            ("صباح الخير", false),
            // Letters of no script that languages are written in, which the model cannot read either.
            ("𝕤𝕠 𝕘𝕠𝕠𝕕", false),
        ];
        for (text, expected) in table {
            assert_eq!(read(text, Some(&english)).in_domain, Some(expected), "{text:?}");
        }
    }

    #[test]
    fn each_of_several_languages_is_known() {
        let several = languages(&["eng", "deu", "rus"]);
        let table = [
            ("das ist so schön hier bei euch", true),
            ("this is so good, thank you all", true),
            ("опять опоздал автобус, как же надоело", true),
            ("qué rabia, otra vez llega tarde el tren", false),
            ("τι ωραία μέρα", false),
        ];
        for (text, expected) in table {
            assert_eq!(read(text, Some(&several)).in_domain, Some(expected), "{text:?}");
        }
        assert_eq!(read("τι ωραία μέρα", Some(&languages(&["ell"]))).in_domain, Some(true));
    }

    #[test]
    fn codes_that_cannot_be_detected_are_refused() {
        for (codes, wanted) in [(vec!["en"], "languages[0]"), (vec!["eng", "xyz"], "languages[1]"), (vec![], "empty")] {
            let codes: Vec<String> = codes.into_iter().map(str::to_owned).collect();
            let error = Languages::new(&codes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}
