//! Puts the words of a post together: opening, opinion, news, closing, then emoji, tags, links.

use super::chance::Draws;
use super::names;
use super::phrases::{EMOJI, EMOTICONS, LANGUAGE_SHARES, LANGUAGES, LEVELS, Phrases};
use super::topics::TOPICS;

const LONG_FROM: u64 = 2_000;
const LONG_TO: u64 = 12_000;

/// What a post is to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brief {
    pub(super) topic: usize,
    /// The feeling to put into words, in [-1, 1].
    pub(super) polarity: f64,
    /// The mood of the event that everybody is talking about, if there is one.
    pub(super) event: Option<f64>,
    pub(super) long: bool,
}

/// A text, the language it is in (ISO 639-1) and the tags that stand in it, in their spelling, without the #.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) lang: &'static str,
    pub(super) tags: Vec<String>,
}

/// From polarity to the strength of words: 0 very bad, 2 neither, 4 very good.
pub(super) fn level(polarity: f64) -> usize {
    [-0.65, -0.2, 0.2, 0.65].iter().filter(|bound| polarity >= **bound).count().min(LEVELS - 1)
}

/// Writes a post.
pub(super) fn write(draws: &mut Draws, brief: Brief) -> Text {
    let language = draws.weighted(&LANGUAGE_SHARES);
    let phrases = LANGUAGES[language];
    let level = level(brief.polarity);
    let mut text = if brief.long {
        essay(draws, brief.topic, language, level)
    } else {
        let said = say(draws, brief.topic, language, level);
        let mut text = styled(draws, said, language == 0, level);
        if let Some(news) = news(draws, brief, language) {
            let stop = if news.ends_with(['.', '!', '?']) { "" } else { "." };
            text = if draws.chance(0.4) { format!("{news}{stop} {text}") } else { format!("{text} {news}") };
        }
        text
    };
    if draws.chance(0.45) {
        add(&mut text, &emoji(draws, level));
    } else if draws.chance(0.12) {
        add(&mut text, draws.pick(EMOTICONS[level]));
    }
    if draws.chance(0.10) {
        add(&mut text, &format!("cc @{}", names::handle(draws)));
    }
    let tags = tags(draws, brief.topic, level);
    for tag in &tags {
        add(&mut text, &format!("#{tag}"));
    }
    if draws.chance(0.15) {
        add(&mut text, &names::link(draws));
    }
    Text { text, lang: phrases.lang, tags }
}

/// What an author writes who comes back to a post: something is always changed.
pub(super) fn revise(draws: &mut Draws, original: &str, brief: Brief) -> String {
    if draws.chance(0.6) {
        let note = draws.pick(&["EDIT: typo", "edit: fixed the link", "(edited)", "EDIT: thanks for all the replies!"]);
        return format!("{original} {note}");
    }
    let second_thought = say(draws, brief.topic, 0, level(-brief.polarity));
    format!("{original} EDIT: changed my mind, {second_thought}")
}

fn say(draws: &mut Draws, topic: usize, language: usize, level: usize) -> String {
    let phrases = LANGUAGES[language];
    let subject = match language {
        0 => draws.pick(TOPICS[topic].subjects),
        abroad => TOPICS[topic].abroad[abroad - 1],
    };
    let mut said = String::new();
    if draws.chance(0.45) {
        said.push_str(draws.pick(phrases.openings));
        said.push_str(phrases.space);
    }
    said.push_str(&draws.pick(phrases.opinions[level]).replace("{s}", subject));
    let end = match level {
        0 | 4 => draws.pick(&["!", "!!!", "!!", ".", ""]),
        _ => draws.pick(&[".", ".", "", "...", "!"]),
    };
    said.push_str(if said.ends_with(['?', '!', '。']) { "" } else { end });
    if draws.chance(0.25) {
        close(draws, &mut said, phrases);
    }
    said
}

fn close(draws: &mut Draws, said: &mut String, phrases: &Phrases) {
    if !said.ends_with(['.', '!', '?', '。']) {
        said.push(',');
    }
    said.push_str(phrases.space);
    said.push_str(draws.pick(phrases.closings));
}

