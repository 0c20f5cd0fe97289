//! The properties that the generator promises, over whole runs.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use undertone_proto::{Post, identity};

use super::draft::Kind;
use super::mood::{happening, mood};
use super::topics::{TOPICS, Topic};
use super::*;

const RUN: usize = 20_000;

fn generator(seed: u64) -> Generator {
    Generator::new(GeneratorConfig { seed, ..GeneratorConfig::default() }).expect("a good configuration")
}

fn run(seed: u64) -> Vec<(GeneratedPost, Kind)> {
    let generator = generator(seed);
    let world = generator.world.clone();
    generator.take(RUN).map(|post| (world.kind(post.index), post)).map(|(kind, post)| (post, kind)).collect()
}

fn parse(post: &GeneratedPost) -> Post {
    Post::parse(&post.payload, post.at_us).unwrap_or_else(|e| panic!("post {}: {e}", post.index))
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let bytes = |seed| generator(seed).take(3000).map(|post| (post.at_us, post.payload)).collect::<Vec<_>>();
    assert_eq!(bytes(5), bytes(5));
    let same = bytes(5).iter().zip(bytes(6)).filter(|(a, b)| a.1 == b.1).count();
    // Two of the malformed payloads are always the same.
    assert!(same < 5, "{same}");
}

proptest! {
    #[test]
    fn a_run_goes_on_at_any_index(seed: u64, index in 0u64..1_000_000_000, skip in 1u64..500) {
        let mut through = generator(seed);
        through.seek(index);
        let wanted = through.by_ref().nth(skip as usize);
        let mut restarted = generator(seed);
        restarted.seek(index + skip);
        prop_assert_eq!(wanted, restarted.next());
    }
}

#[test]
fn shares_are_met() {
    let posts = run(11);
    let share = |wanted: fn(&Kind) -> bool| posts.iter().filter(|(_, kind)| wanted(kind)).count() as f64 / RUN as f64;
    let cases = [
        ("malformed", share(|kind| *kind == Kind::Malformed), 0.003),
        ("wild_clock", share(|kind| *kind == Kind::WildClock), 0.001),
        ("long", share(|kind| *kind == Kind::Long), 0.005),
        ("edit", share(|kind| matches!(kind, Kind::Edit(_))), 0.01),
        ("repost", share(|kind| matches!(kind, Kind::Repost(_))), 0.06),
    ];
    for (name, share, wanted) in cases {
        // Four standard errors of a share in a run of this length.
        let tolerance = 4.0 * (wanted * (1.0 - wanted) / RUN as f64).sqrt();
        assert!((share - wanted).abs() < tolerance, "{name}: {share}, wanted {wanted} ± {tolerance}");
    }
}

#[test]
fn exactly_the_malformed_are_refused_and_exactly_the_wild_are_late() {
    let mut reasons = HashSet::new();
    for (post, kind) in run(12) {
        match Post::parse(&post.payload, post.at_us) {
            Ok(parsed) => {
                assert_ne!(kind, Kind::Malformed, "{parsed:?}");
                assert_eq!(parsed.is_late(post.at_us), kind == Kind::WildClock, "{parsed:?}");
            }
            Err(error) => {
                assert_eq!(kind, Kind::Malformed, "post {}: {error}", post.index);
                reasons.insert(error.message().to_owned());
            }
        }
        assert!(!post.payload.contains(&b'\n'));
    }
    assert!(reasons.len() >= 4, "{reasons:?}");
}

#[test]
fn an_edit_is_a_new_version_and_a_repost_a_new_post() {
    let posts = run(13);
    let mut reposted = HashMap::<u64, usize>::new();
    for (post, kind) in &posts {
        match *kind {
            Kind::Edit(of) => {
                let (old, new) = (&posts[of as usize].0, post);
                let (before, after) = (parse(old), parse(new));
                assert_eq!(identity::uid(&before), identity::uid(&after));
                assert_ne!(before.text, after.text);
                let version = |post: &GeneratedPost| identity::version(&parse(post), &post.payload, post.at_us);
                assert!(version(new) > version(old), "{before:?} {after:?}");
            }
            Kind::Repost(of) => {
                let (original, repost) = (parse(&posts[of as usize].0), parse(post));
                assert_eq!(repost.text, format!("RT @{}: {}", original.author.unwrap_or_default(), original.text));
                assert_ne!(original.id, repost.id);
                *reposted.entry(of).or_default() += 1;
            }
            _ => {}
        }
    }
    assert!(reposted.values().any(|&times| times > 3), "some posts are reposted often");
}

#[test]
fn ids_are_unique_but_for_edits() {
    let mut seen = HashSet::new();
    for (post, kind) in run(14) {
        if !matches!(kind, Kind::Edit(_) | Kind::Malformed) {
            let parsed = parse(&post);
            assert!(seen.insert((parsed.source, parsed.id)), "post {} repeats an id", post.index);
        }
    }
}

