//! Who may call, and how much.
//!
//! The guarantee: with keys set, nothing is answered without one but `/livez`, `/readyz` (without its reasons) and gRPC's
//! health service; the same for both doors. A key that was sent is compared by its hash in constant time, and stands
//! nowhere: not in a log, an answer, or a metric. Its name does. Rates are kept in texts, not calls, so that a call of a
//! thousand costs a thousand.

mod cors;
mod credentials;
mod keys;
mod rate;
mod signature;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::{IntoResponse, Response},
};

pub use self::cors::Cors;
pub(crate) use self::cors::share;
pub use self::keys::{Key, Keys, Rate};
pub use self::signature::SigningSecret;
use crate::{Gateway, errors::ProblemCode, problem::Problem};

/// Who is calling: a key's holder, or anybody where there are no keys. In the extensions of every request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    key: Option<Arc<Key>>,
    /// Whether the caller may see everything: it has a key, or there are none.
    pub(crate) known: bool,
}

impl Caller {
    /// The key's name for logs.
    pub(crate) fn name(&self) -> &str {
        self.key.as_ref().map_or("", |key| key.name())
    }

    /// Takes the first text's share of the caller's rate.
    ///
    /// # Errors
    /// `rate-limited`, saying when there is room again.
    pub(crate) fn take(&self) -> Result<(), Problem> {
        self.take_or_wait().map_err(|wait| {
            let seconds = wait.as_secs_f64().ceil().clamp(1.0, 86_400.0) as u32;
            let per_second = self.key.as_ref().map_or(f64::INFINITY, |key| key.per_second());
            let detail = format!("this key may send {per_second} texts a second; wait {seconds} s");
            Problem::new(ProblemCode::RateLimited, detail).retry_after(seconds)
        })
    }

    /// Takes one text's share of the caller's rate, or says how long it is until there is room for it.
    pub(crate) fn take_or_wait(&self) -> Result<(), Duration> {
        self.key.as_ref().map_or(Ok(()), |key| key.take())
    }

    /// Charges a call that was let in for the texts after its first one. It is answered all the same: later calls wait.
    pub(crate) fn charge(&self, texts: usize) {
        if let Some(key) = &self.key {
            key.charge(texts.saturating_sub(1));
        }
    }
}

/// Where posts are taken in.
const POSTS: &str = "/v1/posts";

/// What a path asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing: probes of whoever runs the process have no key.
    Nothing,
    /// A key, if there are any.
    Key,
    /// A key, and a share of its rate.
    Rate,
}

fn need(path: &str) -> Need {
    match path {
        "/livez" | "/readyz" => Need::Nothing,
        _ if path.starts_with("/grpc.health.v1.Health/") => Need::Nothing,
        // What only looks costs next to nothing, and the page asks for it again and again.
        "/v1/models" | "/v1/overview" | "/v1/live" => Need::Key,
        _ if path.starts_with("/v1/models/") => Need::Key,
        "/undertone.v1.Scoring/ListModels" | "/undertone.v1.Scoring/GetModel" => Need::Key,
        "/predict" | "/embed" => Need::Rate,
        _ if path.starts_with("/v1/") || path.starts_with("/undertone.v1.") => Need::Rate,
        _ => Need::Key,
    }
}

/// Whether a path asks for a key, where there are keys.
pub(crate) fn wants_key(path: &str) -> bool {
    need(path) != Need::Nothing
}

/// Whether a call of a path counts against its key's rate.
pub(crate) fn takes_rate(path: &str) -> bool {
    need(path) == Need::Rate
}

impl Gateway {
    /// Who sends this, if it may send it.
    ///
    /// # Errors
    /// `unauthenticated` or `rate-limited`.
    pub(crate) fn caller(&self, path: &str, headers: &HeaderMap) -> Result<Caller, Problem> {
        let signed = path == POSTS && self.ingest.as_ref().is_some_and(|ingest| ingest.secret.is_some());
        // Whoever signs needs no key; the signature is looked at with the body.
        let need = if signed { Need::Nothing } else { need(path) };
        if self.keys.is_empty() {
            return Ok(Caller { key: None, known: true });
        }
        let sent = credentials::sent(headers);
        let caller = match sent.as_deref().map(|sent| self.keys.find(sent)) {
            Some(Some(key)) => Caller { key: Some(key), known: true },
            _ if need == Need::Nothing => Caller::default(),
            Some(None) => {
                let detail = "the key is not one of this server's; ask whoever runs it for another";
                return Err(Problem::new(ProblemCode::Unauthenticated, detail));
            }
            None => {
                let detail = "this server wants a key; send it as authorization: Bearer KEY, or as x-api-key: KEY";
                return Err(Problem::new(ProblemCode::Unauthenticated, detail));
            }
        };
        if need == Need::Rate {
            caller.take()?;
        }
        Ok(caller)
    }
}

/// REST: refuses whoever may not call, and tells the handlers who does.
pub(crate) async fn guard(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    match gateway.caller(request.uri().path(), request.headers()) {
        Ok(caller) => {
            tracing::Span::current().record("caller", caller.name());
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_need_no_key_and_what_works_takes_a_share() {
        for (path, wanted) in [
            ("/livez", Need::Nothing),
            ("/readyz", Need::Nothing),
            ("/grpc.health.v1.Health/Check", Need::Nothing),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Key),
            ("/metrics", Need::Key),
            ("/", Need::Key),
            ("/livez/", Need::Key),
            ("/v1/live", Need::Key),
            ("/v1/score", Need::Rate),
            ("/embed", Need::Rate),
            ("/v1/dead/replay", Need::Rate),
            ("/v1/score/stream", Need::Rate),
            ("/undertone.v1.Scoring/Score", Need::Rate),
            ("/undertone.v1.Scoring/ScoreStream", Need::Rate),
            ("/undertone.v1.Scoring/ListModels", Need::Key),
            ("/undertone.v1.Scoring/GetModel", Need::Key),
        ] {
            assert_eq!(need(path), wanted, "{path}");
        }
    }
}
