//! A scorer without a model, for tests: what it does with a text follows from the text.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1;

use super::scorer::{Scorer, Scores};

#[derive(Debug, Default)]
pub(crate) struct Fake {
    ill: AtomicU32,
    busy: AtomicU32,
    running: AtomicUsize,
    /// Its device is lost for good: nothing is scored any more.
    pub(crate) lost: AtomicBool,
    /// Calls that were told so.
    pub(crate) refused: AtomicU32,
    pub(crate) most_running: AtomicUsize,
    pub(crate) seen: Mutex<Vec<String>>,
}

impl Fake {
    /// Fails the next calls, whatever they ask.
    pub(crate) fn ill_for(&self, calls: u32) {
        self.ill.store(calls, Ordering::SeqCst);
    }

    fn score(&self, text: &str, company: usize) -> Result<Scores> {
        self.seen.lock().unwrap().push(text.to_owned());
        let error = |kind| Err(Error::new(kind, format!("fake: {text}")));
        match text.split(' ').next() {
            Some("panics") => panic!("fake: {text}"),
            Some("toolarge") => error(ErrorKind::TooLarge),
            Some("internal") => error(ErrorKind::Internal),
            Some("flaky") if company > 1 => error(ErrorKind::Internal),
            Some("busy") if self.busy.fetch_add(1, Ordering::SeqCst) < 2 => error(ErrorKind::Busy),
            Some("always") => error(ErrorKind::Busy),
            _ => Ok(Scores {
                model: model(),
                clean_text: text.to_uppercase(),
                tokens: text.len() as u32,
                ..Scores::default()
            }),
        }
    }
}

fn model() -> v1::Model {
    v1::Model { name: "fake".into(), revision: "0".into(), precision: "fp32".into() }
}

impl Scorer for Fake {
    async fn score_all(&self, texts: Vec<String>) -> Vec<Result<Scores>> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        // Unequal times, so that batches end in another order than they began.
        tokio::time::sleep(Duration::from_millis(texts.first().map_or(0, |text| text.len() as u64 % 7))).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        let ill = self.ill.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |ill| ill.checked_sub(1)).is_ok();
        let company = texts.len();
        if texts.iter().any(|text| text.starts_with("killer")) {
            self.lost.store(true, Ordering::SeqCst);
        }
        if self.lost.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return texts.iter().map(|_| Err(Error::new(ErrorKind::Unavailable, "fake: device is lost"))).collect();
        }
        texts
            .iter()
            .map(|text| if ill { Err(Error::new(ErrorKind::Internal, "fake: ill")) } else { self.score(text, company) })
            .collect()
    }
}
