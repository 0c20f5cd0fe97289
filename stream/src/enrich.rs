//! What a text says besides its mood: hashtags, mentions, URLs, emoji.
//!
//! The guarantee: every list is in order of first appearance, without repeats, and bounded, however long or hostile the
//! text; what lies inside a URL is not found a second time as a hashtag or a mention. Unicode is read by grapheme
//! cluster, so that a flag or a family is one emoji, and a Hindi hashtag is not cut at its vowel signs.

use undertone_proto::v1::Entities;
use unicode_segmentation::UnicodeSegmentation;

/// The most entities of one kind that are kept.
pub const MAX_ENTITIES: usize = 32;
/// Longer hashtags and mentions (in characters) are noise, and left out.
const MAX_NAME_CHARS: usize = 100;
/// Longer URLs (in bytes) are left out.
const MAX_URL_BYTES: usize = 2048;
/// Only so much of a text is looked at, in bytes.
const MAX_SCANNED_BYTES: usize = 64 << 10;

/// Finds the entities of a text as it came (before any cleaning).
///
/// Hashtags come without `#` and lowercase, and are never only digits; mentions without `@`, as written, dotted
/// (`ann.example`) and federated (`ann@example.org`) ones whole.
pub fn entities(text: &str) -> Entities {
    let text = text.get(..text.floor_char_boundary(MAX_SCANNED_BYTES)).unwrap_or(text);
    let mut found = Entities::default();
    let mut at = 0;
    let mut before = ' ';
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let step = match rest.as_bytes() {
            [b'h' | b'H' | b'w' | b'W', ..] if !before.is_ascii_alphanumeric() => {
                let url = url(rest);
                keep(&mut found.urls, url, |url| url.len() <= MAX_URL_BYTES);
                url.len()
            }
            _ => 0,
        };
        let step = if step > 0 { step } else { plain(rest.as_bytes()) };
        let step = if step > 0 { step } else { cluster(rest, before, &mut found) };
        before = rest.get(..step).and_then(|taken| taken.chars().next_back()).unwrap_or(' ');
        at += step.max(1);
    }
    found
}

/// How many bytes from the start on are of no interest: ASCII before more ASCII is a cluster of its own, and no emoji. It ends
/// where a URL may begin.
fn plain(bytes: &[u8]) -> usize {
    let mut length = 0;
    let mut before = b'a';
    for pair in bytes.windows(2) {
        let &[byte, next] = pair else { break };
        let may_begin = matches!(byte, b'h' | b'H' | b'w' | b'W') && !before.is_ascii_alphanumeric();
        if may_begin || matches!(byte, b'#' | b'@') || !byte.is_ascii() || !next.is_ascii() {
            break;
        }
        before = byte;
        length += 1;
    }
    length
}

/// Takes what begins with the first grapheme cluster of `rest`; answers how many bytes that is.
fn cluster(rest: &str, before: char, found: &mut Entities) -> usize {
    let Some(first) = rest.graphemes(true).next() else { return rest.len() };
    let after = rest.get(first.len()..).unwrap_or_default();
    match first {
        // `&#39;` is an escaped apostrophe.
        "#" | "＃" if !is_word(before) && before != '&' => {
            let body = hashtag(after);
            let wanted = |tag: &str| tag.chars().any(|c| !c.is_numeric() && c != '_') && is_short(tag);
            keep(&mut found.hashtags, &body.to_lowercase(), wanted);
            first.len() + body.len()
        }
        "@" | "＠" if !is_word(before) => {
            let name = mention(after);
            keep(&mut found.mentions, name, is_short);
            first.len() + name.len()
        }
        _ => {
            if is_emoji(first) {
                keep(&mut found.emoji, first, |_| true);
            }
            first.len()
        }
    }
}

fn keep(list: &mut Vec<String>, item: &str, wanted: impl Fn(&str) -> bool) {
    if !item.is_empty() && list.len() < MAX_ENTITIES && wanted(item) && !list.iter().any(|kept| kept == item) {
        list.push(item.to_owned());
    }
}

fn is_short(name: &str) -> bool {
    name.chars().nth(MAX_NAME_CHARS).is_none()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The clusters that begin with a letter, digit or underscore; marks and joiners belong to their clusters.
fn hashtag(text: &str) -> &str {
    let length = text
        .graphemes(true)
        .take_while(|cluster| cluster.chars().next().is_some_and(is_word) && !is_emoji(cluster))
        .map(str::len)
        .sum();
    text.get(..length).unwrap_or_default()
}

fn mention(text: &str) -> &str {
    let mut end = 0;
    let mut federated = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|&(_, next)| next);
        let inner = match c {
            // "thanks @ann.See you" has lost a space; handles with dots go on in lowercase.
            '.' | '-' => end > 0 && next.is_some_and(|n| n.is_ascii_lowercase() || n.is_ascii_digit()),
            '@' => end > 0 && !std::mem::replace(&mut federated, true) && next.is_some_and(is_word),
            c => is_word(c),
        };
        if !inner {
            break;
        }
        end = at + c.len_utf8();
    }
    text.get(..end).unwrap_or_default()
}

