//! A model folder, and what is built from it: encoder and heads.
//!
//! ```text
//! config.json ──────▶ EncoderShape ─┐
//! model.safetensors ─▶ Weights ─────┼─▶ Encoder ──▶ pooled vectors [texts, hidden] ─▶ Heads ──▶ probabilities
//! undertone.json ───▶ Manifest ─────┘                     └─▶ embedding (projected, normalised)
//! heads.safetensors ─▶ Weights ────────────────────────────────▶ ┘
//! ```
//!
//! Guarantees: a folder that loads is complete (every tensor is there and has the shape that `config.json` says);
//! whatever is wrong with a folder is reported with the file, the key and what would mend it; the revision changes when
//! any byte of any file of the model changes.

mod choose;
mod classification;
mod companions;
mod encoder;
mod family;
mod folder;
mod forward;
mod heads;
mod labels;
mod manifest;
mod network;
mod pack;
mod revision;
mod shape;
mod weights;

pub use encoder::Encoder;
pub use folder::ModelFolder;
pub use forward::{Arithmetic, Forward};
#[cfg(test)]
pub(crate) use heads::Verdict;
pub use labels::LabelMap;
pub use manifest::Manifest;
pub use network::Network;
pub(crate) use network::Outcome;
pub use pack::Packed;
pub(crate) use revision::revision;

use tch::TchError;
use undertone_error::{Error, ErrorKind};

/// libtorch reports every failure as text. Running out of memory is told apart, because trying again with less helps.
pub(crate) fn torch_error(error: TchError) -> Error {
    let text = error.to_string();
    let exhausted =
        text.contains("not enough memory") || text.contains("can't allocate") || text.contains("out of memory");
    let kind = if exhausted { ErrorKind::Exhausted } else { ErrorKind::Internal };
    // The C++ backtrace follows the first line and helps nobody.
    let first = text.lines().next().unwrap_or_default().to_owned();
    Error::new(kind, "libtorch refused an operation").source(first)
}
