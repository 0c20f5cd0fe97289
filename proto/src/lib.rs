//! Records shared by every part of Undertone, and the protocol buffers they travel in.
//!
//! The guarantee: the same post always has the same identity. [`PostReader`] accepts any JSON object that has a text, be
//! it in our own form or in another that a [`Mapping`] describes, keeps fields it does not know, and derives what is
//! missing; [`identity`] turns a post into the `uid` and `version` that every latest-wins store compares.

mod event;
pub mod identity;
pub mod mapping;
mod plain;
mod pointer;
mod post;
mod reader;
mod scored;
mod topics;
mod value;

pub use event::{Envelope, Event, EventTime, Headers, Partition, timestamp};
pub use mapping::Mapping;
pub use pointer::Pointer;
pub use post::{MAX_FUTURE_US, MAX_PAST_US, Post};
pub use reader::PostReader;
pub use scored::to_json;
pub use topics::{MAX_TOPIC_CHARS, MAX_TOPICS, topics};

/// Generated from `undertone/v1/*.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("undertone.v1");

    /// The serialised descriptors of all messages and services, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
}

/// The run of everything that is scored as it arrives, as opposed to the id of a re-scoring job.
pub const LIVE_RUN: &str = "live";
