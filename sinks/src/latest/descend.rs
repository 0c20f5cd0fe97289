//! Writing of each post the latest version that the store takes.
//!
//! The guarantee: whatever lies in one epoch, the store ends where it would if each version had come alone. So where the
//! latest version of a post is rejected, the one before it is written, if it came along.

use std::collections::HashSet;

use undertone_error::Result;
use undertone_proto::v1::ScoredPost;

use super::LatestStore;
use super::deliver::{Rejected, deliver};
use super::judge::{flaw, versions};

/// Writes of each post among `posts` the latest version that is not rejected. Answers how many versions were written or
/// rejected, and which were rejected and why.
///
/// # Errors
/// Those of the store. What was written by then is written again.
pub(super) async fn write_latest<'a>(
    store: &dyn LatestStore,
    posts: &'a [ScoredPost],
) -> Result<(usize, Vec<Rejected<'a>>)> {
    let mut left: Vec<_> = versions(posts).into_iter().map(Vec::into_iter).collect();
    let (mut tried, mut rejected) = (0, Vec::new());
    loop {
        let latest: Vec<&ScoredPost> = left.iter_mut().filter_map(Iterator::next).collect();
        if latest.is_empty() {
            return Ok((tried, rejected));
        }
        tried += latest.len();
        let (mut good, mut bad) = (Vec::with_capacity(latest.len()), Vec::new());
        for post in latest {
            match flaw(post) {
                None => good.push(post),
                Some(reason) => bad.push((post, reason)),
            }
        }
        bad.extend(deliver(store, good).await?);
        let again: HashSet<&str> = bad.iter().map(|(post, _)| post.uid.as_str()).collect();
        left.retain(|versions| versions.as_slice().first().is_some_and(|post| again.contains(post.uid.as_str())));
        rejected.extend(bad);
    }
}

/// Writes posts that the store rejected once, as the sink writes them: of an older version than it holds nothing comes.
/// Answers for each why it is rejected again, if it is.
///
/// # Errors
/// Those of the store.
pub async fn write_again(store: &dyn LatestStore, posts: &[ScoredPost]) -> Result<Vec<Option<String>>> {
    let (_, rejected) = write_latest(store, posts).await?;
    let why = |post: &ScoredPost| {
        let found = rejected.iter().find(|(other, _)| (&other.uid, other.version) == (&post.uid, post.version));
        found.map(|(_, reason)| reason.clone())
    };
    Ok(posts.iter().map(why).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use async_trait::async_trait;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::latest::{Answer, Found, Shape};

    /// Takes no text that says "bad".
    #[derive(Default)]
    struct Picky {
        held: Mutex<BTreeMap<String, i64>>,
    }

    #[async_trait]
    impl LatestStore for Picky {
        fn name(&self) -> &str {
            "picky"
        }

        fn shape(&self) -> Shape {
            Shape { posts: 3, bytes: 1 << 20, concurrency: 2, timeout: Duration::from_secs(1) }
        }

        async fn prepare(&self, _: bool) -> Result<Vec<Found>> {
            Ok(Vec::new())
        }

        async fn write(&self, posts: &[&ScoredPost]) -> Result<Vec<Answer>> {
            let mut held = self.held.lock().expect("nobody panicked");
            let mut answer = |post: &ScoredPost| {
                if post.text == "bad" {
                    return Answer::Rejected("bad".to_owned());
                }
                let version = held.entry(post.uid.clone()).or_insert(post.version);
                *version = post.version.max(*version);
                Answer::Stored
            };
            Ok(posts.iter().map(|post| answer(post)).collect())
        }
    }

    fn post(uid: u128, version: i64, bad: bool) -> ScoredPost {
        let text = if bad { "bad" } else { "good" }.to_owned();
        ScoredPost { uid: Uuid::from_u128(uid).to_string(), version, text, ..ScoredPost::default() }
    }

    proptest! {
        #[test]
        fn epochs_together_end_where_posts_alone_end(written in prop::collection::vec((0..4u128, -1..9i64), 0..40), third in 0..3i64) {
            // Bad is what a version is, so that equal versions are equal posts. A negative one is flawed.
            let posts: Vec<_> = written.iter().map(|&(uid, version)| post(uid, version, version % 3 == third)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let (together, alone) = (Picky::default(), Picky::default());
            let (tried, rejected) = runtime.block_on(write_latest(&together, &posts)).expect("written");
            prop_assert!(tried <= posts.len() && rejected.len() <= tried);
            for post in &posts {
                runtime.block_on(write_latest(&alone, std::slice::from_ref(post))).expect("written");
            }
            let (together, alone) = (together.held.into_inner().expect("held"), alone.held.into_inner().expect("held"));
            prop_assert_eq!(together, alone);
        }
    }

    #[test]
    fn what_is_rejected_again_is_told_for_each() {
        let posts = [post(1, 1, false), post(1, 2, true), post(2, 1, true)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let answers = runtime.block_on(write_again(&Picky::default(), &posts)).expect("answered");
        assert_eq!(answers, [None, Some("bad".to_owned()), Some("bad".to_owned())]);
    }
}
