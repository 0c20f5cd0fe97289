//! What the page knows: a pure core with the time passed in.
//!
//! Memory is bounded whatever arrives: 30 posts of 500 characters, 10 dead letters, two minutes of rates, an hour of
//! topics. Every post counts in the totals; a post marked late is left out of the plot alone. A tombstone removes its
//! post from the latest ones at once, and a later version takes the place of an earlier one.

use std::collections::VecDeque;

use undertone_proto::v1::{DeadLetter, ScoredPost};

use super::{
    overview::{Dead, DeadPost, LatestPost, Overview, Rate, StageLag, Totals},
    rate::RateWindow,
    topics::{TopicRow, TopicWindow},
};
use crate::api::ModelRef;

const LATEST_POSTS: usize = 30;
const LATEST_DEAD: usize = 10;
const TEXT_CHARS: usize = 500;
const PREVIEW_CHARS: usize = 120;
const REASON_CHARS: usize = 300;
const NAME_CHARS: usize = 100;

#[derive(Debug)]
pub(crate) struct State {
    model: ModelRef,
    started_ms: i64,
    totals: Totals,
    rate: RateWindow,
    topics: TopicWindow,
    lag: Vec<StageLag>,
    latest: VecDeque<LatestPost>,
    dead: VecDeque<DeadPost>,
}

impl State {
    pub(crate) fn new(model: ModelRef, now_ms: i64) -> Self {
        Self {
            model,
            started_ms: now_ms,
            totals: Totals::default(),
            rate: RateWindow::new(seconds(now_ms)),
            topics: TopicWindow::default(),
            lag: Vec::new(),
            latest: VecDeque::with_capacity(LATEST_POSTS),
            dead: VecDeque::with_capacity(LATEST_DEAD),
        }
    }

    pub(crate) fn set_model(&mut self, model: ModelRef) {
        self.model = model;
    }

    pub(crate) fn events(&mut self, count: u64) {
        self.totals.events += count;
    }

    pub(crate) fn seed_totals(&mut self, totals: Totals) {
        self.totals = totals;
    }

    pub(crate) fn seed_topics(&mut self, rows: impl IntoIterator<Item = TopicRow>) {
        for row in rows {
            self.topics.add(row.window_start_s, &row.topic, row.posts, Some(row.polarity_sum));
        }
    }

    pub(crate) fn lag(&mut self, lag: Vec<StageLag>) {
        self.lag = lag;
    }

    /// Takes a scored post in. Answers how many of its topics found no room.
    pub(crate) fn scored(&mut self, post: &ScoredPost, now_ms: i64) -> u64 {
        self.rate.add(seconds(now_ms), 1);
        self.seeded(post, now_ms)
    }

    /// The same for a post that was scored before: it says nothing about how fast posts are scored now.
    pub(crate) fn seeded(&mut self, post: &ScoredPost, now_ms: i64) -> u64 {
        self.totals.scored += 1;
        if post.deleted {
            self.latest.retain(|shown| shown.uid != post.uid || shown.version > post.version);
            return 0;
        }
        match post.sentiment.as_deref() {
            Some("negative") => self.totals.negative += 1,
            Some("neutral") => self.totals.neutral += 1,
            Some("positive") => self.totals.positive += 1,
            _ => {}
        }
        let topics = undertone_proto::topics(post);
        let mut dropped = 0;
        if !post.late {
            let at_s = post.created_at_us.div_euclid(1_000_000);
            dropped = topics.iter().filter(|topic| !self.topics.add(at_s, topic, 1, post.polarity)).count() as u64;
        }
        self.show(latest(post, topics, now_ms));
        dropped
    }

    pub(crate) fn dead(&mut self, letter: &DeadLetter, now_ms: i64) {
        self.totals.dead += 1;
        self.dead.truncate(LATEST_DEAD - 1);
        // No character takes more than 4 bytes, so a huge payload is not decoded whole for its beginning.
        let beginning = &letter.payload[..letter.payload.len().min(4 * PREVIEW_CHARS)];
        self.dead.push_front(DeadPost {
            offset: letter.origin.as_ref().map_or(-1, |origin| origin.offset),
            stage: cut(&letter.stage, NAME_CHARS),
            reason: cut(&letter.reason, REASON_CHARS),
            preview: String::from_utf8_lossy(beginning).chars().take(PREVIEW_CHARS).collect(),
            at_ms: if letter.dead_at_us > 0 { letter.dead_at_us / 1000 } else { now_ms },
        });
    }

