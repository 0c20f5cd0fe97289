//! History is read back by origin, and a run's positions are its own.

use undertone_error::ErrorKind;
use undertone_proto::v1::ScoredPost;

use super::*;
use crate::iceberg::{RunName, Track};

const ALWAYS: std::ops::Range<i64> = i64::MIN..i64::MAX;

fn offsets(events: &[Event]) -> Vec<i64> {
    events.iter().map(|event| event.origin.offset).collect()
}

fn scored(offset: i64, run: &str) -> ScoredPost {
    ScoredPost {
        origin: Some(partition(0).origin(offset)),
        uid: format!("u{offset}"),
        run: run.to_owned(),
        source: "test".to_owned(),
        created_at_us: 1_790_000_000_000_000 + offset,
        sentiment: Some("neutral".to_owned()),
        polarity: (offset % 2 == 0).then_some(0.25),
        tags: vec!["tea".to_owned()],
        late: offset == 3,
        ..ScoredPost::default()
    }
}

#[tokio::test]
async fn events_come_back_by_origin_and_gaps_are_passed_over() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    for (number, from, to) in [(0, 100, 110), (1, 0, 5), (0, 110, 120), (0, 120, 121)] {
        sink.write(&epoch(number, from, to)).await.unwrap();
    }
    // Offsets of which nothing is left: transaction markers, say.
    sink.write(&Epoch::of(partition(0), 121..500, vec![])).await.unwrap();
    sink.write(&epoch(0, 500, 503)).await.unwrap();

    let history = home.store().bronze_history(ALWAYS).await.unwrap();
    assert_eq!(history.ends().values().copied().collect::<Vec<_>>(), [503, 5]);
    let next = |number, at| history.next(&partition(number), at);
    assert_eq!((next(0, 0), next(0, 115), next(0, 121), next(0, 503), next(1, 0)), (100, 115, 500, 503, 0));
    let events = history.events(&partition(0), 105..501).await.unwrap();
    assert_eq!(offsets(&events), (105..121).chain(500..501).collect::<Vec<_>>());
    assert_eq!(events[0], event(0, 105));
    assert_eq!(offsets(&history.events(&partition(1), 0..999).await.unwrap()), [0, 1, 2, 3, 4]);
    assert!(history.events(&partition(1), 7..7).await.unwrap().is_empty());

    // By the time of their ingestion, an hour apart.
    let time = |offset| event(0, offset).ingested_at_us;
    let some = home.store().bronze_history(time(103)..time(112)).await.unwrap();
    assert_eq!(offsets(&some.events(&partition(0), 0..999).await.unwrap()), (103..112).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_run_has_rows_and_positions_of_its_own() {
    let home = Home::new().await;
    let run = RunName::new("better").unwrap();
    let mut live = home.store().silver();
    let mut again = home.store().silver().on(Track::Run(run.clone()));
    let posts = |range: std::ops::Range<i64>, run| range.map(|offset| scored(offset, run)).collect();
    live.write(&Epoch::of(partition(0), 0..6, posts(0..6, "live"))).await.unwrap();
    assert!(again.positions().await.unwrap().is_empty());
    again.write(&Epoch::of(partition(0), 0..4, posts(0..4, "better"))).await.unwrap();
    live.write(&Epoch::of(partition(0), 6..8, posts(6..8, "live"))).await.unwrap();
    assert_eq!(again.positions().await.unwrap()[&partition(0)], 4);
    assert_eq!(live.positions().await.unwrap()[&partition(0)], 8);
    let mut twice = home.store().silver().on(Track::Run(run.clone()));
    let refused = twice.write(&Epoch::of(partition(0), 0..4, posts(0..4, "better"))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);

    let history = home.store().silver_history(&run).await.unwrap();
    assert_eq!((history.count().await.unwrap(), history.ends()[&partition(0)]), (4, 4));
    let found = history.posts(&partition(0), 1..99).await.unwrap();
    let wanted: Vec<ScoredPost> = (1..4).map(|offset| scored(offset, "better")).collect();
    for grain in [crate::iceberg::Grain::Minute, crate::iceberg::Grain::Hour] {
        use crate::iceberg::tables::aggregate::{by_sentiment, by_tag};
        assert_eq!(by_sentiment(grain, &found), by_sentiment(grain, &wanted));
        assert_eq!(by_tag(grain, &found), by_tag(grain, &wanted));
    }
}

#[tokio::test]
async fn a_run_stays_what_it_was_begun_as() {
    let home = Home::new().await;
    let run = RunName::new("better").unwrap();
    for _ in 0..2 {
        home.store().define_run(&run, "one model").await.unwrap();
    }
    let error = home.store().define_run(&run, "another model").await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("one model"), "{error}");
}
