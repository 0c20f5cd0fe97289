//! Finding the posts that make a whole request fail, for stores that answer for a request and not for each post.

use async_trait::async_trait;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::ScoredPost;

use super::Answer;

/// Where more posts of one request are refused one by one, the store is at fault: each costs a logarithm of requests.
const MOST: usize = 64;

/// Why a request as a whole was refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is not about the posts.
    Store(Error),
    /// Some post in it, or several, cannot be taken.
    Posts(String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// A request that is taken or refused as a whole, and may be repeated.
#[async_trait]
pub(crate) trait WholeRequest: Sync {
    async fn send(&self, posts: &[&ScoredPost]) -> Result<(), Refusal>;
}

/// Sends `posts`, in halves of halves where they are refused, and answers for each.
///
/// # Errors
/// That of the store; [`ErrorKind::Unavailable`] if it refuses too many posts to look for them one by one.
pub(crate) async fn isolate(request: &dyn WholeRequest, posts: &[&ScoredPost]) -> Result<Vec<Answer>> {
    let mut answers = vec![Answer::Stored; posts.len()];
    let mut rejected = 0;
    let all = 0..posts.len();
    let mut left = vec![all];
    while let Some(range) = left.pop() {
        let Some(part) = posts.get(range.clone()).filter(|part| !part.is_empty()) else { continue };
        match request.send(part).await {
            Ok(()) => {}
            Err(Refusal::Store(error)) => return Err(error),
            Err(Refusal::Posts(reason)) if range.len() == 1 => {
                rejected += 1;
                if rejected > MOST {
                    let error = Error::new(ErrorKind::Unavailable, "store refuses too many posts one by one");
                    return Err(error.with("for example", reason).help(
                        "nothing is dead-lettered: mend what refuses them in the store (a constraint? another schema?)",
                    ));
                }
                if let Some(answer) = answers.get_mut(range.start) {
                    *answer = Answer::Rejected(reason);
                }
            }
            Err(Refusal::Posts(_)) => {
                let middle = range.start + range.len() / 2;
                left.push(middle..range.end);
                left.push(range.start..middle);
            }
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// Refuses requests with a negative version in them.
    #[derive(Default)]
    struct Picky {
        calls: AtomicUsize,
    }

    #[async_trait]
    impl WholeRequest for Picky {
        async fn send(&self, posts: &[&ScoredPost]) -> Result<(), Refusal> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            match posts.iter().find(|post| post.version < 0) {
                Some(post) => Err(Refusal::Posts(format!("{}", post.version))),
                None => Ok(()),
            }
        }
    }

    fn run(versions: &[i64]) -> (Result<Vec<Answer>>, usize) {
        let posts: Vec<_> = versions.iter().map(|&version| ScoredPost { version, ..ScoredPost::default() }).collect();
        let picky = Picky::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let answers = runtime.block_on(isolate(&picky, &posts.iter().collect::<Vec<_>>()));
        (answers, picky.calls.load(Ordering::Relaxed))
    }

    proptest! {
        #[test]
        fn exactly_the_bad_posts_are_rejected(versions in prop::collection::vec(-1..30i64, 0..100)) {
            let (answers, _) = run(&versions);
            for (answer, version) in answers.expect("not too many").iter().zip(&versions) {
                prop_assert_eq!(*answer == Answer::Stored, *version >= 0);
            }
        }
    }

    #[test]
    fn one_bad_post_costs_a_logarithm_of_requests_and_all_bad_ones_an_error() {
        let mut versions = vec![0; 1024];
        versions[700] = -1;
        assert_eq!(run(&versions).1, 21);
        assert_eq!(run(&[-1; 200]).0.expect_err("a sick store").kind(), ErrorKind::Unavailable);
    }
}
