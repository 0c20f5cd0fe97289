//! Decides what post number `index` is, who wrote it when and about what, and makes its payload.
//!
//! Every decision draws from a stream of its own, so that a later post can ask cheaply who wrote an earlier one, or
//! make its text again, without making the rest of it.

use undertone_proto::EventTime;

use super::chance::{Draws, Purpose, mix};
use super::clock::Clock;
use super::config::GeneratorConfig;
use super::damage::damaged;
use super::mood::mood;
use super::names::{base36, handle};
use super::record::{self, Record, SOURCE_SHARES, SOURCES, WEBHOOK, X};
use super::text::{self, Brief, Text};
use super::topics::TOPICS;

const DAY_US: EventTime = 86_400_000_000;
/// How many posts back an edit, a repost or a reply may reach.
const REACH: u64 = 400;
/// Reposts meet on every so-many-th post, so that some posts are reposted several times.
const POPULAR: u64 = 40;
/// How often a referring post looks for one to refer to, before it becomes an ordinary post.
const TRIES: u32 = 8;

/// What kind of post a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ordinary,
    Long,
    Malformed,
    WildClock,
    /// Of the post with this number.
    Edit(u64),
    /// Of the post with this number.
    Repost(u64),
}

/// A kind before it is known whether there is a post to refer to.
#[derive(Clone, Copy, Debug)]
enum Class {
    Ordinary,
    Long,
    Malformed,
    WildClock,
    Edit,
    Repost,
}

/// Who wrote a post, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// An index into [`SOURCES`].
    pub(super) source: usize,
    /// Some webhooks send none.
    pub(super) id: Option<String>,
    pub(super) author: String,
}

/// All posts of one configuration.
#[derive(Clone, Debug)]
pub(super) struct World {
    config: GeneratorConfig,
    clock: Clock,
}

impl World {
    pub(super) fn new(config: GeneratorConfig) -> Self {
        let clock = Clock::new(config.seed, config.start_us, config.rate);
        Self { config, clock }
    }

    pub(super) fn arrival_us(&self, index: u64) -> EventTime {
        self.clock.at_us(index)
    }

    pub(super) fn payload(&self, index: u64) -> Vec<u8> {
        let kind = self.kind(index);
        let record = match kind {
            Kind::Ordinary | Kind::Long | Kind::Malformed => self.original(index),
            Kind::WildClock => self.wild(index),
            Kind::Edit(of) => self.edit(index, of),
            Kind::Repost(of) => self.repost(index, of),
        };
        // Strings, numbers and options only: there is nothing in a record that JSON cannot hold.
        let json = serde_json::to_vec(&record).unwrap_or_default();
        if kind == Kind::Malformed { damaged(&mut self.draws(Purpose::Damage, index), json) } else { json }
    }

    pub(super) fn kind(&self, index: u64) -> Kind {
        let (class, mut draws) = self.class(index);
        match class {
            Class::Ordinary => Kind::Ordinary,
            Class::Long => Kind::Long,
            Class::Malformed => Kind::Malformed,
            Class::WildClock => Kind::WildClock,
            Class::Edit => self
                .earlier(&mut draws, index, 1, |of| self.identity(of).id.is_some())
                .map_or(Kind::Ordinary, Kind::Edit),
            Class::Repost => self.earlier(&mut draws, index, POPULAR, |_| true).map_or(Kind::Ordinary, Kind::Repost),
        }
    }

    pub(super) fn identity(&self, index: u64) -> Identity {
        let mut draws = self.draws(Purpose::Identity, index);
        let source = draws.weighted(&SOURCE_SHARES);
        let author = handle(&mut draws);
        // A bijection of the index: no two posts of a run share an id.
        let number = mix(index ^ mix(self.config.seed));
        let id = match source {
            WEBHOOK if draws.chance(0.2) => None,
            X => Some(number.to_string()),
            WEBHOOK => Some(format!("evt-{number:016x}")),
            _ => Some(base36(number)),
        };
        Identity { source, id, author }
    }

    /// The subject and feeling of a post.
    pub(super) fn brief(&self, index: u64) -> Brief {
        let mut draws = self.draws(Purpose::Target, index);
        let (seed, at_us) = (self.config.seed, self.arrival_us(index));
        let moods: [_; TOPICS.len()] = std::array::from_fn(|topic| mood(seed, topic, at_us));
        let attention: [f64; TOPICS.len()] =
            std::array::from_fn(|topic| TOPICS[topic].popularity * (1.0 + 3.0 * moods[topic].grip));
        let topic = draws.weighted(&attention);
        let now = moods[topic];
        // People differ, but less so when something has just happened.
        let own_mind = (draws.signed() + draws.signed()) / 2.0 * (0.9 - 0.4 * now.grip);
        let event = (now.grip > 0.3).then_some(now.value);
        let long = self.kind(index) == Kind::Long;
        Brief { topic, polarity: (now.value + own_mind).clamp(-1.0, 1.0), event, long }
    }

