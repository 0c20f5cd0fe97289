//! From a source to durable, scored records.
//!
//! ```text
//! source ──▶ InputLog ──▶ ScoreStage ──▶ ScoredLog ──▶ (sinks)
//!                                            └──▶ DeadLetterFile
//! ```
//!
//! The guarantee: what [`input::InputLog::append`] has acknowledged is never lost, and becomes exactly one outcome (a
//! scored post or a dead letter) at the same offset of [`scored::ScoredLog`], whatever crashes in between. An outcome is
//! durable before anybody sees it, so a replay never scores a post again. Because both logs have the same offsets, the
//! end of the scored log *is* the position of the scoring stage.

mod backoff;
pub mod data;
pub mod dead;
mod durable;
pub mod enrich;
pub mod input;
pub mod kafka;
pub mod log;
pub mod score;
pub mod scored;
pub mod source;
pub mod telemetry;

#[cfg(test)]
mod testing {
    /// A folder for logic that syncs a lot: in memory where the system offers it. `tests/` runs on the real disk.
    pub(crate) fn dir() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }
}
