//! What is written reads back, column by column.

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, StructArray};
use undertone_proto::v1::{Entities, HeadScores, Model, Probability, ScoredPost};

use super::*;
use crate::iceberg::Grain;

const DAY_US: i64 = 86_400_000_000;
/// 2026-09-21T13:46:40Z
const T0: i64 = 1_790_000_000_000_000;

fn head(name: &str, probabilities: &[(&str, f32)]) -> HeadScores {
    let probabilities = probabilities.iter().map(|&(label, value)| Probability { label: label.to_owned(), value });
    HeadScores { head: name.to_owned(), label: "positive".to_owned(), probabilities: probabilities.collect() }
}

pub(super) fn post(offset: i64, created_at_us: i64) -> ScoredPost {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    ScoredPost {
        origin: Some(partition(0).origin(offset)),
        uid: format!("uid-{offset}"),
        version: 7,
        run: "live".to_owned(),
        source: "reddit".to_owned(),
        id: format!("id-{offset}"),
        text: "Tea! #Brew".to_owned(),
        clean_text: "tea! #brew".to_owned(),
        created_at_us,
        author: Some("ann".to_owned()),
        language: Some("eng".to_owned()),
        in_domain: Some(true),
        metrics: [("shares".to_owned(), 2.0), ("likes".to_owned(), 3.5)].into(),
        tags: texts(&["Tea"]),
        entities: Some(Entities { hashtags: texts(&["brew"]), emoji: texts(&["🍵", "✨"]), ..Entities::default() }),
        heads: vec![head("sentiment", &[("negative", 0.1), ("positive", 0.9)]), head("irony", &[("irony", 0.2)])],
        sentiment: Some("positive".to_owned()),
        polarity: Some(0.8),
        confidence: Some(0.9),
        embedding: vec![0.5, -0.25, 0.0],
        tokens: 6,
        model: Some(Model { name: "m".to_owned(), revision: "r".to_owned(), precision: "fp32".to_owned() }),
        ingested_at_us: T0,
        scored_at_us: T0 + 1,
        ..ScoredPost::default()
    }
}

fn tombstone(offset: i64) -> ScoredPost {
    ScoredPost {
        origin: Some(partition(0).origin(offset)),
        run: "live".to_owned(),
        deleted: true,
        created_at_us: T0,
        ..ScoredPost::default()
    }
}

fn late(offset: i64) -> ScoredPost {
    ScoredPost {
        late: true,
        sentiment: Some("negative".to_owned()),
        polarity: None,
        ..post(offset, 253_402_300_799_000_000)
    }
}

async fn write(mut sink: IcebergSink<ScoredPost>, posts: Vec<ScoredPost>) -> u64 {
    let range = 0..posts.len() as i64;
    sink.write(&Epoch::of(partition(0), range, posts)).await.unwrap().rows
}

