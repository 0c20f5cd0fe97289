//! The words of the posts: templates written for this generator, a file a language.
//!
//! A template holds `{s}` where the subject goes. English subjects are singular noun phrases without capital; the other
//! languages' opinions are worded so that neither the gender nor the case of a subject matters.

mod de;
mod en;
mod es;
mod fr;
mod ja;
mod pt;
mod tr;

/// How strongly a post speaks, from very bad (0) over neither (2) to very good (4).
pub(super) const LEVELS: usize = 5;

/// The templates of one language.
pub(super) struct Phrases {
    /// ISO 639-1, as sources claim it.
    pub(super) lang: &'static str,
    /// Put before an opinion.
    pub(super) openings: &'static [&'static str],
    /// By level.
    pub(super) opinions: [&'static [&'static str]; LEVELS],
    /// Put after an opinion.
    pub(super) closings: &'static [&'static str],
    /// Between sentences: Japanese uses none.
    pub(super) space: &'static str,
}

/// All languages; English is the first.
pub(super) const LANGUAGES: [&Phrases; 7] =
    [&en::PHRASES, &es::PHRASES, &de::PHRASES, &fr::PHRASES, &pt::PHRASES, &ja::PHRASES, &tr::PHRASES];

/// How often each language is written, in the order of [`LANGUAGES`].
pub(super) const LANGUAGE_SHARES: [f64; LANGUAGES.len()] = [0.80, 0.06, 0.04, 0.03, 0.03, 0.02, 0.02];

/// By level.
pub(super) const EMOJI: [&[&str]; LEVELS] = [
    &["😡", "🤬", "💔", "😭", "🤮", "👎👎"],
    &["😞", "🙄", "😒", "👎", "😕", "🫠"],
    &["🤔", "👀", "🤷", "☕", "📷", "🧐"],
    &["🙂", "👍", "😊", "✨", "👏", "😄"],
    &["😍", "🔥", "🥳", "❤️", "🎉🎉", "🤩"],
];

/// By level: some people still write them.
pub(super) const EMOTICONS: [&[&str]; LEVELS] =
    [&[">:(", ":'("], &[":(", ":/", "-_-"], &[":|", ":o"], &[":)", ";)", "=)"], &[":D", "<3", "xD"]];
