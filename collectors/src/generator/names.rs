//! Handles, links and the other small change of posts. All invented.

use super::chance::Draws;

const ADJECTIVES: [&str; 20] = [
    "quiet", "mossy", "brisk", "amber", "sleepy", "rusty", "velvet", "hollow", "salty", "paper", "windy", "little",
    "crooked", "sunny", "grey", "polite", "late", "copper", "lucky", "spare",
];
const NOUNS: [&str; 20] = [
    "heron", "otter", "kettle", "lantern", "teapot", "badger", "compass", "pebble", "walnut", "anchor", "thimble",
    "sparrow", "bellows", "radish", "puddle", "marble", "pigeon", "saddle", "button", "ferry",
];

/// A handle without the @, such as `mossy_kettle42`.
pub(super) fn handle(draws: &mut Draws) -> String {
    let (adjective, noun, number) = (draws.pick(&ADJECTIVES), draws.pick(&NOUNS), draws.below(1000));
    let joint = if draws.chance(0.5) { "_" } else { "" };
    format!("{adjective}{joint}{noun}{number}")
}

/// A link into a domain that is reserved for examples.
pub(super) fn link(draws: &mut Draws) -> String {
    let host = draws.pick(&["example.com", "example.org"]);
    format!("https://{host}/{}/{}", draws.pick(&["p", "a", "news", "pics"]), base36(draws.next() >> 34))
}

/// Lowercase base 36.
pub(super) fn base36(mut value: u64) -> String {
    let mut digits = [0u8; 13];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(value % 36) as usize];
        value /= 36;
        if value == 0 {
            return digits[at..].iter().map(|&digit| char::from(digit)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base36_keeps_every_value_apart() {
        assert_eq!((base36(0), base36(35), base36(36)), ("0".into(), "z".into(), "10".into()));
        assert_eq!(base36(u64::MAX), "3w5e11264sgsf");
    }
}
