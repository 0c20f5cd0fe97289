//! The tables, layer by layer: Bronze keeps events as they came, Silver what became of each, Gold sums over windows.
//! Column comments are the tables' documentation; they are stored with the schema.

pub(super) mod aggregate;
pub(super) mod bronze;
pub(super) mod gold;
pub(super) mod silver;

use undertone_proto::v1::ScoredPost;

pub(super) const DAY_US: i64 = 86_400_000_000;

/// The post's UTC day in days since 1970-01-01, or none if it is late: so that clocks gone wild share one partition
/// instead of opening one each.
fn event_day(post: &ScoredPost) -> Option<i32> {
    if post.late { None } else { i32::try_from(post.created_at_us.div_euclid(DAY_US)).ok() }
}

/// Text that protocol buffers give as empty where it is absent.
fn present(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
