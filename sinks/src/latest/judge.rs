//! What becomes of posts, decided from what the store answered. Everything here is pure.

use std::collections::{HashMap, VecDeque};

use prost::Message;
use sha2::{Digest, Sha256};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::EventTime;
use undertone_proto::v1::{DeadLetter, ScoredPost};
use uuid::Uuid;

/// Fewer rejections than this are never suspicious: epochs may be small.
const FEW: u64 = 20;
/// More of an epoch than this is never rejected of a store that was just not believed.
const HALF: f64 = 0.5;
/// Rejections are compared with this many posts before, so that many small epochs are judged like a large one.
const WINDOW: u64 = 2_000;
/// A longer reason is cut: stores like to repeat the document.
const REASON_CHARS: usize = 1_000;

/// The versions of each post among `posts`, the latest first, in the order of the posts' first appearance.
pub(super) fn versions(posts: &[ScoredPost]) -> Vec<Vec<&ScoredPost>> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(posts.len());
    let mut found: Vec<Vec<&ScoredPost>> = Vec::with_capacity(posts.len());
    for post in posts {
        let place = *places.entry(&post.uid).or_insert(found.len());
        match found.get_mut(place) {
            Some(versions) => {
                let at = versions.partition_point(|held| held.version > post.version);
                match versions.get_mut(at).filter(|held| held.version == post.version) {
                    Some(same) => *same = post,
                    None => versions.insert(at, post),
                }
            }
            None => found.push(vec![post]),
        }
    }
    found
}

/// What no store could take of a post: without a uid and a version there is no latest, and a number that is none poisons
/// every mean.
pub(super) fn flaw(post: &ScoredPost) -> Option<String> {
    // In the one form that stores give it back in.
    if Uuid::try_parse(&post.uid).map(|uid| uid.to_string()) != Ok(post.uid.clone()) {
        return Some("uid is no UUID".to_owned());
    }
    if post.version < 0 {
        return Some(format!("version is negative: {}", post.version));
    }
    if post.polarity.is_some_and(|polarity| !polarity.is_finite()) {
        return Some("polarity is not a finite number".to_owned());
    }
    if post.confidence.is_some_and(|confidence| !confidence.is_finite()) {
        return Some("confidence is not a finite number".to_owned());
    }
    let mut probabilities = post.heads.iter().flat_map(|head| &head.probabilities);
    if let Some(wrong) = probabilities.find(|probability| !probability.value.is_finite()) {
        return Some(format!("probability of {} is not a finite number", wrong.label));
    }
    None
}

/// Whether a store rejects so much that the store, or how it is set up, is more likely at fault than the posts.
#[derive(Debug)]
pub(super) struct Suspicion {
    /// The share of rejected posts above which nothing is dead-lettered, 0 to 1.
    limit: f64,
    recent: VecDeque<(u64, u64)>,
    /// What the last epoch came to, if it was not believed: how many posts, and how many of them were rejected.
    doubted: Option<(u64, u64)>,
}

impl Suspicion {
    pub(super) fn new(limit: f64) -> Self {
        Self { limit, recent: VecDeque::new(), doubted: None }
    }

    /// Looks at an epoch of `posts` posts, of which `rejected` were.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] with `example`, a reason that the store gave, if it rejects too much.
    pub(super) fn judge(&mut self, posts: u64, rejected: u64, example: &str) -> Result<()> {
        let (seen, before) = self.recent.iter().fold((0, 0), |sum, epoch| (sum.0 + epoch.0, sum.1 + epoch.1));
        let (all, bad) = (seen + posts, before + rejected);
        let too_many = rejected > 0 && bad > FEW && bad as f64 > self.limit * all as f64;
        // Of a store that was not believed, few rejections say less: they may be those of a part of the same posts, or the
        // last before it was mended. So they must be the same twice.
        let still = self.doubted.is_some_and(|before| {
            let most = self.limit < HALF && rejected as f64 > HALF * posts as f64;
            rejected > 0 && (most || before != (posts, rejected))
        });
        self.doubted = (too_many || still).then_some((posts, rejected));
        if self.doubted.is_some() {
            let error = Error::new(ErrorKind::Unavailable, "store rejects too many posts to be believed");
            let error = error.with("rejected", bad).with("of", all).with("for example", shorten(example));
            return Err(error.help(
                "nothing is dead-lettered: mend the store (is its mapping or schema another?), or raise \
                 sinks.max_rejected if the posts are at fault",
            ));
        }
        Ok(())
    }

    /// Takes an epoch into account that was believed and is settled.
    pub(super) fn settled(&mut self, posts: u64, rejected: u64) {
        self.recent.push_back((posts, rejected));
        let mut seen: u64 = self.recent.iter().map(|(posts, _)| posts).sum();
        while let Some(&(oldest, _)) = self.recent.front()
            && seen - oldest >= WINDOW
        {
            seen -= oldest;
            self.recent.pop_front();
        }
    }
}

