//! Every decoder of what comes from outside, as a function of bytes.
//!
//! The guarantee that these functions hold it to: whatever the bytes are, nothing panics, nothing hangs, and no caller is told
//! that the server failed (HTTP 5xx, gRPC's `INTERNAL` and its like). A target answers whether the bytes meant something, and
//! panics where the guarantee is broken, which is what fuzzers look for.
//!
//! `tests/decoders.rs` mutates good examples of each for about a second, in every `make test`, on the stable compiler: what still
//! means something is mutated further. `make fuzz` has libFuzzer mutate them (`fuzz_targets/`), led by which parts of our crates an
//! input reaches, on the stable compiler too.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken guarantee is a panic: that is what is looked for")]

mod drive;
#[path = "../../gateway/tests/it/support/fake.rs"]
mod fake;
mod files;
mod grpc;
mod logs;
mod mutate;
mod posts;
mod rest;
mod seeds;
mod server;
mod stores;

pub use drive::{Failure, Report, check, drive};
pub use seeds::lay_out;

/// One decoder.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Whether the bytes meant something.
    pub read: fn(&[u8]) -> bool,
    /// Good examples, each of which means something.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format, which chance would not find.
    pub words: &'static [&'static str],
}

/// All of them.
pub const TARGETS: [&Target; 21] = [
    &rest::SCORE,
    &rest::EMBED,
    &rest::STREAM,
    &rest::ARROW,
    &rest::POSTS,
    &rest::REPLAY,
    &rest::OPENAI,
    &rest::TEI,
    &rest::QUERY,
    &rest::HEADERS,
    &grpc::CALLS,
    &posts::EVENT,
    &posts::MAPPED,
    &posts::RECORDS,
    &posts::TEXT,
    &files::ROWS,
    &files::COMPRESSED,
    &files::PARQUET,
    &files::DEAD_LETTERS,
    &logs::SEGMENT,
    &logs::FRAMES,
];

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn find(name: &str) -> &'static Target {
    TARGETS.into_iter().find(|target| target.name == name).expect("a target of this name")
}
