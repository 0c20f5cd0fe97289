//! HTML entities and characters that nobody sees. What is left afterwards is the text as a person reads it.

use std::borrow::Cow;

use super::social::shorten_runs;

/// Decodes entities, drops invisible characters, straightens quotes and turns control characters into spaces, again and
/// again until nothing changes: exports of posts are often escaped twice, and dropping a character can complete an
/// entity. Each round that decodes something shortens the text, so the loop ends.
pub(super) fn reveal(text: &str) -> String {
    let mut text = plain_characters(text);
    while let Some(decoded) = decode_once(&text) {
        text = plain_characters(&decoded);
    }
    text
}

/// Whether a character shows nothing and separates nothing: variation selectors, zero-width space, word joiner, byte
/// order mark, soft hyphen. The zero-width joiners are not among them: scripts and emoji need them.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' | '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
}

/// Curly quotes as typewriters have them.
pub(super) fn straighten(c: char) -> char {
    match c {
        '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}' => '\'',
        '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{201f}' => '"',
        other => other,
    }
}

fn plain_characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|&c| !is_invisible(c)) {
        match straighten(c) {
            '\u{2026}' => out.push_str("..."),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Decodes every entity once; `None` if there is none.
fn decode_once(text: &str) -> Option<String> {
    let mut out: Option<String> = None;
    let mut rest = text;
    let mut copied = 0;
    while let Some(start) = rest.find('&') {
        let at = text.len() - rest.len() + start;
        match entity_at(&text[at..]) {
            Some((c, len)) => {
                let out = out.get_or_insert_with(String::new);
                out.push_str(&text[copied..at]);
                out.push(c);
                copied = at + len;
                rest = &text[copied..];
            }
            None => rest = &text[at + 1..],
        }
    }
    out.map(|mut out| {
        out.push_str(&text[copied..]);
        out
    })
}

/// The character of the entity that `text` starts with, and the entity's length in bytes.
fn entity_at(text: &str) -> Option<(char, usize)> {
    const LONGEST: usize = 32;
    let end = text.bytes().take(LONGEST).position(|b| b == b';')?;
    let name = &text[1..end];
    let c = match name.strip_prefix('#') {
        Some(number) => numeric(number)?,
        None => named(&unstretch(name))?,
    };
    Some((c, end + 1))
}

fn numeric(number: &str) -> Option<char> {
    let code = match number.strip_prefix(['x', 'X']) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok()?,
        None if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok()?,
        _ => return None,
    };
    char::from_u32(code)
}

/// Stretched letters are shortened later, which must not complete an entity after entities were decoded.
fn unstretch(name: &str) -> Cow<'_, str> {
    match name.is_ascii() {
        true => Cow::Owned(shorten_runs(name)),
        false => Cow::Borrowed(name),
    }
}

/// The entities that occur in exports of posts.
fn named(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" | "ensp" | "emsp" | "thinsp" => ' ',
        "hellip" => '\u{2026}',
        "lsquo" | "rsquo" | "sbquo" => '\'',
        "ldquo" | "rdquo" | "bdquo" => '"',
        "ndash" => '\u{2013}',
        "mdash" => '\u{2014}',
        "laquo" => '«',
        "raquo" => '»',
        "bull" => '•',
        "middot" => '·',
        "copy" => '©',
        "reg" => '®',
        "trade" => '™',
        "deg" => '°',
        "euro" => '€',
        "pound" => '£',
        "yen" => '¥',
        "cent" => '¢',
        "sect" => '§',
        "para" => '¶',
        "times" => '×',
        "divide" => '÷',
        "plusmn" => '±',
        "frac12" => '½',
        "frac14" => '¼',
        "hearts" => '♥',
        "larr" => '←',
        "rarr" => '→',
        "iexcl" => '¡',
        "iquest" => '¿',
        "shy" => '\u{ad}',
        "zwj" => '\u{200d}',
        "zwnj" => '\u{200c}',
        "agrave" => 'à',
        "aacute" => 'á',
        "acirc" => 'â',
        "atilde" => 'ã',
        "auml" => 'ä',
        "aring" => 'å',
        "aelig" => 'æ',
        "ccedil" => 'ç',
        "egrave" => 'è',
        "eacute" => 'é',
        "ecirc" => 'ê',
        "euml" => 'ë',
        "igrave" => 'ì',
        "iacute" => 'í',
        "icirc" => 'î',
        "iuml" => 'ï',
        "ntilde" => 'ñ',
        "ograve" => 'ò',
        "oacute" => 'ó',
        "ocirc" => 'ô',
        "otilde" => 'õ',
        "ouml" => 'ö',
        "oslash" => 'ø',
        "ugrave" => 'ù',
        "uacute" => 'ú',
        "ucirc" => 'û',
        "uuml" => 'ü',
        "szlig" => 'ß',
        "Auml" => 'Ä',
        "Ouml" => 'Ö',
        "Uuml" => 'Ü',
        "Eacute" => 'É',
        "Ntilde" => 'Ñ',
        "Ccedil" => 'Ç',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_decode_to_the_last_layer() {
        let table = [
            ("&amp;amp;amp;lt;", "<"),
            ("&#65;&#x42;&#X43;", "ABC"),
            ("&#0;", " "),
            ("&#;&#x;&#xg;", "&#;&#x;&#xg;"),
            ("&AMP; &eacute;t&eacute;", "&AMP; été"),
            ("no entity & none", "no entity & none"),
            ("&am\u{fe0f}p;", "&"),
            ("a&&amp;b", "a&&b"),
        ];
        for (input, expected) in table {
            assert_eq!(reveal(input), expected, "input {input:?}");
        }
    }
}
