//! The language of a text, or honestly nothing. A code is given only when the detector calls its guess reliable and
//! the text has enough letters for a guess to mean something.

use whatlang::{Lang, Script};

/// Letters below which words of two languages that share a script look alike.
const LETTERS_SHARED_SCRIPT: usize = 16;
/// Letters that suffice where the script alone nearly decides.
const LETTERS_OWN_SCRIPT: usize = 4;

/// The ISO 639-3 code of the language that `text` is written in (macrolanguages by their most common member: Mandarin
/// is `cmn`). Handles, hashtags and links are not looked at: they are spelled alike in all languages.
pub fn detect(text: &str) -> Option<&'static str> {
    let words: Vec<&str> = text.split_whitespace().filter(|word| !is_marker(word)).collect();
    let text = words.join(" ");
    let info = whatlang::detect(&text)?;
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    let needed = match info.script() {
        Script::Latin | Script::Cyrillic | Script::Arabic | Script::Devanagari | Script::Hebrew => {
            LETTERS_SHARED_SCRIPT
        }
        _ => LETTERS_OWN_SCRIPT,
    };
    (letters >= needed && info.is_reliable()).then(|| Lang::code(&info.lang()))
}

fn is_marker(word: &str) -> bool {
    word.starts_with(['@', '#']) || word.contains("://") || word.starts_with("www.") || word == "http"
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(detect(text), expected, "{text:?}");
        }
    }
}
