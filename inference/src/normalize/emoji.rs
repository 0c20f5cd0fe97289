//! Emoji as words: a vocabulary of words knows "tears of joy", not the picture.

use std::sync::LazyLock;

use unicode_segmentation::UnicodeSegmentation;

use super::entities::straighten;

/// The bytes of the longest emoji that has a name. A grapheme cluster may be as long as its text, so this is how far is
/// looked ahead at each of its characters.
static LONGEST: LazyLock<usize> = LazyLock::new(|| {
    let toned = emojis::iter().filter_map(emojis::Emoji::skin_tones).flatten();
    emojis::iter().chain(toned).map(|emoji| emoji.as_str().len()).max().unwrap_or_default()
});

/// More of the same add tokens, not meaning.
const MOST_IN_A_ROW: usize = 2;

/// Replaces each emoji by its name, set off by spaces. Skin tones are left out; of the same emoji in a row two remain.
pub(super) fn name_emoji(text: &str) -> String {
    if !text.chars().any(may_be_emoji) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    let mut run = Run::default();
    for cluster in text.graphemes(true) {
        if cluster.chars().any(may_be_emoji) {
            name_cluster(cluster, &mut run, &mut out);
        } else {
            cluster.chars().for_each(|c| run.interrupt(c, &mut out));
        }
    }
    out
}

/// Names the emoji of one grapheme cluster, which is usually one emoji. A sequence that is newer than our table, or that
/// is none, is read part by part: its parts still say something.
fn name_cluster(cluster: &str, run: &mut Run, out: &mut String) {
    let mut rest = cluster;
    let mut after_emoji = false;
    while let Some(c) = rest.chars().next() {
        let len = match longest_emoji(rest) {
            Some((emoji, end)) => {
                run.push(emoji, out);
                after_emoji = true;
                end
            }
            None if after_emoji && is_modifier(c) => c.len_utf8(),
            None => {
                run.interrupt(c, out);
                c.len_utf8()
            }
        };
        rest = &rest[len..];
    }
}

/// The longest emoji that `text` starts with, and its length in bytes.
fn longest_emoji(text: &str) -> Option<(&'static emojis::Emoji, usize)> {
    let first = text.chars().next()?;
    // A keycap is an emoji that starts with an ordinary character.
    if !may_be_emoji(first) && !matches!(first, '0'..='9' | '#' | '*') {
        return None;
    }
    let near = &text[..text.floor_char_boundary(*LONGEST)];
    let ends = near.char_indices().map(|(at, c)| at + c.len_utf8());
    ends.rev().find_map(|end| emojis::get(&near[..end]).map(|emoji| (emoji, end)))
}

/// The emoji that was seen last, and how often in a row.
#[derive(Default)]
struct Run {
    name: String,
    length: usize,
}

impl Run {
    fn push(&mut self, emoji: &'static emojis::Emoji, out: &mut String) {
        let name = short_name(emoji.name());
        self.length = if self.name == name { self.length + 1 } else { 1 };
        if self.length <= MOST_IN_A_ROW {
            out.push(' ');
            out.push_str(&name);
            out.push(' ');
        }
        self.name = name;
    }

    fn interrupt(&mut self, c: char, out: &mut String) {
        if !c.is_whitespace() {
            *self = Self::default();
        }
        out.push(c);
    }
}

/// A cheap test that no emoji fails: below U+203C only © and ® are emoji, and a keycap ends in U+20E3.
fn may_be_emoji(c: char) -> bool {
    matches!(c, '©' | '®' | '\u{203c}'..)
}

/// Parts of a sequence that mean nothing without it: the joiner and the five skin tones.
fn is_modifier(c: char) -> bool {
    matches!(c, '\u{200d}' | '\u{1f3fb}'..='\u{1f3ff}')
}