#[test]
fn posts_look_like_posts() {
    let posts: Vec<Post> =
        run(15).iter().filter(|(_, kind)| *kind != Kind::Malformed).map(|(post, _)| parse(post)).collect();
    let share = |is: &dyn Fn(&Post) -> bool| posts.iter().filter(|post| is(post)).count() as f64 / posts.len() as f64;
    let cases: [(&str, f64, std::ops::Range<f64>); 12] = [
        ("hashtag", share(&|post| post.text.contains('#')), 0.92..0.99),
        ("handle", share(&|post| post.text.contains('@')), 0.10..0.35),
        ("link", share(&|post| post.text.contains("https://")), 0.10..0.20),
        ("emoji", share(&|post| post.text.chars().any(|c| c > '\u{1f000}')), 0.30..0.60),
        ("japanese", share(&|post| post.text.chars().any(|c| ('\u{3040}'..'\u{30ff}').contains(&c))), 0.01..0.03),
        ("english", share(&|post| post.lang.as_deref() == Some("en")), 0.50..0.62),
        ("lang", share(&|post| post.lang.is_some()), 0.66..0.74),
        ("reply", share(&|post| post.reply_to.is_some()), 0.05..0.15),
        ("tags", share(&|post| !post.tags.is_empty()), 0.50..0.65),
        ("metrics", share(&|post| !post.metrics.is_empty()), 0.40..0.55),
        ("unknown field", share(&|post| !post.extra.is_empty()), 0.10..0.20),
        ("over 2,000 characters", share(&|post| post.text.chars().count() >= 2_000), 0.003..0.009),
    ];
    for (name, share, wanted) in cases {
        assert!(wanted.contains(&share), "{name}: {share}, wanted {wanted:?}");
    }
    let distinct: HashSet<&str> = posts.iter().map(|post| post.text.as_str()).collect();
    assert!(
        distinct.len() as f64 > 0.9 * posts.len() as f64,
        "{} of {} texts are distinct",
        distinct.len(),
        posts.len()
    );
}

#[test]
fn all_topics_are_talked_about_and_nothing_leads_out_of_the_example_domains() {
    let mut talked = vec![0; TOPICS.len()];
    for (post, kind) in run(16) {
        if kind == Kind::Malformed {
            continue;
        }
        let text = parse(&post).text;
        for link in text.split_whitespace().filter(|word| word.contains("://")) {
            assert!(link.starts_with("https://example.com/") || link.starts_with("https://example.org/"), "{link}");
        }
        for (topic, count) in TOPICS.iter().zip(&mut talked) {
            *count += usize::from(text.to_lowercase().contains(&format!("#{}", topic.tag.to_lowercase())));
        }
    }
    assert!(talked.iter().all(|&count| count > RUN / 50), "{talked:?}");
}

#[test]
fn an_event_turns_the_mood_of_its_minute_over_and_draws_attention() {
    let generator = generator(17);
    let config = GeneratorConfig { seed: 17, ..GeneratorConfig::default() };
    let start_us = config.start_us;
    // Within four hours, against the grain of its topic.
    let (topic, event) = (0..TOPICS.len())
        .flat_map(|topic| (0..12).map(move |slot| (topic, start_us + slot * 1_200_000_000)))
        .filter_map(|(topic, at_us)| happening(17, topic, at_us).map(|event| (topic, event)))
        .find(|(topic, event)| TOPICS[*topic].usual * event.mood < 0.0)
        .expect("an event in four hours");
    let spoken = |from_us: i64, until_us: i64| -> Vec<f64> {
        let first = (0..400_000).find(|&i| generator.world.arrival_us(i) >= from_us).expect("a post");
        let during = (first..).take_while(|&i| generator.world.arrival_us(i) < until_us);
        during
            .map(|i| generator.world.brief(i))
            .filter(|brief| brief.topic == topic)
            .map(|brief| brief.polarity)
            .collect()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;

    let peak = spoken(event.from_us + 15_000_000, event.from_us + 75_000_000);
    let (before_us, after_us) = (event.from_us - 60_000_000, event.until_us);
    let calm = if mood(17, topic, before_us).grip == 0.0 {
        spoken(before_us, event.from_us)
    } else {
        spoken(after_us, after_us + 60_000_000)
    };
    assert!((mean(&peak) - event.mood).abs() < 0.25, "{} {event:?}", mean(&peak));
    assert!((mean(&peak) - TOPICS[topic].usual).abs() > 0.4, "{} {event:?}", mean(&peak));
    assert!(peak.len() > 2 * calm.len(), "{} posts in the event's minute, {} in a calm one", peak.len(), calm.len());
}

#[test]
fn moods_differ_between_topics_and_over_the_hours() {
    let hourly = |topic| -> Vec<f64> { (0..24).map(|hour| mood(3, topic, hour * 3_600_000_000).value).collect() };
    for (topic, Topic { tag, .. }) in TOPICS.iter().enumerate() {
        let moods = hourly(topic);
        let (least, most) =
            moods.iter().fold((1.0f64, -1.0f64), |(least, most), &mood| (least.min(mood), most.max(mood)));
        assert!(most - least > 0.3, "{tag}: {least} to {most}");
    }
    assert_ne!(hourly(0), hourly(1));
}