    fn text(&self, index: u64) -> Text {
        text::write(&mut self.draws(Purpose::Text, index), self.brief(index))
    }

    fn original(&self, index: u64) -> Record {
        let Identity { source, id, author } = self.identity(index);
        let Text { mut text, lang, tags } = self.text(index);
        let mut draws = self.draws(Purpose::Fields, index);
        let reply_to = self.reply(&mut draws, index, source).map(|of| {
            text = format!("@{} {text}", of.author);
            of.id.unwrap_or_default()
        });
        let url =
            id.as_ref().filter(|_| draws.chance(0.7)).map(|id| format!("https://example.com/{}/{id}", SOURCES[source]));
        Record {
            source: SOURCES[source],
            created_at: record::written(source, self.created_us(index)),
            edited_at: None,
            url,
            lang: draws.chance(0.7).then_some(lang),
            reply_to,
            metrics: record::metrics(&mut draws),
            tags: if draws.chance(0.6) { tags } else { Vec::new() },
            unknown: record::unknown(&mut draws),
            id,
            author,
            text,
        }
    }

    fn wild(&self, index: u64) -> Record {
        let created_at = match self.draws(Purpose::Damage, index).below(3) {
            0 => "1970-01-01T00:00:00Z".to_owned(),
            1 => "2099-12-31T23:59:59Z".to_owned(),
            _ => record::written(X, self.arrival_us(index) - 40 * DAY_US),
        };
        Record { created_at, ..self.original(index) }
    }

    fn edit(&self, index: u64, of: u64) -> Record {
        let original = self.original(of);
        let text = text::revise(&mut self.draws(Purpose::Text, index), &original.text, self.brief(of));
        let edited_at = Some(record::written(X, self.arrival_us(index)));
        Record { text, edited_at, ..original }
    }

    fn repost(&self, index: u64, of: u64) -> Record {
        let original = self.original(of);
        let text = format!("RT @{}: {}", original.author, original.text);
        let Identity { author, .. } = self.identity(index);
        let id = mix(index ^ mix(self.config.seed)).to_string();
        let url = Some(format!("https://example.com/{}/{id}", SOURCES[X]));
        let created_at = record::written(X, self.created_us(index));
        let unknown = record::Unknown::default();
        let (id, source) = (Some(id), SOURCES[X]);
        Record { id, source, text, created_at, author, url, reply_to: None, metrics: None, unknown, ..original }
    }

    /// The earlier post of the same source that this one answers, if it answers one.
    fn reply(&self, draws: &mut Draws, index: u64, source: usize) -> Option<Identity> {
        if !draws.chance(0.12) {
            return None;
        }
        let suits = |of: &Identity| of.source == source && of.id.is_some();
        let of = self.earlier(draws, index, 1, |of| suits(&self.identity(of)))?;
        Some(self.identity(of))
    }

    /// Looks within [`REACH`] for an earlier post that is whole and suits, among every `step`-th.
    fn earlier(&self, draws: &mut Draws, index: u64, step: u64, suits: impl Fn(u64) -> bool) -> Option<u64> {
        (0..TRIES).find_map(|_| {
            let back = 1 + draws.below(index.min(REACH));
            let of = index.checked_sub(back)? / step * step;
            (self.is_whole(of) && suits(of)).then_some(of)
        })
    }

    /// Whether a post is whole and one of its own: asked of posts that others refer to, so it must not look at further
    /// posts in turn.
    fn is_whole(&self, index: u64) -> bool {
        matches!(self.class(index).0, Class::Ordinary | Class::Long)
    }

    /// What a post would like to be, and the draws that are left to find what it refers to.
    fn class(&self, index: u64) -> (Class, Draws) {
        let mut draws = self.draws(Purpose::Kind, index);
        let shares = &self.config.shares;
        let mut bound = 0.0;
        let drawn = draws.unit();
        let classes = [
            (Class::Malformed, shares.malformed),
            (Class::WildClock, shares.wild_clock),
            (Class::Long, shares.long),
            (Class::Edit, shares.edit),
            (Class::Repost, shares.repost),
        ];
        let class = classes.into_iter().find_map(|(class, share)| {
            bound += share;
            (drawn < bound).then_some(class)
        });
        (class.unwrap_or(Class::Ordinary), draws)
    }

    /// A post reaches us up to two seconds after it was written.
    fn created_us(&self, index: u64) -> EventTime {
        let delay_us = self.draws(Purpose::Clock, index ^ (1 << 63)).below(2_000_000);
        self.arrival_us(index) - delay_us as EventTime
    }

    fn draws(&self, purpose: Purpose, index: u64) -> Draws {
        Draws::new(self.config.seed, purpose, index)
    }
}