/// The dead letter of a post that `sink` rejected: the post itself as it stood on `posts.scored`, so that it can be sent
/// again. One of more than `max_bytes` is left out: its letter must fit where it goes, or the sink would wait for ever.
pub(super) fn letter(sink: &str, post: &ScoredPost, reason: &str, max_bytes: usize, now: EventTime) -> DeadLetter {
    let payload = post.encode_to_vec();
    DeadLetter {
        origin: post.origin.clone(),
        stage: sink.to_owned(),
        reason: shorten(reason),
        payload_sha256: Sha256::digest(&payload).iter().map(|byte| format!("{byte:02x}")).collect(),
        payload_bytes: payload.len() as u64,
        payload: if payload.len() <= max_bytes { payload } else { Vec::new() },
        attempts: 1,
        ingested_at_us: post.ingested_at_us,
        dead_at_us: now,
    }
}

fn shorten(reason: &str) -> String {
    match reason.char_indices().nth(REASON_CHARS) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use undertone_proto::v1::{HeadScores, Probability};

    use super::*;

    fn post(uid: u128, version: i64) -> ScoredPost {
        ScoredPost { uid: Uuid::from_u128(uid).to_string(), version, ..ScoredPost::default() }
    }

    proptest! {
        #[test]
        fn versions_of_a_post_are_the_latest_first_and_each_once(written in prop::collection::vec((0..5u128, 0..9i64), 0..50)) {
            let posts: Vec<_> = written.iter().map(|&(uid, version)| post(uid, version)).collect();
            let mut wanted: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
            for post in &posts {
                wanted.entry(post.uid.clone()).or_default().insert(post.version);
            }
            let found = versions(&posts);
            prop_assert_eq!(found.len(), wanted.len());
            for versions in found {
                let numbers: Vec<_> = versions.iter().map(|post| post.version).collect();
                let greatest_first: Vec<_> = wanted[&versions[0].uid].iter().rev().copied().collect();
                prop_assert_eq!(numbers, greatest_first);
            }
        }
    }

    #[test]
    fn a_few_bad_posts_are_dead_letters_and_many_are_a_sick_store() {
        let cases: [(&[(u64, u64)], bool); 8] = [
            (&[(1, 1)], true),
            (&[(20, 20)], true),
            (&[(21, 21)], false),
            (&[(1000, 50)], true),
            (&[(1000, 51)], false),
            (&[(10, 10), (10, 10), (1, 1)], false), // small epochs add up
            (&[(1000, 0), (1000, 0), (400, 100)], true),
            (&[(1000, 50), (1000, 0), (1000, 0), (1000, 50)], true), // and are forgotten
        ];
        for (epochs, believed) in cases {
            let mut suspicion = Suspicion::new(0.05);
            let outcome = epochs.iter().try_for_each(|&(posts, bad)| {
                suspicion.judge(posts, bad, "no such field").inspect(|()| suspicion.settled(posts, bad))
            });
            assert_eq!(outcome.is_ok(), believed, "{epochs:?}");
        }
        let mut suspicion = Suspicion::new(0.05);
        let error = suspicion.judge(100, 100, "no such field").expect_err("all of them");
        assert!(error.to_string().contains("no such field"), "{error}");
        assert!(suspicion.judge(5, 5, "no such field").is_err(), "the first of the same posts");
        assert!(suspicion.judge(100, 2, "no such field").is_err(), "it was mended in the middle of them");
        assert!(suspicion.judge(100, 1, "no such word").is_err(), "something has changed again");
        assert!(suspicion.judge(100, 1, "no such word").is_ok(), "it was mended");
        assert!(suspicion.judge(5, 5, "no such word").is_ok(), "and is believed as before");
        assert!(Suspicion::new(1.0).judge(100, 100, "x").is_ok(), "a person has said so");
    }

    #[test]
    fn what_no_store_could_take_is_named() {
        assert_eq!(flaw(&post(1, 0)), None);
        let uid = ScoredPost { uid: "x".to_owned(), ..post(1, 0) };
        let polarity = ScoredPost { polarity: Some(f64::NAN), ..post(1, 0) };
        let probabilities = vec![Probability { label: "positive".to_owned(), value: f32::INFINITY }];
        let heads = vec![HeadScores { probabilities, ..HeadScores::default() }];
        let probability = ScoredPost { heads, ..post(1, 0) };
        for (wrong, word) in [(uid, "uid"), (post(1, -1), "version"), (polarity, "polarity"), (probability, "positive")]
        {
            assert!(flaw(&wrong).is_some_and(|reason| reason.contains(word)), "{word}");
        }
    }

    #[test]
    fn a_letter_holds_the_post_as_it_was_and_a_reason_of_bounded_length() {
        let post = ScoredPost { text: "hi".to_owned(), ..post(7, 3) };
        let whole = letter("opensearch", &post, &"é".repeat(5_000), 1_000, 9);
        assert_eq!(ScoredPost::decode(whole.payload.as_slice()).expect("a post"), post);
        assert_eq!((whole.stage.as_str(), whole.reason.chars().count()), ("opensearch", REASON_CHARS + 1));
        let cut = letter("opensearch", &post, "because", 10, 9);
        assert_eq!(
            (cut.payload, cut.payload_bytes, cut.payload_sha256),
            (vec![], whole.payload_bytes, whole.payload_sha256)
        );
    }
}
