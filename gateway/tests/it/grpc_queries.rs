//! Queries over gRPC: the codes of REST's, deadlines, and what is asked and answered.

use std::time::Duration;

use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt;
use undertone_gateway::Limits;
use undertone_proto::v1::{
    LatestRequest, PostFilter, SearchRequest, SeriesRequest, SimilarRequest, TagsRequest,
    queries_client::QueriesClient, similar_request::Like,
};
use uuid::Uuid;

use crate::support::{FakeStore, Served, serve, small};

async fn client(served: &Served) -> QueriesClient<Channel> {
    let uri = format!("http://{}", served.grpc);
    QueriesClient::new(Channel::from_shared(uri).expect("a uri").connect().await.expect("connects"))
}

fn code(status: &Status) -> (Code, &str) {
    (status.code(), status.metadata().get("problem-code").map_or("", |code| code.to_str().expect("ascii")))
}

fn of(source: &str) -> Option<PostFilter> {
    Some(PostFilter { source: Some(source.to_owned()), ..PostFilter::default() })
}

/// The status of each question, asked with a deadline.
async fn refusals(served: &Served, source: &str) -> Vec<Status> {
    let mut client = client(served).await;
    fn soon<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("grpc-timeout", "300m".parse().expect("a value"));
        request
    }
    let (filter, q) = (of(source), "tea".to_owned());
    let like = Some(Like::Text("tea".to_owned()));
    vec![
        client.series(soon(SeriesRequest { filter: filter.clone(), ..Default::default() })).await.expect_err("series"),
        client.tags(soon(TagsRequest { filter: filter.clone(), ..Default::default() })).await.expect_err("tags"),
        client.latest(soon(LatestRequest { filter: filter.clone(), ..Default::default() })).await.expect_err("latest"),
        client
            .search(soon(SearchRequest { q, filter: filter.clone(), ..Default::default() }))
            .await
            .expect_err("search"),
        client.similar(soon(SimilarRequest { like, filter, ..Default::default() })).await.expect_err("similar"),
    ]
}

#[tokio::test]
async fn a_store_that_is_not_there_down_or_slow_has_the_code_that_rest_gives_it() {
    let without = serve(|builder| builder).await;
    for status in refusals(&without, "forum").await {
        assert_eq!(code(&status), (Code::NotFound, "store-not-configured"), "{status:?}");
    }
    let served = serve(|builder| builder.queries(FakeStore::queries())).await;
    for (source, wanted) in [
        ("down", (Code::Unavailable, "unavailable")),
        ("stuck", (Code::DeadlineExceeded, "deadline-exceeded")),
        ("wide", (Code::InvalidArgument, "too-large")),
        ("", (Code::InvalidArgument, "invalid-input")),
    ] {
        for status in refusals(&served, source).await {
            assert_eq!(code(&status), wanted, "{status:?}");
            assert_eq!(status.metadata().contains_key("retry-after"), source == "down");
            assert_eq!(status.get_details_retry_info().is_some(), source == "down");
            assert!(!status.message().contains("hunter2"), "{status:?}");
            let details = format!("{:?}", status.get_error_details());
            assert!(!details.contains("hunter2"), "{details}");
            let named = status.get_details_bad_request().map(|bad| bad.field_violations[0].field.clone());
            assert_eq!(named.as_deref(), source.is_empty().then_some("filter.source"));
        }
    }
}

#[tokio::test]
async fn what_is_asked_reaches_the_store_and_its_answer_the_caller() {
    let served = serve(|builder| builder.queries(FakeStore::queries())).await;
    let mut client = client(&served).await;
    let to_us = Some(1_777_636_800_000_000);
    let filter = Some(PostFilter { tag: Some("#Tea".to_owned()), ..PostFilter::default() });
    let series = SeriesRequest { window: 2, to_us, filter, ..SeriesRequest::default() };
    let series = client.series(series).await.expect("an answer").into_inner();
    assert_eq!((series.store.as_str(), series.window, series.to_us), ("fakestore", 2, 1_777_636_800_000_000));
    assert_eq!(series.to_us - series.from_us, 24 * 3_600_000_000);
    assert!(series.points[0].label.as_deref().is_some_and(|asked| asked.contains("tag: Some(\"tea\")")));
    let tags = client.tags(TagsRequest { limit: Some(7), ..TagsRequest::default() }).await.expect("an answer");
    assert_eq!(tags.into_inner().tags[0].posts, 7);

    let like = Some(Like::Text("café".to_owned()));
    let similar = SimilarRequest { like, limit: Some(3), ..SimilarRequest::default() };
    let similar = client.similar(similar).await.expect("an answer").into_inner();
    let post = similar.neighbours[0].post.as_ref().expect("a post");
    assert!(post.author.as_deref().is_some_and(|asked| asked.contains("[0.5, -0.5, 0.25, 5.0]")), "{post:?}");
    assert_eq!((post.text.chars().count(), post.language.as_ref()), (2001, None));
    for (message, wanted) in [
        (SimilarRequest::default(), Code::InvalidArgument),
        (SimilarRequest { like: Some(Like::Uid("p1".to_owned())), ..Default::default() }, Code::InvalidArgument),
        (SimilarRequest { like: Some(Like::Uid(Uuid::nil().to_string())), ..Default::default() }, Code::NotFound),
        (SimilarRequest { like: Some(Like::Text("x".repeat(101))), ..Default::default() }, Code::InvalidArgument),
    ] {
        assert_eq!(client.similar(message).await.expect_err("a status").code(), wanted);
    }
    let wrong = [
        (SeriesRequest { window: 9, ..SeriesRequest::default() }, "window"),
        (SeriesRequest { to_us: Some(i64::MAX), ..SeriesRequest::default() }, "to_us"),
        (SeriesRequest { from_us: Some(0), ..SeriesRequest::default() }, "from_us"),
    ];
    for (message, field) in wrong {
        let status = client.series(message).await.expect_err("a status");
        assert_eq!(code(&status), (Code::InvalidArgument, "invalid-input"));
        let bad = status.get_details_bad_request().expect("a field");
        assert_eq!(bad.field_violations[0].field, field, "named as the message names it");
    }
}

#[tokio::test]
async fn both_doors_share_the_room_for_queries() {
    let limits = Limits { query_calls: 1, ..small() };
    let served = serve(|builder| builder.limits(limits).queries(FakeStore::queries())).await;
    let mut held = client(&served).await;
    let stuck = tokio::spawn(async move {
        let mut request = Request::new(TagsRequest { filter: of("stuck"), ..TagsRequest::default() });
        request.set_timeout(Duration::from_secs(2));
        held.tags(request).await
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let over_rest = crate::support::get(&served.gateway.router(), "/v1/query/series").await;
    assert_eq!((over_rest.status.as_u16(), over_rest.problem().as_str()), (429, "queue-full"));
    let status = client(&served).await.series(SeriesRequest::default()).await.expect_err("a status");
    assert_eq!(code(&status), (Code::ResourceExhausted, "queue-full"));
    assert_eq!(stuck.await.expect("joins").expect_err("a status").code(), Code::DeadlineExceeded);
}