    pub(crate) fn overview(&mut self, now_ms: i64) -> Overview {
        let now_s = seconds(now_ms);
        Overview {
            now_ms,
            started_ms: self.started_ms,
            model: self.model.clone(),
            rate: Rate { posts_per_second: self.rate.per_second(now_s), history: self.rate.history(now_s) },
            totals: self.totals,
            lag: self.lag.clone(),
            topics: self.topics.render(now_s),
            latest: self.latest.iter().cloned().collect(),
            dead: Dead { total: self.totals.dead, latest: self.dead.iter().cloned().collect() },
        }
    }

    fn show(&mut self, post: LatestPost) {
        match self.latest.iter().position(|shown| shown.uid == post.uid) {
            Some(at) if self.latest[at].version > post.version => return,
            Some(at) => drop(self.latest.remove(at)),
            None => self.latest.truncate(LATEST_POSTS - 1),
        }
        self.latest.push_front(post);
    }
}

fn latest(post: &ScoredPost, topics: Vec<String>, now_ms: i64) -> LatestPost {
    LatestPost {
        uid: post.uid.clone(),
        source: cut(&post.source, NAME_CHARS),
        id: cut(&post.id, NAME_CHARS),
        author: post.author.as_deref().map(|author| cut(author, NAME_CHARS)),
        text: cut(&post.text, TEXT_CHARS),
        label: post.sentiment.clone(),
        polarity: post.polarity,
        confidence: post.confidence,
        language: post.language.clone(),
        created_ms: post.created_at_us.div_euclid(1000),
        scored_ms: if post.scored_at_us > 0 { post.scored_at_us / 1000 } else { now_ms },
        topics: topics.iter().map(|topic| cut(topic, NAME_CHARS)).collect(),
        version: post.version,
    }
}

fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1000)
}

