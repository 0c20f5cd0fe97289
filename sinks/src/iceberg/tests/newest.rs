//! The latest posts out of Silver, as its view shows them.

use undertone_error::ErrorKind;
use undertone_proto::v1::ScoredPost;
use uuid::Uuid;

use super::*;
use crate::chart::ChartQuery;

const DAY_US: i64 = 86_400_000_000;
/// 2026-09-21T00:00:00Z
const DAY: i64 = 1_789_948_800_000_000;

fn uid(n: u128) -> String {
    Uuid::from_u128(n).to_string()
}

fn post(n: u128, version: i64, created_at_us: i64) -> ScoredPost {
    ScoredPost {
        uid: uid(n),
        version,
        run: "live".to_owned(),
        source: "forum".to_owned(),
        id: format!("p{n}"),
        text: format!("{n} as {version}"),
        created_at_us,
        language: Some("eng".to_owned()),
        sentiment: Some("positive".to_owned()),
        polarity: Some(0.5),
        tags: vec!["Tea".to_owned()],
        ..ScoredPost::default()
    }
}

fn asked() -> ChartQuery {
    ChartQuery { from_us: DAY - 2 * DAY_US, until_us: DAY + DAY_US, ..ChartQuery::default() }
}

/// Each post in a commit of its own.
async fn write(home: &Home, posts: Vec<ScoredPost>) {
    let mut sink = home.store().silver();
    for (mut post, offset) in posts.into_iter().zip(0..) {
        post.origin = Some(partition(0).origin(offset));
        sink.write(&Epoch::of(partition(0), offset..offset + 1, vec![post])).await.unwrap();
    }
}

async fn texts(home: &Home, query: &ChartQuery, limit: usize) -> Vec<String> {
    let posts = home.store().reader().latest(query, limit).await.unwrap();
    posts.into_iter().map(|post| post.text).collect()
}

#[tokio::test]
async fn each_post_is_as_its_greatest_version_says() {
    let home = Home::new().await;
    assert!(texts(&home, &asked(), 9).await.is_empty(), "of a table without rows");
    let deleted = |post: ScoredPost| ScoredPost { deleted: true, text: String::new(), ..post };
    let late = |post: ScoredPost| ScoredPost { late: true, ..post };
    write(
        &home,
        vec![
            post(1, 1, DAY + 10),
            post(1, 2, DAY + 10),
            // What is heard later is not always newer.
            post(2, 5, DAY + 20),
            post(2, 4, DAY + 20),
            post(3, 1, DAY + 30),
            deleted(post(3, 2, DAY + 30)),
            // Edited and deleted after so long that the event is among the late ones.
            post(4, 1, DAY - DAY_US + 40),
            late(post(4, 2, DAY - DAY_US + 40)),
            post(5, 1, DAY - DAY_US + 50),
            late(deleted(post(5, 2, DAY - DAY_US + 50))),
            // Sent twice.
            post(6, 1, DAY - 60),
            post(6, 1, DAY - 60),
            ScoredPost { run: "again".to_owned(), ..post(6, 9, DAY - 60) },
            // It has lost the tag, the language and the label that it had, and moved within its day.
            post(7, 1, DAY + 70),
            ScoredPost { language: None, sentiment: None, polarity: None, tags: Vec::new(), ..post(7, 2, DAY + 75) },
            ScoredPost { source: "news".to_owned(), ..post(8, 1, DAY - 80) },
            post(9, 1, DAY + DAY_US),
            late(post(10, 1, DAY + 400 * DAY_US)),
        ],
    )
    .await;
    let all = ["7 as 2", "2 as 5", "1 as 2", "6 as 1", "8 as 1", "4 as 2"];
    for limit in 1..=all.len() + 1 {
        assert_eq!(texts(&home, &asked(), limit).await, all[..limit.min(all.len())], "{limit}");
    }
    let some = |text: &str| Some(text.to_owned());
    let without_7 = &all[1..];
    for (query, wanted) in [
        (ChartQuery { tag: some("tea"), ..asked() }, without_7),
        (ChartQuery { language: some("eng"), ..asked() }, without_7),
        (ChartQuery { label: some("positive"), ..asked() }, without_7),
        (ChartQuery { label: some("negative"), ..asked() }, &[]),
        (ChartQuery { source: some("news"), ..asked() }, &["8 as 1"]),
        // From is part of the time, until is not; 7 was posted within it only as it used to be.
        (ChartQuery { from_us: DAY + 10, until_us: DAY + 75, ..asked() }, &all[1..3]),
        (ChartQuery { from_us: DAY + 11, until_us: DAY + 76, ..asked() }, &all[..2]),
    ] {
        assert_eq!(texts(&home, &query, 9).await, wanted, "{query:?}");
    }
    let first = home.store().reader().latest(&asked(), 2).await.unwrap().remove(1);
    assert_eq!((first.uid, first.source.as_str(), first.id.as_str()), (uid(2), "forum", "p2"));
    assert_eq!((first.language.as_deref(), first.label.as_deref()), (Some("eng"), Some("positive")));
    assert_eq!((first.polarity, first.created_at_us, first.tags), (Some(0.5), DAY + 20, vec!["tea".to_owned()]));
    let long = ChartQuery { from_us: 0, ..asked() };
    assert_eq!(home.store().reader().latest(&long, 1).await.unwrap_err().kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn days_before_the_answer_are_not_opened() {
    let home = Home::new().await;
    write(&home, vec![post(1, 1, DAY - DAY_US), post(2, 1, DAY), post(3, 1, DAY + 1)]).await;
    std::fs::remove_dir_all(home.folder.path().join("warehouse/silver/posts/data/event_day=2026-09-20")).unwrap();
    assert_eq!(texts(&home, &asked(), 2).await, ["3 as 1", "2 as 1"]);
    home.store().reader().latest(&asked(), 3).await.unwrap_err();
}
