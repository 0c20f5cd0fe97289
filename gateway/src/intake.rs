//! The one thing that the gateway needs of the stream to take posts in, so that it can be tested without one.

use async_trait::async_trait;
use axum::body::Bytes;
use undertone_error::Result;

/// A post that was read and found good, and is to be made durable as it came.
#[derive(Clone, Debug)]
pub struct NewPost {
    /// Source and id, as a JSON list: posts of one key keep their order.
    pub key: String,
    /// Its bytes.
    pub payload: Bytes,
}

/// Where an event stands in the log that it is durable in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Takes posts in.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// Makes posts durable, and answers where each stands, or why it does not, in order. A post that was answered with
    /// its place survives any crash.
    async fn take_in(&self, posts: Vec<NewPost>) -> Vec<Result<Place>>;
}
