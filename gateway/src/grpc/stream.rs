//! `ScoreStream`: one text a message in, one answer a message out, while both go on.
//!
//! The guarantee: one answer for each message, in order. A caller that does not read its answers is not read from, and after
//! [`Limits::stall`](crate::Limits::stall) it has lost the stream. Answers that are cut off never look complete: the status
//! of the call says why.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use tokio::{
    sync::{
        mpsc::{Sender, channel},
        oneshot,
    },
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::Instrument;
use undertone_inference::ModelInfo;
use undertone_proto::v1::{ScoreStreamRequest, ScoreStreamResponse};

use super::{call::Call, messages};
use crate::{
    Gateway,
    api::Selection,
    errors::ProblemCode,
    problem::Problem,
    scoring::{select, too_long},
    streaming::{self, Answer, Entry, Terms},
    telemetry,
};

/// Answers on their way to the transport.
const ON_THEIR_WAY: usize = 16;

pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<ScoreStreamResponse, Status>> + Send>>;

pub(super) fn open(
    gateway: &Gateway,
    request: Request<Streaming<ScoreStreamRequest>>,
) -> Result<Response<Answers>, Status> {
    let (metadata, extensions, requests) = request.into_parts();
    let call = Call::new("undertone.v1.Scoring/ScoreStream", metadata, &extensions);
    begin(gateway, &call, requests).map(|answers| call.response(answers)).map_err(|problem| {
        call.ended(Some(&problem));
        call.status(&problem)
    })
}

fn begin(gateway: &Gateway, call: &Call, requests: Streaming<ScoreStreamRequest>) -> Result<Answers, Problem> {
    let admission = gateway.admit_stream()?;
    let terms = Terms {
        lane: streaming::lane(call.lane()?),
        deadline: call.deadline(|asked| gateway.limits.granted_long(asked)),
        face: "grpc-stream",
    };
    gateway.foresee(terms.lane, terms.deadline)?;
    let mut open = telemetry::OpenStream::new(terms.lane.name());
    let model = gateway.scorer.model();
    let entries =
        requests.map(move |message| message.map(|message| entry(message, &model)).map_err(|status| broken(&status)));
    let answers = streaming::answers(gateway, call.caller.clone(), terms, entries);

    let (sender, receiver) = channel(ON_THEIR_WAY);
    let (last, ended) = oneshot::channel();
    let (gateway, call, fallen) = (gateway.clone(), call.clone(), call.clone());
    let span = call.span.clone();
    let work = async move {
        let how = pump(answers, &sender, gateway.limits.stall).await;
        open.ended(&how);
        call.ended(how.as_ref().err());
        // Not through the channel, which may be full of what nobody reads.
        let _ = last.send(how.map_err(|problem| call.status(&problem)));
        drop((sender, open, admission));
    };
    tokio::spawn(work.instrument(span));

    let status = stream::once(async move { ended.await.unwrap_or_else(|_| Err(fallen.status(&Problem::failed()))) });
    let status = status.filter_map(|how| async { how.err().map(Err) });
    Ok(Box::pin(ReceiverStream::new(receiver).map(Ok).chain(status)))
}

/// What a message asks for; what is wrong with it is an answer of its own.
fn entry(message: ScoreStreamRequest, model: &ModelInfo) -> Entry<(String, Selection)> {
    let ScoreStreamRequest { item, heads, embedding } = message;
    let item = item.unwrap_or_default();
    if let Some(reason) = too_long(&item.id) {
        let problem = Problem::new(ProblemCode::InvalidInput, reason);
        return Entry { tag: (String::new(), Selection::default()), text: Err(problem) };
    }
    match select(heads, embedding, model, "/heads") {
        Ok(selection) => Entry { tag: (item.id, selection), text: Ok(item.text) },
        Err(problem) => Entry { tag: (item.id, Selection::default()), text: Err(problem) },
    }
}

fn answer(Answer { tag: (id, selection), outcome }: Answer<(String, Selection)>) -> ScoreStreamResponse {
    let model = outcome.as_ref().ok().map(|scored| messages::model(&scored.model));
    ScoreStreamResponse { result: Some(messages::score_result(id, outcome, &selection)), model }
}

/// Why messages cannot be read any further, in the words of the table of errors.
fn broken(status: &Status) -> Problem {
    match status.code() {
        Code::OutOfRange => Problem::new(ProblemCode::BodyTooLarge, "a message is over the limit; send a shorter text"),
        Code::Unimplemented => {
            Problem::new(ProblemCode::UnsupportedEncoding, "compressed messages are not read; send them as they are")
        }
        Code::Internal | Code::InvalidArgument => {
            Problem::new(ProblemCode::InvalidInput, "a message cannot be read as a ScoreStreamRequest")
        }
        _ => gone(),
    }
}

fn gone() -> Problem {
    Problem::new(ProblemCode::Cancelled, "the caller went away")
}

/// Carries answers to the transport, as fast as it takes them.
async fn pump(
    answers: impl Stream<Item = Result<Answer<(String, Selection)>, Problem>>,
    caller: &Sender<ScoreStreamResponse>,
    stall: Duration,
) -> Result<(), Problem> {
    let mut answers = pin!(answers);
    loop {
        let next = tokio::select! {
            next = answers.next() => next,
            () = caller.closed() => return Err(gone()),
        };
        let Some(next) = next else { return Ok(()) };
        match timeout(stall, caller.send(answer(next?))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(gone()),
            Err(_) => {
                let detail = "the answers were not read for too long; read while you send";
                return Err(Problem::new(ProblemCode::Cancelled, detail));
            }
        }
    }
}
