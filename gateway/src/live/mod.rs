//! The live view: what the page shows, kept in bounded memory and rendered on demand.
//!
//! [`Live`] is a cheap handle that any stage may hold. Observing never waits for a reader: state stands behind a short
//! lock, and the overview is rendered at most once a second, however many readers `/v1/live` and `/v1/overview` have
//! together, and not at all while nobody asks.

mod broadcast;
mod overview;
mod rate;
mod state;
mod topics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use undertone_inference::ModelInfo;
use undertone_proto::v1::{DeadLetter, ScoredPost};

pub(crate) use broadcast::Broadcast;
pub use overview::{Dead, DeadPost, LatestPost, Overview, Rate, StageLag, TopicSeries, Topics, Totals};
use state::State;
pub(crate) use state::cut;
pub use topics::{TOPIC_BYTES, TOPICS_PER_BUCKET, TopicRow};

use crate::api::ModelRef;

/// Milliseconds since 1970-01-01T00:00:00Z.
type Clock = dyn Fn() -> i64 + Send + Sync;

/// The state behind the page. Clones share it.
#[derive(Clone)]
pub struct Live {
    state: Arc<Mutex<State>>,
    clock: Arc<Clock>,
}

impl Live {
    /// An empty view that shows this model.
    pub fn new(model: &ModelInfo) -> Self {
        Self::with_clock(model, || jiff::Timestamp::now().as_millisecond())
    }

    /// An empty view with a clock of its own, in milliseconds since 1970-01-01T00:00:00Z.
    pub fn with_clock(model: &ModelInfo, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        let state = State::new(ModelRef::from(model), clock());
        Self { state: Arc::new(Mutex::new(state)), clock: Arc::new(clock) }
    }

    /// Shows another model from now on.
    pub fn set_model(&self, model: &ModelInfo) {
        self.state().set_model(ModelRef::from(model));
    }

    /// Counts events that were taken in.
    pub fn observe_events(&self, count: u64) {
        self.state().events(count);
    }

    /// Takes in a post that was scored, a tombstone included.
    pub fn observe_scored(&self, post: &ScoredPost) {
        let now_ms = (self.clock)();
        let dropped = self.state().scored(post, now_ms);
        if dropped > 0 {
            metrics::counter!("undertone_live_topics_dropped_total").increment(dropped);
        }
    }

    /// Takes in a post that was scored before this process began, so that there is something to show. Oldest first.
    pub fn seed_scored(&self, post: &ScoredPost) {
        let now_ms = (self.clock)();
        self.state().seeded(post, now_ms);
    }

    /// Takes in a dead letter.
    pub fn observe_dead(&self, letter: &DeadLetter) {
        let now_ms = (self.clock)();
        self.state().dead(letter, now_ms);
    }

    /// Replaces what is known about how far the stages are behind.
    pub fn set_lag(&self, lag: Vec<StageLag>) {
        self.state().lag(lag);
    }

    /// Fills the plot from the table of tags per minute, once after a start and before posts are observed: rows add to
    /// what is there.
    pub fn seed_topics(&self, rows: impl IntoIterator<Item = TopicRow>) {
        self.state().seed_topics(rows);
    }

    /// Replaces the totals, so that they can go on from what the tables hold.
    pub fn seed_totals(&self, totals: Totals) {
        self.state().seed_totals(totals);
    }

    /// Everything the page shows, now. Only [`Broadcast`] asks, which bounds how often.
    pub(crate) fn overview(&self) -> Overview {
        let now_ms = (self.clock)();
        self.state().overview(now_ms)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The counts of a thread that panicked are still counts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
