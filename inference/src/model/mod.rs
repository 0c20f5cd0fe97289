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
mod cuda;
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
pub use forward::{Arithmetic, Forward, Sizing};
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
    // The C++ backtrace follows the first line and helps nobody.
    let first = text.lines().next().unwrap_or_default().to_owned();
    match classify(&text) {
        ErrorKind::Unavailable => Error::new(ErrorKind::Unavailable, "the GPU is lost")
            .source(first)
            .help("start undertone again; if it happens again, see nvidia-smi and the kernel's log for Xid messages"),
        kind => Error::new(kind, "libtorch refused an operation").source(first),
    }
}

/// What kind of failure libtorch's text tells of. Most errors of CUDA leave the device useless to the process.
fn classify(text: &str) -> ErrorKind {
    let says = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let memory = [
        "not enough memory",
        "can't allocate",
        "out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "cudaErrorMemoryAllocation",
    ];
    let lost =
        ["CUDA error", "CUDA driver error", "CUBLAS_STATUS_", "CUDNN_STATUS_", "cudaError", "device-side assert"];
    match () {
        () if says(&memory) => ErrorKind::Exhausted,
        () if says(&lost) => ErrorKind::Unavailable,
        () => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_a_lost_device_and_anything_else_are_told_apart() {
        for (text, kind) in [
            (
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
                ErrorKind::Exhausted,
            ),
            ("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", ErrorKind::Exhausted),
            ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", ErrorKind::Exhausted),
            ("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory", ErrorKind::Exhausted),
            ("CUDA error: an illegal memory access was encountered", ErrorKind::Unavailable),
            ("CUDA error: uncorrectable ECC error encountered", ErrorKind::Unavailable),
            ("CUDA error: unspecified launch failure", ErrorKind::Unavailable),
            ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`", ErrorKind::Unavailable),
            ("index out of range in self", ErrorKind::Internal),
        ] {
            let error = torch_error(TchError::Torch(text.to_owned()));
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.to_string().contains(text.lines().next().unwrap()), "{error}");
        }
    }
}
