//! The loop against a source and a store in memory, which fail on demand.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use undertone_error::ErrorKind;
use undertone_proto::Partition;

use super::*;
use crate::Written;

fn partition() -> Partition {
    Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: 0 }
}

fn at(offset: i64) -> Positions {
    Positions::from([(partition(), offset)])
}

/// What a write does.
#[derive(Clone, Debug, PartialEq)]
enum Fault {
    None,
    /// Fails before anything happened.
    Before(ErrorKind),
    /// Happens, and fails all the same.
    After(ErrorKind),
    /// Another writer is faster by this many events.
    Faster(i64),
}

/// A store that keeps the contract, and hands out the faults in order.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<StoreState>>);

#[derive(Default)]
struct StoreState {
    rows: Vec<i64>,
    next: i64,
    epochs: Vec<(i64, i64)>,
    faults: VecDeque<Fault>,
}

impl Store {
    fn failing(faults: impl IntoIterator<Item = Fault>) -> Self {
        let store = Self::default();
        store.state().faults.extend(faults);
        store
    }

    fn state(&self) -> MutexGuard<'_, StoreState> {
        self.0.lock().unwrap()
    }
}

struct MemorySink {
    store: Store,
    stands: i64,
}

#[async_trait]
impl Sink for MemorySink {
    type Record = i64;

    fn name(&self) -> &str {
        "memory"
    }

    async fn positions(&mut self) -> Result<Positions> {
        self.stands = self.store.state().next;
        Ok(at(self.stands))
    }

    async fn write(&mut self, epoch: &Epoch<i64>) -> Result<Written> {
        let mut state = self.store.state();
        let range = epoch.ranges[&partition()].clone();
        let fault = state.faults.pop_front().unwrap_or(Fault::None);
        if let Fault::Before(kind) = fault {
            return Err(Error::new(kind, "store is ill"));
        }
        if let Fault::Faster(events) = fault {
            let faster = state.next..(state.next + events).min(range.end);
            state.rows.extend(faster.clone());
            state.next = faster.end;
        }
        if state.next != self.stands || range.start != state.next {
            return Err(Error::new(ErrorKind::Conflict, "another writer moved the position"));
        }
        state.rows.extend(&epoch.records);
        state.next = range.end;
        state.epochs.push((range.start, range.end));
        if let Fault::After(kind) = fault {
            return Err(Error::new(kind, "answer was lost"));
        }
        self.stands = state.next;
        Ok(Written { rows: epoch.records.len() as u64, positions: at(state.next) })
    }
}

/// Offsets as records; every fifth was a dead letter, so it has none. Appending is possible while it is read.
#[derive(Clone, Default)]
struct MemorySource(Arc<Mutex<i64>>);

impl MemorySource {
    fn of(events: i64) -> Self {
        Self(Arc::new(Mutex::new(events)))
    }
}

fn records(range: Range<i64>) -> Vec<i64> {
    range.filter(|offset| offset % 5 != 4).collect()
}

#[async_trait]
impl EpochSource for MemorySource {
    type Record = i64;

    async fn starts(&mut self) -> Result<Positions> {
        Ok(at(0))
    }

    async fn ends(&mut self) -> Result<Positions> {
        Ok(at(*self.0.lock().unwrap()))
    }

    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> Result<Batch<i64>> {
        let from = from[&partition()];
        let end = *self.0.lock().unwrap();
        if from >= end {
            tokio::time::sleep(limit.wait).await;
            return Ok(Batch::default());
        }
        let range = from..end.min(from + limit.events as i64);
        let bytes = (range.end - range.start) as usize * 10;
        Ok(Batch { epoch: Epoch::of(partition(), range.clone(), records(range)), bytes, ingested: Ingested::default() })
    }
}

fn quick() -> Policy {
    Policy {
        max_events: 10,
        max_age: Duration::from_millis(20),
        idle_wait: Duration::from_millis(5),
        retry_min: Duration::from_millis(1),
        retry_max: Duration::from_millis(4),
        ..Policy::default()
    }
}

fn pump(store: &Store, source: &MemorySource, policy: Policy) -> Pump<MemorySink, MemorySource> {
    Pump::new(MemorySink { store: store.clone(), stands: -1 }, source.clone(), policy)
}