#[tokio::test]
async fn silver_keeps_every_column_of_a_post() {
    let home = Home::new().await;
    write(home.store().silver(), vec![post(0, T0)]).await;
    let [batch] = home.scan("silver", "posts").await.try_into().unwrap();
    let column = |name: &str| batch.column_by_name(name).unwrap().clone();
    let text = |name: &str| column(name).as_string::<i32>().value(0).to_owned();
    let texts = |name: &str| {
        let list = column(name).as_list::<i32>().value(0);
        list.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>()
    };

    let wanted = [
        ("cluster", "c"),
        ("topic", "t"),
        ("uid", "uid-0"),
        ("run", "live"),
        ("source", "reddit"),
        ("id", "id-0"),
        ("text", "Tea! #Brew"),
        ("clean_text", "tea! #brew"),
        ("author", "ann"),
        ("language", "eng"),
        ("sentiment", "positive"),
        ("model_name", "m"),
        ("model_revision", "r"),
        ("model_precision", "fp32"),
    ];
    for (name, value) in wanted {
        assert_eq!(text(name), value, "{name}");
    }
    let wanted: [(&str, &[&str]); 6] = [
        ("tags", &["Tea"]),
        ("hashtags", &["brew"]),
        ("topics", &["tea", "brew"]),
        ("emoji", &["🍵", "✨"]),
        ("urls", &[]),
        ("mentions", &[]),
    ];
    for (name, value) in wanted {
        assert_eq!(texts(name), value, "{name}");
    }
    for name in ["edited_at", "url", "reply_to", "declared_language", "extra_json"] {
        assert!(column(name).is_null(0), "{name}");
    }
    for (name, value) in [("created_at", T0), ("ingested_at", T0), ("scored_at", T0 + 1)] {
        assert_eq!(column(name).as_primitive::<TimestampMicrosecondType>().value(0), value, "{name}");
    }
    assert_eq!(column("event_day").as_primitive::<Date32Type>().value(0) as i64, T0 / DAY_US);
    assert_eq!(
        (column("version").as_primitive::<Int64Type>().value(0), column("tokens").as_primitive::<Int32Type>().value(0)),
        (7, 6)
    );
    assert_eq!(column("polarity").as_primitive::<Float64Type>().value(0), 0.8);
    assert_eq!(column("confidence").as_primitive::<Float32Type>().value(0), 0.9);
    let flags = ["deleted", "late", "truncated"].map(|name| column(name).as_boolean().value(0));
    assert_eq!(flags, [false; 3]);
    assert!(column("in_domain").as_boolean().value(0));
    let embedding = column("embedding").as_list::<i32>().value(0);
    assert_eq!(embedding.as_primitive::<Float32Type>().values(), &[0.5, -0.25, 0.0]);

    let keys = |entries: &StructArray| {
        entries.column(0).as_string::<i32>().iter().map(|key| key.unwrap().to_owned()).collect::<Vec<_>>()
    };
    let metrics = column("metrics").as_map().value(0);
    assert_eq!(keys(&metrics), ["likes", "shares"]);
    assert_eq!(metrics.column(1).as_primitive::<Float64Type>().values(), &[3.5, 2.0]);
    let heads = column("heads").as_map().value(0);
    assert_eq!(keys(&heads), ["sentiment", "irony"]);
    let sentiment = heads.column(1).as_map().value(0);
    assert_eq!(keys(&sentiment), ["negative", "positive"]);
    assert_eq!(sentiment.column(1).as_primitive::<Float32Type>().values(), &[0.1, 0.9]);
}

#[tokio::test]
async fn silver_partitions_by_day_and_run_and_wild_clocks_share_one_partition() {
    let home = Home::new().await;
    let another_run = ScoredPost { run: "rescore-1".to_owned(), ..post(3, T0) };
    write(home.store().silver(), vec![late(0), post(1, T0 + DAY_US), post(2, T0), another_run, tombstone(4), late(5)])
        .await;
    let warehouse = home.folder.path().join("warehouse/silver/posts/data");
    let mut folders = Vec::new();
    for day in std::fs::read_dir(warehouse).unwrap().map(Result::unwrap) {
        for run in std::fs::read_dir(day.path()).unwrap().map(Result::unwrap) {
            folders.push(format!("{}/{}", day.file_name().to_str().unwrap(), run.file_name().to_str().unwrap()));
        }
    }
    folders.sort();
    assert_eq!(
        folders,
        [
            "event_day=2026-09-21/run=live",
            "event_day=2026-09-21/run=rescore-1",
            "event_day=2026-09-22/run=live",
            "event_day=null/run=live"
        ]
    );
    let rows: usize = home.scan("silver", "posts").await.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 6);
}

#[tokio::test]
async fn files_are_sorted_by_time() {
    let home = Home::new().await;
    write(home.store().silver(), (0..40).map(|n| post(n, T0 + (n * 17 % 40) * 1_000_000)).collect()).await;
    let [batch] = home.scan("silver", "posts").await.try_into().unwrap();
    let times =
        batch.column_by_name("created_at").unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec();
    assert!(times.is_sorted());
}

#[tokio::test]
async fn bronze_keeps_bytes_that_nobody_can_read() {
    let home = Home::new().await;
    let payloads: [&[u8]; 3] = [b"\xff\x00\xfe", b"", b"{\"text\":\"tea\"}"];
    let events =
        payloads.iter().zip(0..).map(|(payload, offset)| Event { payload: payload.to_vec(), ..event(0, offset) });
    home.bronze().write(&Epoch::of(partition(0), 0..3, events.collect())).await.unwrap();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for batch in home.scan("bronze", "posts").await {
        let column = batch.column_by_name("payload").unwrap().as_binary::<i64>();
        found.extend(column.iter().map(|payload| payload.unwrap().to_vec()));
    }
    found.sort();
    assert_eq!(found, [payloads[1].to_vec(), payloads[2].to_vec(), payloads[0].to_vec()]);
}

