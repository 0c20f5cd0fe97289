//! Whose API a path speaks. Ours answers errors as problem details; the others' clients look for members of their own in
//! an error's body, which problem details may have beside theirs.

use serde_json::{Value, json};

use crate::{errors::ProblemCode, problem::Problem};

/// Whose API it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Ours.
    Undertone,
    /// text-embeddings-inference, of Hugging Face.
    Tei,
    /// OpenAI.
    OpenAi,
}

impl Dialect {
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/predict" | "/embed" | "/info" => Self::Tei,
            "/v1/embeddings" => Self::OpenAi,
            _ if path.starts_with("/v1/models/") => Self::OpenAi,
            _ => Self::Undertone,
        }
    }

    /// What a client of this API looks for in the body of an error.
    pub(crate) fn members(self, problem: &Problem) -> Option<Value> {
        let row = problem.code().row();
        match self {
            Self::Undertone => None,
            Self::Tei => {
                let kind = match row.http.as_u16() {
                    429 | 503 => "Overloaded",
                    422 if problem.code() == ProblemCode::EmptyList => "Empty",
                    400..500 => "Validation",
                    _ => "Backend",
                };
                Some(json!({"error": problem.detail, "error_type": kind}))
            }
            Self::OpenAi => {
                let kind = match row.http.as_u16() {
                    401 => "authentication_error",
                    429 => "rate_limit_error",
                    400..500 => "invalid_request_error",
                    _ => "server_error",
                };
                let param = problem.errors.first().map(|error| error.pointer.trim_start_matches('/').replace('/', "."));
                Some(json!({"error": {"message": problem.detail, "type": kind, "param": param, "code": row.code}}))
            }
        }
    }
}
