//! One queue in front of the workers.
//!
//! Two lanes: interactive texts go first; bulk texts fill the room that is left in each batch, and a bulk text that has
//! waited long gets a turn of its own even if interactive texts never run out. Batches are limited by tokens, not by
//! texts, because tokens are what a forward pass costs. There is no waiting for a batch to fill: a free worker takes
//! what is there, and under load batches fill by themselves.
//!
//! Workers also prepare texts (normalise, tokenise) before they run them, so that preparing never runs on a caller's
//! thread nor fights the forward passes for cores. A text passes through the queue twice: raw, then ready. A GPU is too
//! fast to wait for that: beside its workers there are readers, on the other cores, which only prepare.
//!
//! ```text
//! submit ─▶ raw lanes ─(a worker prepares some)─▶ ready lanes ─(plan)─▶ batch ─▶ forward pass ─▶ answers
//! ```
//!
//! Guarantees: every accepted text is answered exactly once or its caller has gone; texts of a lane are run in the order
//! in which they came; a text whose deadline has passed or whose caller has gone costs no forward pass; a failing text
//! fails alone, because a failed batch is halved until the culprit is found; a text is blamed only after a known-good text
//! (the canary) has passed where it failed; the texts of an ill device go back to the front of their lanes while its worker
//! restarts it, and one that takes the device with it each time it runs alone is given up; if no worker is left, callers
//! are told so, and nobody waits for ever.
//!
//! | file | what it holds |
//! |---|---|
//! | `plan` | which texts make the next batch, and what a free worker does: pure |
//! | `faults` | what a failed batch means, how the token budget and the pauses follow: pure |
//! | `state` | what waits, in which order: no lock, no clock |
//! | `queue` | the lock around it |
//! | `pace` | what is ahead of a new text, and how long that takes |
//! | `worker` | the threads, the canary, restarts |
//! | `cache` | scores of texts that were scored before |

mod cache;
#[cfg(test)]
pub(crate) mod fake;
mod faults;
mod pace;
mod plan;
mod queue;
mod state;
mod worker;

pub(crate) use faults::RecoveryRules;
pub(crate) use pace::Place;
pub(crate) use plan::Rules;
pub(crate) use queue::{Queue, expired};
pub(crate) use state::{Closed, Ticket};
pub(crate) use worker::{Backend, Counters, Normalized, Prepared, Reader, Shared, Workers};
