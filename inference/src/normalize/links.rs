//! Links become the word `http`: where a link leads says little about mood, and its letters cost tokens.

/// Replaces links by `http`, set off by spaces. A link ends at whitespace, a quote or an angle bracket; closing
/// punctuation belongs to the sentence, not to the link.
pub(super) fn replace_links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match link_at(rest, out.chars().next_back()) {
            Some(len) => {
                out.push_str(" http ");
                rest = &rest[len..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// The length in bytes of the link that `text` starts with. `previous` is the character before it: `http://` starts a
/// link anywhere, the others only at the start of a word.
fn link_at(text: &str, previous: Option<char>) -> Option<usize> {
    let start = match text.as_bytes().first()?.to_ascii_lowercase() {
        b'h' => scheme(text)?,
        b'w' | b'p' | b't' if !previous.is_some_and(|c| super::is_word(c) || c == '.') => {
            ["www.", "pic.twitter.com/", "pic.x.com/", "t.co/"].iter().find(|host| starts_with(text, host))?.len()
        }
        _ => return None,
    };
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"')).unwrap_or(text.len());
    let link =
        text[..end].trim_end_matches(['.', ',', '!', '?', ';', ':', ')', ']', '}', '\'', '*', '~', '-', '_', '=']);
    (link.len() > start).then_some(link.len())
}

/// The length of `http://` or `https://`. More than two t are allowed, since stretched letters are shortened later.
fn scheme(text: &str) -> Option<usize> {
    let after_h = text.get(1..)?;
    let after_t = after_h.trim_start_matches(['t', 'T']);
    let after_p = after_t.strip_prefix(['p', 'P'])?;
    let after_s = after_p.strip_prefix(['s', 'S']).unwrap_or(after_p);
    let end = after_s.strip_prefix("://")?;
    (after_h.len() - after_t.len() >= 2).then_some(text.len() - end.len())
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_with_their_ends() {
        let table = [
            ("https://a.example/b", "http"),
            ("see https://a.example/b.", "see http ."),
            ("(https://a.example/b)!", "( http )!"),
            ("<a href=\"http://a.example\">", "<a href=\" http \">"),
            ("xhttp://a.example", "x http"),
            ("awww.cute", "awww.cute"),
            ("www.example", "http"),
            ("T.co/x", "http"),
            ("at.co/x", "at.co/x"),
            ("HTTPS://X.EXAMPLE", "http"),
            ("https://", "https://"),
            ("https://...", "https://..."),
            ("http", "http"),
        ];
        for (input, expected) in table {
            let words: Vec<_> = replace_links(input).split_whitespace().map(str::to_owned).collect();
            assert_eq!(words.join(" "), expected, "input {input:?}");
        }
    }
}