/// The CLDR name without skin tones, without `flag: `, without punctuation, and in fewer words for the most frequent ones.
fn short_name(name: &'static str) -> String {
    let name = match name.strip_prefix("flag: ").unwrap_or(name) {
        "face with tears of joy" => "tears of joy",
        "loudly crying face" => "loudly crying",
        "smiling face with heart-eyes" => "heart eyes",
        name => name,
    };
    // `woman: dark skin tone, red hair` is a woman with red hair; the first part says what the picture is.
    let parts = name.split([':', ',']).enumerate();
    let parts = parts.filter(|(i, part)| *i == 0 || !part.ends_with("skin tone")).map(|(_, part)| part.trim());
    let words = |part: &str| part.chars().map(|c| if matches!(c, '-' | '_') { ' ' } else { straighten(c) }).collect();
    parts.map(words).collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::MAX_GROWTH;

    fn words(text: &str) -> String {
        name_emoji(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn runs_are_cut_and_restart_after_a_word() {
        assert_eq!(words("🔥🔥🔥 🔥 hot 🔥"), "fire fire hot fire");
        assert_eq!(words("🔥😂🔥"), "fire tears of joy fire");
    }

    #[test]
    fn unknown_sequences_are_read_part_by_part() {
        assert_eq!(words("😀\u{200d}🔥"), "grinning face fire");
        assert_eq!(words("😀\u{301}"), "grinning face \u{301}");
    }

    #[test]
    fn a_skin_tone_changes_no_word() {
        for emoji in emojis::iter() {
            for toned in emoji.skin_tones().into_iter().flatten() {
                assert!(!words(toned.as_str()).contains("skin tone"), "{toned:?}");
            }
        }
        for (toned, name) in [
            ("👩🏽\u{200d}🦰", "woman red hair"),
            ("👩\u{200d}🦰", "woman red hair"),
            ("🧔🏿\u{200d}♀\u{fe0f}", "woman beard"),
            ("👩🏻\u{200d}🤝\u{200d}👨🏿", "woman and man holding hands"),
        ] {
            assert_eq!(words(&super::super::entities::reveal(toned)), name);
        }
    }

    #[test]
    fn every_emoji_is_found_whole() {
        let toned = emojis::iter().filter_map(emojis::Emoji::skin_tones).flatten();
        for emoji in emojis::iter().chain(toned) {
            let text = emoji.as_str();
            assert_eq!(longest_emoji(text), Some((emoji, text.len())), "{text:?}");
            // What follows does not change that.
            assert_eq!(longest_emoji(&format!("{text}\u{301}\u{301}")), Some((emoji, text.len())), "{text:?}");
        }
    }

    /// A cluster of a mebibyte, of which a quadratic reading would not live to see the end.
    #[test]
    fn the_time_for_a_cluster_grows_with_its_length_only() {
        const SIZE: usize = 1 << 20;
        for (first, rest, first_name, rest_name) in [
            ("😀", "\u{301}", "grinning face ", "\u{301}"),
            ("😀", "\u{20d0}", "grinning face ", "\u{20d0}"),
            ("", "👩\u{200d}", "", ""),
            ("😀", "\u{200d}", "grinning face ", ""),
            ("😀", "\u{1f3fb}", "", ""),
        ] {
            let text = first.to_owned() + &rest.repeat(SIZE / rest.len());
            assert_eq!(text.graphemes(true).count(), 1, "{rest:?} must extend the cluster");
            let named = words(&text);
            match rest {
                "👩\u{200d}" => assert_eq!(named, "woman woman"),
                "\u{1f3fb}" => assert!(named.len() <= MAX_GROWTH * text.len(), "{}", named.len()),
                _ => assert_eq!(named, format!("{first_name}{}", rest_name.repeat(SIZE / rest.len())).trim_end()),
            }
        }
    }

    #[test]
    fn text_without_emoji_is_untouched() {
        for text in ["plain 123 #*", "naïve Straße", "नमस्ते", "क\u{94d}\u{200d}ष", "日本語"] {
            assert_eq!(name_emoji(text), text);
        }
    }
}