/// The URL at the start of `text`, without the punctuation of the sentence around it; empty if there is none.
fn url(text: &str) -> &str {
    let starts = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let Some(prefix) = ["https://", "http://", "www."].into_iter().find(|prefix| starts(prefix)) else { return "" };
    let is_end = |c: char| c.is_whitespace() || c.is_control() || "<>\"{}|\\^`，。、！？）」』】".contains(c);
    let mut url = text.get(..text.find(is_end).unwrap_or(text.len())).unwrap_or_default();
    while let Some(last) = url.chars().next_back() {
        let unbalanced = |open: char| url.matches(last).count() > url.matches(open).count();
        let drop = match last {
            ')' => unbalanced('('),
            ']' => unbalanced('['),
            last => ".,;:!?'*_~…’”".contains(last),
        };
        if !drop {
            break;
        }
        url = url.get(..url.len() - last.len_utf8()).unwrap_or_default();
    }
    let host = url.get(prefix.len()..).unwrap_or_default();
    if host.starts_with(char::is_alphanumeric) { url } else { "" }
}

/// Whether a grapheme cluster is shown as an emoji. Signs that are text unless a variation selector says otherwise
/// (©, ™, ↔) count only with it.
fn is_emoji(cluster: &str) -> bool {
    const FIRST_EMOJI_BY_DEFAULT: char = '\u{231A}';
    let mut chars = cluster.chars();
    let plain_sign = chars.next().is_none_or(|c| c < FIRST_EMOJI_BY_DEFAULT) && chars.next().is_none();
    !plain_sign && emojis::get(cluster).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entities_by_kind() {
        // text, hashtags, mentions, urls, emoji; lists are written with spaces between.
        let cases = [
            ("plain words", "", "", "", ""),
            ("#Espresso and #espresso, #Café!", "espresso café", "", "", ""),
            ("#2026 #1 #covid19 #_ C#sharp &#39;", "covid19", "", "", ""),
            ("#हिन्दी #日本語 #Москва", "हिन्दी 日本語 москва", "", "", ""),
            ("＃全角 ＠ann", "全角", "ann", "", ""),
            ("hi @ann, @Bob_1! mail me@home.org", "", "ann Bob_1", "", ""),
            (
                "thanks @ann.See @cat.example.social @dan@masto.example.",
                "",
                "ann cat.example.social dan@masto.example",
                "",
                "",
            ),
            (
                "see https://a.example/x#part?q=@z. (http://b.example/(y))",
                "",
                "",
                "https://a.example/x#part?q=@z http://b.example/(y)",
                "",
            ),
            (
                "www.c.example, HTTP://D.example/é http:// xhttp://e.example",
                "",
                "",
                "www.c.example HTTP://D.example/é",
                "",
            ),
            ("看http://f.example。好", "", "", "http://f.example", ""),
            ("👍👍 👩‍👩‍👧 🇩🇪🇫🇷 👋🏽 1️⃣ © ❤️ ❤", "", "", "", "👍 👩‍👩‍👧 🇩🇪 🇫🇷 👋🏽 1️⃣ ❤️ ❤"),
            ("#tea🍵 yes", "tea", "", "", "🍵"),
            ("#️⃣ is a key", "", "", "", "#️⃣"),
        ];
        for (text, hashtags, mentions, urls, emoji) in cases {
            let found = entities(text);
            assert_eq!(found.hashtags.join(" "), hashtags, "{text}");
            assert_eq!(found.mentions.join(" "), mentions, "{text}");
            assert_eq!(found.urls.join(" "), urls, "{text}");
            assert_eq!(found.emoji.join(" "), emoji, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_bounded_lists_without_repeats(text in "(?s)([#@a-z0-9_.:/ ]|http://|👍|🏽|\u{200d}|é|\u{301}|.){0,80}") {
            let found = entities(&text);
            for list in [&found.hashtags, &found.mentions, &found.urls, &found.emoji] {
                prop_assert!(list.len() <= MAX_ENTITIES);
                let mut unique = list.clone();
                unique.sort();
                unique.dedup();
                prop_assert_eq!(unique.len(), list.len());
            }
            for as_written in found.urls.iter().chain(&found.emoji).chain(&found.mentions) {
                prop_assert!(text.contains(as_written.as_str()));
            }
            for tag in &found.hashtags {
                prop_assert!(!tag.contains(char::is_whitespace) && !tag.chars().all(char::is_numeric));
            }
        }

        #[test]
        fn a_hashtag_among_words_is_found(word in "[a-zäöü][a-zäöü0-9_]{0,20}", before in "[a-z ]{0,20}") {
            prop_assert_eq!(entities(&format!("{before} #{word}, ok")).hashtags, [word]);
        }
    }

    #[test]
    fn a_huge_text_is_scanned_only_so_far() {
        let text = format!("{}{}", "é".repeat(MAX_SCANNED_BYTES), " #late");
        assert!(entities(&text).hashtags.is_empty());
    }
}
