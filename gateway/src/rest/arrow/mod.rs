//! `POST /v1/score/arrow`: an Arrow IPC stream of texts in, an Arrow IPC stream of scores out, for whoever has a million.
//!
//! The guarantee: one row out for each row in, in order, with the columns of [`Table`]; what is wrong with one text stands
//! in its row. Memory is bounded whatever is sent: two slices of [`SLICE`] texts are scored at a time (on a GPU sixteen), the rest of the
//! stream waits in the sender's socket, and scores beyond some megabytes wait on disk. The answer begins when every row is
//! scored, so that its status is true, and so that a client which sends everything before it reads never stands still.

mod read;
mod spool;
mod write;

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use futures::{StreamExt, TryStreamExt, stream};
use undertone_inference::{Lane, ModelInfo};

use self::{read::Texts, spool::Spool, write::Table};
use super::{body, observe::Arrived};
use crate::{Gateway, access::Caller, errors::ProblemCode, problem::Problem, scoring::ManyTexts, telemetry};

/// Texts that are given to the core together.
const SLICE: usize = 256;

/// Slices that are scored at one time: as many texts as keep the workers busy while the next ones come.
fn at_a_time(model: &ModelInfo) -> usize {
    // A GPU's batch alone is larger than two slices.
    if model.device.starts_with("cuda") { 16 } else { 2 }
}

/// The media type of an Arrow IPC stream.
const STREAM: &str = "application/vnd.apache.arrow.stream";

/// Scores the rows of an Arrow IPC stream
///
/// The stream has a column `text` (utf8, large_utf8, utf8_view, or a dictionary of one), and may have a column `id` of any
/// type, which comes back. For each head a column of its name holds the label, and `HEAD_LABEL` each probability; then
/// `polarity`, `confidence`, `language`, `in_domain`, `tokens`, `truncated`, `embedding` if it was asked for, and `error`
/// and `error_detail`, which are null where the text was scored. Rows go through the bulk lane. `x-timeout-ms` may be up to
/// an hour here, which it is if it is left out.
#[utoipa::path(
    post,
    path = "/v1/score/arrow",
    tag = "scoring",
    operation_id = "score_arrow",
    params(
        body::Chosen,
        ("x-timeout-ms" = Option<u64>, Header, nullable = false, description = "deadline in milliseconds from the request's head"),
    ),
    request_body(content = Vec<u8>, content_type = "application/vnd.apache.arrow.stream",
                 description = "an Arrow IPC stream; record batches of at most 64 MiB"),
    responses(
        (status = 200, description = "one row for each row, in order", body = Vec<u8>,
         content_type = "application/vnd.apache.arrow.stream"),
        super::openapi::ScoringProblems,
    )
)]
pub(super) async fn score(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let model = gateway.scorer.model();
    let selection = body::Chosen::from_query(request.uri(), &model)?;
    let _admission = gateway.admit_bulk()?;
    check_type(request.headers())?;
    body::check_encoding(request.headers())?;
    let limits = &gateway.limits;
    let deadline = arrived + limits.granted_long(body::asked_timeout(request.headers())?);
    gateway.foresee(Lane::Bulk, deadline)?;

    let mut texts = Texts::new(request.into_body(), limits, deadline);
    // The first rows say what the others look like; a stream may also have none.
    let first = texts.next(SLICE).await?;
    let mut table = Table::new(&model, &selection, texts.id_field()?)?;
    let mut spool = Spool::default();
    spool.write(table.begin()?).await?;

    let rest = stream::try_unfold(texts, |mut texts| async move {
        Ok::<_, Problem>(texts.next(SLICE).await?.map(|slice| (slice, texts)))
    });
    let slices = stream::iter(first.map(Ok)).chain(rest);
    let (gateway, caller) = (&gateway, &caller);
    let scored = slices.map(|slice| async move {
        let slice = slice?;
        caller.charge(slice.texts.len());
        let count = slice.texts.len();
        let outcomes = gateway.score_slice(Lane::Bulk, slice.texts, deadline).await;
        telemetry::texts("arrow", count, &outcomes);
        Ok::<_, Problem>((slice.ids, outcomes?))
    });
    let mut scored = std::pin::pin!(scored.buffered(at_a_time(&model)));
    let mut traced = ManyTexts::begin(Lane::Bulk);
    while let Some((ids, outcomes)) = scored.try_next().await.inspect_err(|_| traced.failed())? {
        outcomes.iter().for_each(|outcome| traced.add(outcome));
        spool.write(table.rows(ids, outcomes)?).await?;
    }
    drop(traced);
    spool.write(table.end()?).await?;

    let (length, body) = spool.into_body().await?;
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(STREAM));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(answer)
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().trim_ascii());
    if given.is_some_and(|given| given.eq_ignore_ascii_case(STREAM.as_bytes())) {
        return Ok(());
    }
    let detail = format!("this path takes an Arrow IPC stream; set the header content-type: {STREAM}");
    Err(Problem::new(ProblemCode::UnsupportedMediaType, detail))
}

/// A fault that is ours: its cause goes to the log.
fn ours(doing: &str, error: impl std::fmt::Display) -> Problem {
    tracing::error!(%error, "cannot {doing}");
    Problem::failed()
}
