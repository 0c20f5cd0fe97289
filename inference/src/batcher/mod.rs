//! One queue in front of the workers.
//!
//! Two lanes: interactive texts go first; bulk texts fill the room that is left in each batch, and a bulk text that has
//! waited long gets a turn of its own even if interactive texts never run out. Batches are limited by tokens, not by
//! texts, because tokens are what a forward pass costs. There is no waiting for a batch to fill: a free worker takes
//! what is there, and under load batches fill by themselves.
//!
//! Workers also prepare texts (normalise, tokenise) before they run them, so that preparing never runs on a caller's
//! thread nor fights the forward passes for cores. A text passes through the queue twice: raw, then ready.
//!
//! ```text
//! submit ─▶ raw lanes ─(a worker prepares some)─▶ ready lanes ─(plan)─▶ batch ─▶ forward pass ─▶ answers
//! ```
//!
//! Guarantees: every accepted text is answered exactly once or its caller has gone; texts of a lane are run in the order
//! in which they came; a text whose deadline has passed or whose caller has gone costs no forward pass; a failing text
//! fails alone, because a failed batch is halved until the culprit is found; if a worker dies, nobody waits for ever.

#[cfg(test)]
pub(crate) mod fake;
mod plan;
mod queue;
mod worker;

pub(crate) use plan::Rules;
pub(crate) use queue::{Queue, Ticket, closed, expired};
pub(crate) use worker::{Backend, Prepared, Workers};
