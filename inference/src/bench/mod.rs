//! Measuring an engine as its users see it.
//!
//! [`closed_loop`] keeps a number of texts in flight: a new one is sent when an answer comes, so the engine is never
//! asked for more than it gives, and latency is what a caller waits at that load. [`open_loop`] sends texts at times that
//! were fixed beforehand, whether the engine keeps up or not, and counts each latency from the time that was planned: an
//! engine that stalls is charged for every text that the stall held up, not only for the one that it met. The two may
//! run at the same time, in different lanes.
//!
//! [`stage_times`] says where the time went, [`Arithmetic`] how many floating-point operations the texts cost.

mod arithmetic;
mod closed;
mod latency;
mod open;
mod peak;
mod schedule;

pub use arithmetic::Arithmetic;
pub use closed::{ClosedReport, closed_loop, in_flight};
pub use latency::Latencies;
pub use open::{OpenReport, open_loop};
pub use peak::peak_gflops;
pub use schedule::poisson;

pub use crate::telemetry::{StageTime, StageTimes, stage_times};
