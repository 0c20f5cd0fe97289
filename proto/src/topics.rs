//! The topics of a post: the tags that its source gave, then the hashtags of its text. The page, the per-tag tables and
//! the gateway all ask here, so that "espresso" is one topic everywhere.

use crate::v1::ScoredPost;

/// A post counts under at most this many topics, so that a wall of tags cannot flood the per-tag tables.
pub const MAX_TOPICS: usize = 16;

/// A longer tag is no topic.
pub const MAX_TOPIC_CHARS: usize = 100;

/// The post's topics: lowercase, without '#', with single spaces, each once, in order of first appearance, at most [`MAX_TOPICS`].
pub fn topics(post: &ScoredPost) -> Vec<String> {
    let hashtags = post.entities.as_ref().map(|entities| entities.hashtags.as_slice()).unwrap_or_default();
    let mut topics: Vec<String> = Vec::new();
    for tag in post.tags.iter().chain(hashtags) {
        if topics.len() == MAX_TOPICS {
            break;
        }
        let topic = tag.trim().trim_start_matches(['#', '＃']).to_lowercase();
        let topic = topic.split_whitespace().collect::<Vec<_>>().join(" ");
        if !topic.is_empty() && topic.chars().count() <= MAX_TOPIC_CHARS && !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Entities;

    fn post(tags: &[&str], hashtags: &[&str]) -> ScoredPost {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let entities = Some(Entities { hashtags: owned(hashtags), ..Entities::default() });
        ScoredPost { tags: owned(tags), entities, ..ScoredPost::default() }
    }

    #[test]
    fn tags_come_before_hashtags_and_each_topic_once() {
        assert_eq!(
            topics(&post(&["Tea", " #Brewing ", "", "Green  tea"], &["tea", "GONGFU", "#"])),
            ["tea", "brewing", "green tea", "gongfu"]
        );
    }

    #[test]
    fn a_wall_of_tags_is_cut() {
        let tags: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        assert_eq!(topics(&post(&tags, &["last"])), tags[..MAX_TOPICS]);
    }

    #[test]
    fn a_tombstone_has_none() {
        assert!(topics(&ScoredPost::default()).is_empty());
    }
}