/// The beginning of a text, at most this many characters, with an ellipsis if something is missing.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use undertone_proto::v1::{Entities, Origin};

    use super::*;

    const NOW: i64 = 1_777_629_600_000;

    fn state() -> State {
        State::new(ModelRef { name: "m".into(), revision: "r".into(), precision: "fp32".into() }, NOW)
    }

    fn post(n: usize, label: &str, polarity: f64) -> ScoredPost {
        ScoredPost {
            uid: format!("u{n}"),
            version: 1,
            source: "x".into(),
            id: n.to_string(),
            text: format!("post {n}"),
            created_at_us: NOW * 1000,
            sentiment: Some(label.into()),
            polarity: Some(polarity),
            entities: Some(Entities { hashtags: vec!["tea".into()], ..Entities::default() }),
            scored_at_us: NOW * 1000,
            ..ScoredPost::default()
        }
    }

    #[test]
    fn posts_are_counted_by_label_and_the_newest_stand_first() {
        let mut state = state();
        for n in 0..40 {
            state.scored(&post(n, if n % 2 == 0 { "positive" } else { "negative" }, 0.5), NOW);
        }
        let overview = state.overview(NOW + 1000);
        let totals = overview.totals;
        assert_eq!((totals.scored, totals.positive, totals.negative, totals.neutral), (40, 20, 20, 0));
        assert_eq!((overview.latest.len(), overview.latest[0].id.as_str()), (LATEST_POSTS, "39"));
        assert_eq!(overview.rate.posts_per_second, 40.0);
        assert_eq!(overview.topics.series[0].count[59], 40);
    }

    #[test]
    fn posts_from_before_are_shown_and_counted_and_are_no_speed() {
        let mut state = state();
        state.seeded(&post(1, "neutral", 0.0), NOW);
        let overview = state.overview(NOW + 1000);
        assert_eq!((overview.totals.scored, overview.totals.neutral, overview.latest.len()), (1, 1, 1));
        assert_eq!((overview.rate.posts_per_second, overview.topics.series[0].count[59]), (0.0, 1));
    }

    #[test]
    fn late_posts_count_but_are_not_drawn() {
        let mut state = state();
        let wild = ScoredPost { late: true, created_at_us: i64::MAX, ..post(1, "neutral", 0.0) };
        state.scored(&wild, NOW);
        let overview = state.overview(NOW);
        assert_eq!((overview.totals.scored, overview.latest.len()), (1, 1));
        assert!(overview.topics.series.is_empty());
    }

    #[test]
    fn an_edit_takes_the_place_of_its_post_and_an_older_version_does_not() {
        let mut state = state();
        state.scored(&post(1, "neutral", 0.0), NOW);
        state.scored(&post(2, "neutral", 0.0), NOW);
        state.scored(&ScoredPost { version: 5, text: "edited".into(), ..post(1, "positive", 1.0) }, NOW);
        state.scored(&ScoredPost { version: 4, text: "stale".into(), ..post(1, "positive", 1.0) }, NOW);
        let texts: Vec<_> = state.overview(NOW).latest.into_iter().map(|post| post.text).collect();
        assert_eq!(texts, ["edited", "post 2"]);
    }

    #[test]
    fn a_tombstone_removes_its_post_at_once() {
        let mut state = state();
        state.scored(&post(1, "neutral", 0.0), NOW);
        state.scored(&ScoredPost { deleted: true, version: 2, text: String::new(), ..post(1, "", 0.0) }, NOW);
        let overview = state.overview(NOW);
        assert!(overview.latest.is_empty());
        assert_eq!(overview.totals.scored, 2);
    }

    #[test]
    fn a_text_of_500_characters_is_shown_whole() {
        let mut state = state();
        state.scored(&ScoredPost { text: "é".repeat(500), ..post(1, "neutral", 0.0) }, NOW);
        assert_eq!(state.overview(NOW).latest[0].text, "é".repeat(500));
    }

    #[test]
    fn a_lag_that_is_not_known_is_null() {
        let mut state = state();
        state.lag(vec![StageLag { stage: "score".into(), posts: 3, seconds: None, waiting: None, scope: None }]);
        let json = serde_json::to_value(state.overview(NOW)).expect("serialises");
        let wanted =
            serde_json::json!([{"stage": "score", "posts": 3, "seconds": null, "waiting": null, "scope": null}]);
        assert_eq!(json["lag"], wanted);
    }

    #[test]
    fn huge_fields_are_cut() {
        let mut state = state();
        let long = "é".repeat(100_000);
        let huge = ScoredPost {
            text: long.clone(),
            author: Some(long.clone()),
            tags: vec![long.clone(); 50],
            ..post(1, "neutral", 0.0)
        };
        state.scored(&huge, NOW);
        state.dead(&DeadLetter { reason: long.clone(), payload: long.into_bytes(), ..DeadLetter::default() }, NOW);
        let overview = state.overview(NOW);
        assert_eq!(overview.latest[0].text, format!("{}…", "é".repeat(500)), "it shows that it was cut");
        assert_eq!(overview.dead.latest[0].preview.chars().count(), PREVIEW_CHARS);
        assert!(serde_json::to_string(&overview).expect("serialises").len() < 12_000);
    }

    #[test]
    fn dead_letters_show_where_why_and_how_they_begin() {
        let mut state = state();
        for offset in 0..12 {
            let origin = Some(Origin { offset, ..Origin::default() });
            let letter = DeadLetter {
                origin,
                stage: "parse".into(),
                reason: "post is not JSON".into(),
                payload: b"\xff{oops".to_vec(),
                dead_at_us: NOW * 1000,
                ..DeadLetter::default()
            };
            state.dead(&letter, NOW);
        }
        let dead = state.overview(NOW).dead;
        assert_eq!((dead.total, dead.latest.len()), (12, LATEST_DEAD));
        let newest = DeadPost {
            offset: 11,
            stage: "parse".into(),
            reason: "post is not JSON".into(),
            preview: "\u{fffd}{oops".into(),
            at_ms: NOW,
        };
        assert_eq!(dead.latest[0], newest);
    }

    #[test]
    fn a_restarted_process_draws_what_its_table_says_and_goes_on() {
        let mut state = state();
        let row = TopicRow { window_start_s: NOW / 1000, topic: "tea".into(), posts: 3, polarity_sum: -3.0 };
        state.seed_topics([row]);
        state.seed_totals(Totals { scored: 3, negative: 3, ..Totals::default() });
        state.scored(&post(1, "positive", 1.0), NOW);
        let overview = state.overview(NOW);
        assert_eq!(overview.totals.scored, 4);
        assert_eq!((overview.topics.series[0].count[59], overview.topics.series[0].polarity[59]), (4, Some(-0.5)));
    }
}