fn finishing() -> Shutdown {
    let shutdown = Shutdown::default();
    shutdown.finish.cancel();
    shutdown
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn finishing_stores_everything_in_full_epochs_and_a_last_one() {
    let store = Store::default();
    let ends = pump(&store, &MemorySource::of(25), quick()).run(finishing()).await.expect("it finishes");
    assert_eq!(ends, at(25));
    assert_eq!(store.state().epochs, [(0, 10), (10, 20), (20, 25)]);
    assert_eq!(store.state().rows, records(0..25));
}

#[tokio::test]
async fn an_epoch_of_dead_letters_alone_moves_the_position() {
    let store = Store::default();
    store.state().next = 4;
    pump(&store, &MemorySource::of(5), quick()).run(finishing()).await.expect("it finishes");
    let state = store.state();
    assert_eq!((state.epochs.as_slice(), state.rows.len()), ([(4, 5)].as_slice(), 0));
}

#[tokio::test]
async fn a_running_pump_commits_an_epoch_that_is_old_though_not_full() {
    let (store, source, shutdown) = (Store::default(), MemorySource::of(3), Shutdown::default());
    let pump = pump(&store, &source, quick());
    let status = pump.status();
    let running = tokio::spawn(pump.run(shutdown.clone()));
    until("the first epoch is committed by age", || store.state().next == 3).await;
    *source.0.lock().unwrap() = 5;
    until("what is appended later too", || store.state().next == 5).await;
    until("the lag is level", || status.snapshot().lag_posts == 0).await;
    assert!(!status.snapshot().finished);
    shutdown.finish.cancel();
    assert_eq!(running.await.unwrap().expect("it finishes"), at(5));
    assert!(status.snapshot().finished);
}

#[tokio::test]
async fn stopping_commits_what_was_read_without_waiting_for_more() {
    let policy = Policy { max_age: Duration::from_secs(3600), idle_wait: Duration::from_secs(3600), ..quick() };
    let (store, shutdown) = (Store::default(), Shutdown::default());
    let pump = pump(&store, &MemorySource::of(3), policy);
    let status = pump.status();
    let running = tokio::spawn(pump.run(shutdown.clone()));
    until("it has read", || status.snapshot().lag_posts == 3).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    shutdown.stop.cancel();
    let ends = tokio::time::timeout(Duration::from_secs(20), running).await.expect("promptly").unwrap();
    assert_eq!((ends.expect("it stops"), store.state().next), (at(3), 3));
}

#[tokio::test]
async fn an_ill_store_is_waited_for_and_says_why() {
    let store = Store::failing(vec![Fault::Before(ErrorKind::Unavailable); 5]);
    store.state().faults.extend(vec![Fault::Before(ErrorKind::Exhausted); 1000]);
    let pump = pump(&store, &MemorySource::of(7), quick());
    let status = pump.status();
    let running = tokio::spawn(pump.run(finishing()));
    until("it waits", || status.snapshot().waiting.is_some_and(|waiting| waiting.reason == "store is ill")).await;
    assert_eq!((status.snapshot().lag_posts, store.state().rows.len()), (7, 0));
    store.state().faults.clear();
    running.await.unwrap().expect("it finishes once the store is well");
    assert_eq!(store.state().rows, records(0..7));
    assert_eq!(status.snapshot().waiting, None);
}

#[tokio::test]
async fn stopping_gives_an_ill_store_one_last_try() {
    let store = Store::failing(vec![Fault::Before(ErrorKind::Unavailable); 100_000]);
    let shutdown = Shutdown::default();
    let pump = pump(&store, &MemorySource::of(7), quick());
    let status = pump.status();
    let running = tokio::spawn(pump.run(shutdown.clone()));
    until("it waits", || status.snapshot().waiting.is_some()).await;
    shutdown.stop.cancel();
    let error = running.await.unwrap().expect_err("the epoch stays in the source");
    assert_eq!((error.kind(), store.state().next), (ErrorKind::Unavailable, 0));
}

#[tokio::test]
async fn a_faster_writer_makes_it_go_on_from_where_the_store_stands() {
    let store = Store::failing([Fault::Faster(3)]);
    pump(&store, &MemorySource::of(12), quick()).run(finishing()).await.expect("it finishes");
    assert_eq!(store.state().epochs, [(3, 12)]);
}

#[tokio::test]
async fn what_only_a_person_can_mend_stops_it_and_stays_readable() {
    let store = Store::failing([Fault::Before(ErrorKind::Corrupt)]);
    let pump = pump(&store, &MemorySource::of(7), quick());
    let status = pump.status();
    assert_eq!(pump.run(Shutdown::default()).await.expect_err("it stops").kind(), ErrorKind::Corrupt);
    assert_eq!(status.snapshot().stopped.as_deref(), Some("store is ill"));
}

/// A partition that another process serves: its end, and how far the store has it.
#[derive(Clone)]
struct Elsewhere {
    end: i64,
    stored: Arc<Mutex<Option<i64>>>,
}

fn elsewhere(offset: i64) -> Positions {
    Positions::from([(Partition { partition: 1, ..partition() }, offset)])
}

struct SharedSink(MemorySink, Elsewhere);
struct SharedSource(MemorySource, Elsewhere);

#[async_trait]
impl Sink for SharedSink {
    type Record = i64;

    fn name(&self) -> &str {
        self.0.name()
    }

    async fn positions(&mut self) -> Result<Positions> {
        self.0.positions().await
    }

    async fn others(&mut self, partitions: &Positions) -> Result<Positions> {
        assert_eq!(partitions, &elsewhere(self.1.end));
        Ok(self.1.stored.lock().unwrap().map(elsewhere).unwrap_or_default())
    }

    async fn write(&mut self, epoch: &Epoch<i64>) -> Result<Written> {
        self.0.write(epoch).await
    }
}

#[async_trait]
impl EpochSource for SharedSource {
    type Record = i64;

    async fn starts(&mut self) -> Result<Positions> {
        self.0.starts().await
    }

    async fn ends(&mut self) -> Result<Positions> {
        self.0.ends().await
    }

    async fn others(&mut self) -> Result<Positions> {
        Ok(elsewhere(self.1.end))
    }

    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> Result<Batch<i64>> {
        self.0.read(from, limit).await
    }
}

#[tokio::test]
async fn it_finishes_only_once_what_others_serve_is_stored_or_when_it_is_hurried() {
    for end in ["others are done", "stop", "hurry"] {
        let (store, shutdown) = (Store::default(), finishing());
        let other = Elsewhere { end: 7, stored: Arc::default() };
        let sink = SharedSink(MemorySink { store: store.clone(), stands: -1 }, other.clone());
        let pump = Pump::new(sink, SharedSource(MemorySource::of(12), other.clone()), quick());
        let status = pump.status();
        let running = tokio::spawn(pump.run(shutdown.clone()));
        let waits = || status.snapshot().waiting.is_some_and(|waiting| waiting.reason.contains("other processes"));
        for stored in [None, Some(6)] {
            *other.stored.lock().unwrap() = stored;
            until("it waits for the others", waits).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(waits() && !running.is_finished());
        }
        assert_eq!(store.state().next, 12);
        match end {
            "stop" => shutdown.stop.cancel(),
            "hurry" => shutdown.hurry.cancel(),
            _ => *other.stored.lock().unwrap() = Some(7),
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), running).await.expect("promptly").unwrap();
        assert_eq!((ended.expect("it ends"), status.snapshot().waiting), (at(12), None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_fails_every_record_is_stored_once(
        events in 0..80i64,
        max_events in 1..20u64,
        faults in prop::collection::vec(prop_oneof![
            Just(Fault::None),
            Just(Fault::Before(ErrorKind::Unavailable)),
            Just(Fault::After(ErrorKind::Unavailable)),
            Just(Fault::After(ErrorKind::DeadlineExceeded)),
        ], 0..20),
    ) {
        let store = Store::failing(faults);
        let (retry_min, retry_max) = (Duration::from_micros(10), Duration::from_micros(20));
        let policy = Policy { max_events, retry_min, retry_max, ..quick() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ends = runtime.block_on(pump(&store, &MemorySource::of(events), policy).run(finishing()));
        prop_assert_eq!(ends.expect("it finishes"), at(events));
        prop_assert_eq!(&store.state().rows, &records(0..events));
    }
}
