//! HTML entities and characters that nobody sees. What is left afterwards is the text as a person reads it.

use std::borrow::Cow;

use super::social::shorten_runs;

/// The most bytes of an entity, `&` and `;` included.
const LONGEST: usize = 32;

/// Decodes entities, drops invisible characters, straightens quotes and turns control characters into spaces, until
/// nothing of that is left to do: exports of posts are often escaped twice, and dropping a character can complete an
/// entity.
///
/// One pass suffices. Only a `;` completes an entity, so it is enough to look back at each `;` that is written; what an
/// entity stands for is then read like any other character. Entities cannot overlap, so the order in which they are
/// decoded does not matter.
pub(super) fn reveal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let mut next = Some(c);
        while let Some(c) = next {
            push_plain(c, &mut out);
            next = (c == ';').then(|| take_entity(&mut out)).flatten();
        }
    }
    out
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

fn push_plain(c: char, out: &mut String) {
    if is_invisible(c) {
        return;
    }
    match straighten(c) {
        '\u{2026}' => out.push_str("..."),
        c if c.is_control() => out.push(' '),
        c => out.push(c),
    }
}

/// Takes the entity that `out` ends with off its end, and answers the character that it stands for.
fn take_entity(out: &mut String) -> Option<char> {
    let window = out.len().saturating_sub(LONGEST);
    let at = window + out.as_bytes()[window..].iter().rposition(|&b| b == b'&')?;
    let (c, len) = entity_at(&out[at..])?;
    (at + len == out.len()).then(|| {
        out.truncate(at);
        c
    })
}

/// The character of the entity that `text` starts with, and the entity's length in bytes.
fn entity_at(text: &str) -> Option<(char, usize)> {
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
    use proptest::prelude::*;

    use super::*;

    /// The definition that [`reveal`] carries out in one pass: decode every entity, and again, until there is none.
    fn reveal_in_rounds(text: &str) -> String {
        let plain = |text: &str| {
            let mut out = String::new();
            text.chars().for_each(|c| push_plain(c, &mut out));
            out
        };
        let mut text = plain(text);
        while let Some((at, c, len)) =
            text.match_indices('&').find_map(|(at, _)| entity_at(&text[at..]).map(|(c, len)| (at, c, len)))
        {
            text = plain(&format!("{}{c}{}", &text[..at], &text[at + len..]));
        }
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn one_pass_decodes_what_rounds_decode(parts in prop::collection::vec(prop::sample::select(vec![
            "&", ";", "#", "x", "amp", "am", "p", "&amp;", "&#38;", "&#x26;", "&#59;", "&#35;", "&#112;", "&#49;", "38", "1",
            "&helllip;", "&shy;", "&nbsp;", "lt", "\u{ad}", "\u{fe0f}", "\u{2026}", "\u{0}", "é", "a", "0000000000", " ",
        ]), 0..40)) {
            let text = parts.concat();
            let once = reveal(&text);
            prop_assert_eq!(&once, &reveal_in_rounds(&text), "{:?}", text);
            prop_assert_eq!(reveal(&once), once);
        }
    }

    /// A mebibyte of escapes, of which decoding layer by layer would not live to see the end.
    #[test]
    fn the_time_for_layers_grows_with_their_number_only() {
        const LAYERS: usize = (1 << 20) / 4;
        assert_eq!(reveal(&format!("&{}lt;", "amp;".repeat(LAYERS))), "<");
        assert_eq!(reveal(&format!("&{}", "#38;".repeat(LAYERS))), "&");
        assert_eq!(reveal(&format!("&am{}p;", "&shy;".repeat(LAYERS))), "&");
        assert_eq!(reveal(&"&".repeat(LAYERS)), "&".repeat(LAYERS));
        assert_eq!(reveal(&"&x;".repeat(LAYERS)), "&x;".repeat(LAYERS));
    }

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
            ("&am&#112;;", "&"),
            ("&amp&#59;", "&"),
            ("&amp&semi;", "&amp&semi;"),
            ("&amp;#65;&amp;#38;lt;", "A<"),
            ("a&&amp;b", "a&&b"),
        ];
        for (input, expected) in table {
            assert_eq!(reveal(input), expected, "input {input:?}");
        }
    }
}
