//! Emoji as words: a vocabulary of words knows "tears of joy", not the picture.

use unicode_segmentation::UnicodeSegmentation;

use super::entities::straighten;

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
        let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
        let longest = ends.rev().find_map(|end| emojis::get(&rest[..end]).map(|emoji| (emoji, end)));
        let len = match longest {
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

/// The emoji that was seen last, and how often in a row.
#[derive(Default)]
struct Run {
    name: &'static str,
    length: usize,
}

impl Run {
    fn push(&mut self, emoji: &'static emojis::Emoji, out: &mut String) {
        let name = short_name(emoji.name());
        self.length = if self.name == name { self.length + 1 } else { 1 };
        self.name = name;
        if self.length <= MOST_IN_A_ROW {
            out.push(' ');
            out.extend(name.chars().map(|c| if matches!(c, '-' | ':' | ',' | '_') { ' ' } else { straighten(c) }));
            out.push(' ');
        }
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

/// The CLDR name without skin tone, without `flag: `, and in fewer words for the most frequent ones.
fn short_name(name: &'static str) -> &'static str {
    let name = name.strip_prefix("flag: ").unwrap_or(name);
    let name = match name.split_once(": ") {
        Some((base, detail)) if detail.contains("skin tone") => base,
        _ => name,
    };
    match name {
        "face with tears of joy" => "tears of joy",
        "loudly crying face" => "loudly crying",
        "smiling face with heart-eyes" => "heart eyes",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn text_without_emoji_is_untouched() {
        for text in ["plain 123 #*", "naïve Straße", "नमस्ते", "क\u{94d}\u{200d}ष", "日本語"] {
            assert_eq!(name_emoji(text), text);
        }
    }
}
