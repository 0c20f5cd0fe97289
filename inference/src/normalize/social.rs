//! Runs, handles, hashtags and emoticons: the marks that social posts put between their words.

use unicode_segmentation::UnicodeSegmentation;

/// Longest first, so that `>:(` is not read as `:(`. None consists of letters alone: a hashtag's words could spell it.
const EMOTICONS: [(&str, &str); 30] = [
    (">:(", "angry face"),
    ("</3", "broken heart"),
    (":'-(", "crying face"),
    (":-)", "smile"),
    (":-D", "grin"),
    (";-)", "wink"),
    (":-P", "playful"),
    (":-(", "sad face"),
    (":'(", "crying face"),
    (":-/", "skeptical"),
    (":-|", "neutral face"),
    ("^_^", "smile"),
    ("-_-", "annoyed"),
    (":)", "smile"),
    (":D", "grin"),
    (";)", "wink"),
    (";D", "wink"),
    (":P", "playful"),
    (":p", "playful"),
    ("=)", "smile"),
    ("=D", "grin"),
    (":]", "smile"),
    (":(", "sad face"),
    ("=(", "sad face"),
    (":[", "sad face"),
    (":/", "skeptical"),
    (":|", "neutral face"),
    ("<3", "love heart"),
    (":*", "kiss"),
    (":o", "surprised"),
];

/// Shortens a cased letter three times or more to two (`哈哈哈` is a word, `sooo` is not), and any of `!?.,*-_=~` four
/// times or more to three.
pub(super) fn shorten_runs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut last = None;
    let mut run = 0;
    for c in text.chars() {
        run = if last == Some(c) { run + 1 } else { 1 };
        last = Some(c);
        let most = match c {
            '!' | '?' | '.' | ',' | '*' | '-' | '_' | '=' | '~' => 3,
            c if c.is_lowercase() || c.is_uppercase() => 2,
            _ => usize::MAX,
        };
        if run <= most {
            out.push(c);
        }
    }
    out
}

/// Replaces handles by `@user`, hashtags by `#` and their words, emoticons by words.
pub(super) fn replace_marks(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        // Looking back at what was written, not at what was read, makes a second run see what the first one saw.
        let inside_word = out.chars().next_back().is_some_and(super::is_word);
        let len = match c {
            '@' if !inside_word => handle(rest, &mut out),
            '#' if !inside_word => hashtag(rest, &mut out),
            '>' | '<' | ':' | ';' | '=' | '^' | '-' if !inside_word && !out.ends_with('/') => emoticon(rest, &mut out),
            _ => None,
        };
        let len = len.unwrap_or_else(|| {
            out.push(c);
            c.len_utf8()
        });
        rest = &rest[len..];
    }
    out
}

/// `@name` and `@name@server.example`. Answers the bytes read, like the two functions below.
fn handle(text: &str, out: &mut String) -> Option<usize> {
    let mut len = 0;
    while let Some(name) = text[len..].strip_prefix('@') {
        let end = name.find(|c| !(super::is_word(c) || len > 0 && matches!(c, '.' | '-'))).unwrap_or(name.len());
        let name = name[..end].trim_end_matches(['.', '-']);
        if name.is_empty() {
            break;
        }
        len += 1 + name.len();
    }
    (len > 0).then(|| {
        out.push_str("@user");
        len
    })
}

fn hashtag(text: &str, out: &mut String) -> Option<usize> {
    let tag = &text[1..];
    let tag = &tag[..tag_end(tag)];
    if !tag.contains(char::is_alphanumeric) {
        return None;
    }
    out.push_str(" #");
    let letters: Vec<char> = tag.trim_start_matches('_').chars().collect();
    for (i, &c) in letters.iter().enumerate() {
        if i > 0 && starts_word(letters[i - 1], c, letters.get(i + 1).copied()) {
            out.push(' ');
        }
        out.push(if c == '_' { ' ' } else { c });
    }
    out.push(' ');
    Some(1 + tag.len())
}

/// Where the tag that `text` starts with ends. Marks that combine with its letters are no letters, but belong to it: the
/// virama of `हिन्दी`, the tone mark of `ไม่`.
fn tag_end(text: &str) -> usize {
    let mut clusters = text.grapheme_indices(true);
    let end = clusters.find(|(_, cluster)| !cluster.starts_with(super::is_word));
    end.map_or(text.len(), |(at, _)| at)
}

/// Whether a new word starts at `c`: `noMore`, `HTMLParser`, `covid19`.
fn starts_word(previous: char, c: char, next: Option<char>) -> bool {
    let after_small = (previous.is_lowercase() || previous.is_numeric()) && c.is_uppercase();
    let after_capitals = previous.is_uppercase() && c.is_uppercase() && next.is_some_and(char::is_lowercase);
    let number = previous.is_alphabetic() && c.is_numeric();
    after_small || after_capitals || number
}

/// An emoticon stands alone: no letter, digit or slash touches it. Its mouth may be repeated (`:)))`).
fn emoticon(text: &str, out: &mut String) -> Option<usize> {
    let (mark, words) = EMOTICONS.iter().find(|(mark, _)| text.starts_with(mark))?;
    let mouth = mark.chars().next_back()?;
    let rest = text[mark.len()..].trim_start_matches(mouth);
    if rest.starts_with(|c| super::is_word(c) || c == '/') {
        return None;
    }
    out.push(' ');
    out.push_str(words);
    out.push(' ');
    Some(text.len() - rest.len())
}

/// Collapses whitespace and leaves at most two handles in a row.
pub(super) fn join_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut handles = 0;
    for word in text.split_whitespace() {
        handles = if word == "@user" { handles + 1 } else { 0 };
        if handles > 2 {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}
