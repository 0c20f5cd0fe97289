//! Where posts come from: the seeded generator of synthetic posts.
//!
//! A collector hands over payloads as they came, bytes and all; it never parses, repairs or drops one. What is wrong
//! with a post is for the scoring stage to say, which puts it into the dead letters with a reason.

pub mod generator;