#[tokio::test]
async fn gold_counts_what_silver_holds_and_the_reader_sums_it() {
    let home = Home::new().await;
    let store = home.store();
    let posts = vec![post(0, T0), post(1, T0 + 1), tombstone(2), late(3), post(4, T0 + 90_000_000)];
    for grain in [Grain::Minute, Grain::Hour] {
        write(store.gold_sentiment(grain), posts.clone()).await;
        write(store.gold_tags(grain), posts.clone()).await;
    }
    let mut again = store.gold_tags(Grain::Minute);
    again.write(&Epoch::of(partition(0), 5..6, vec![post(5, T0 + 2)])).await.unwrap();

    let labels = store.reader().label_counts().await.unwrap();
    assert_eq!(
        labels.into_iter().collect::<Vec<_>>(),
        [(Some("negative".to_owned()), 1), (Some("positive".to_owned()), 3)]
    );

    let minute = T0 - T0.rem_euclid(60_000_000);
    let moods = store.reader().tag_mood(minute).await.unwrap();
    let brief: Vec<_> = moods
        .iter()
        .map(|mood| ((mood.window_start_us - minute) / 60_000_000, mood.tag.as_str(), mood.posts))
        .collect();
    assert_eq!(brief, [(0, "brew", 3), (0, "tea", 3), (1, "brew", 1), (1, "tea", 1)]);
    assert!((moods[0].polarity_sum - 2.4).abs() < 1e-9 && moods[0].polarity_posts == 3);
    assert_eq!(store.reader().tag_mood(minute + 60_000_000).await.unwrap().len(), 2);
}

#[tokio::test]
async fn labels_since_a_moment_are_counted_without_the_files_of_earlier_days() {
    let home = Home::new().await;
    let mut sink = home.store().gold_sentiment(Grain::Hour);
    for (offset, posts) in [post(0, T0 - 2 * DAY_US), post(1, T0), late(2), post(3, T0 + 1)].into_iter().enumerate() {
        let offset = offset as i64;
        sink.write(&Epoch::of(partition(0), offset..offset + 1, vec![posts])).await.unwrap();
    }
    let reader = home.store().reader();
    let positive = |posts| std::collections::BTreeMap::from([(Some("positive".to_owned()), posts)]);
    let hour = T0 - T0.rem_euclid(3_600_000_000);
    assert_eq!(reader.label_counts_since(hour - 3 * DAY_US).await.unwrap(), positive(3));

    std::fs::remove_dir_all(home.folder.path().join("warehouse/gold/sentiment_1h/data/event_day=2026-09-19")).unwrap();
    assert_eq!(reader.label_counts_since(hour).await.unwrap(), positive(2));
    assert!(reader.label_counts_since(hour + 1).await.unwrap().is_empty());
    reader.label_counts().await.unwrap_err();
}

#[tokio::test]
async fn reading_tables_without_rows_gives_nothing() {
    let home = Home::new().await;
    let reader = home.store().reader();
    assert!(reader.tag_mood(0).await.unwrap().is_empty());
    assert!(reader.label_counts().await.unwrap().is_empty());
    assert_eq!(reader.row_count("silver", "posts").await.unwrap(), 0);
}

#[tokio::test]
async fn bronze_keeps_what_a_record_carried_beside_its_bytes() {
    let home = Home::new().await;
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    let headers = vec![header("trace", Some(b"\xffa")), header("trace", None), header("", Some(b""))];
    let carried = Envelope { key: Some(b"k".to_vec()), headers };
    let events = vec![Event { envelope: carried, ..event(0, 0) }, event(0, 1)];
    home.bronze().write(&Epoch::of(partition(0), 0..2, events)).await.unwrap();
    let [batch] = home.scan("bronze", "posts").await.try_into().unwrap();
    let keys = batch.column_by_name("key").unwrap().as_binary::<i64>();
    assert_eq!(keys.iter().collect::<Vec<_>>(), [Some(b"k".as_slice()), None]);
    let headers = batch.column_by_name("headers").unwrap().as_list::<i32>();
    assert!(headers.is_null(1), "none is null");
    let first = headers.value(0);
    let (names, values) =
        (first.as_struct().column(0).as_string::<i32>(), first.as_struct().column(1).as_binary::<i64>());
    assert_eq!(names.iter().collect::<Vec<_>>(), [Some("trace"), Some("trace"), Some("")]);
    assert_eq!(values.iter().collect::<Vec<_>>(), [Some(b"\xffa".as_slice()), None, Some(b"".as_slice())]);
}