/// Spelling as people have it: careful, careless, stretched, or shouting.
fn styled(draws: &mut Draws, said: String, english: bool, level: usize) -> String {
    let stretched = if english && draws.chance(0.25) {
        said.replace(" so ", draws.pick(&[" sooo ", " soooooo ", " SO "]))
    } else {
        said
    };
    let shouts = level == 0 || level == LEVELS - 1;
    match draws.unit() {
        share if share < 0.45 => {
            let mut chars = stretched.chars();
            chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
        }
        share if share < 0.65 && english => stretched.to_lowercase(),
        share if share < 0.70 && english && shouts => stretched.to_uppercase(),
        _ => stretched,
    }
}

fn news(draws: &mut Draws, brief: Brief, language: usize) -> Option<&'static str> {
    let mood = brief.event.filter(|mood| mood * brief.polarity > 0.0 && language == 0)?;
    let topic = &TOPICS[brief.topic];
    draws.chance(0.5).then(|| draws.pick(if mood > 0.0 { topic.good_news } else { topic.bad_news }))
}

fn emoji(draws: &mut Draws, level: usize) -> String {
    let one = draws.pick(EMOJI[level]);
    one.repeat(1 + draws.below(if level == 0 || level == LEVELS - 1 { 3 } else { 1 }) as usize)
}

fn tags(draws: &mut Draws, topic: usize, level: usize) -> Vec<String> {
    let mut tags = Vec::new();
    if draws.chance(0.95) {
        let tag = TOPICS[topic].tag;
        tags.push(if draws.chance(0.3) { tag.to_lowercase() } else { tag.to_owned() });
    }
    if draws.chance(0.15) {
        let more: &[&str] = match level {
            0 | 1 => &["fail", "ugh", "NotAgain"],
            3 | 4 => &["happy", "GoodVibes", "love"],
            _ => &["question", "photo", "JustAsking"],
        };
        tags.push(draws.pick(more).to_owned());
    }
    tags
}

/// Paragraphs of mixed opinions around one level, a few thousand characters of them.
fn essay(draws: &mut Draws, topic: usize, language: usize, level: usize) -> String {
    let length = LONG_FROM + draws.below(LONG_TO - LONG_FROM);
    let mut text = String::new();
    let mut characters = 0;
    while characters < length {
        let nearby = (level + draws.below(3) as usize).saturating_sub(1).min(LEVELS - 1);
        let sentence = say(draws, topic, language, nearby);
        if !text.is_empty() {
            text.push_str(if draws.chance(0.15) { "\n\n" } else { " " });
        }
        characters += sentence.chars().count() as u64;
        text.push_str(&sentence);
    }
    text
}

fn add(text: &mut String, word: &str) {
    text.push(' ');
    text.push_str(word);
}

#[cfg(test)]
mod tests {
    use super::super::chance::Purpose;
    use super::*;

    #[test]
    fn levels_cut_the_range_in_five() {
        let levels: Vec<usize> = [-1.0, -0.65, -0.2, 0.0, 0.2, 0.65, 1.0].into_iter().map(level).collect();
        assert_eq!(levels, [0, 1, 2, 2, 3, 4, 4]);
    }

    #[test]
    fn every_language_fills_every_template() {
        for language in 0..LANGUAGES.len() {
            for (topic, level) in (0..TOPICS.len()).flat_map(|topic| (0..LEVELS).map(move |level| (topic, level))) {
                let mut draws = Draws::new(1, Purpose::Text, (topic * LEVELS + level) as u64);
                let said = say(&mut draws, topic, language, level);
                assert!(said.chars().count() > 3 && !said.contains(['{', '}']), "{said}");
            }
        }
    }

    #[test]
    fn every_opinion_names_its_subject_once() {
        for template in LANGUAGES.iter().flat_map(|phrases| phrases.opinions.iter().flat_map(|level| level.iter())) {
            assert_eq!(template.matches("{s}").count(), 1, "{template}");
        }
    }

    #[test]
    fn an_event_is_in_the_words() {
        let brief = Brief { topic: 4, polarity: 0.9, event: Some(0.9), long: false };
        let texts: Vec<String> = (0..200).map(|i| write(&mut Draws::new(1, Purpose::Text, i), brief).text).collect();
        let told = texts.iter().filter(|text| TOPICS[4].good_news.iter().any(|news| text.contains(news))).count();
        assert!((50..120).contains(&told), "{told}");
    }
}
