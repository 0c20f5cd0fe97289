//! What a head's labels mean: which of them are negative, neutral and positive. Nothing is guessed: labels are mapped
//! by the manifest, by the configuration, or by being these three words themselves.

use undertone_error::{Error, ErrorKind, Result};

use super::manifest::{HeadSpec, SentimentMap, Side};
use crate::HeadKind;

/// The mapping of labels that a configuration gives (`[model.labels]`). It stands over what the model folder says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelMap {
    /// The head whose labels these are; may be left out where it is clear.
    pub head: Option<String>,
    /// Labels whose probabilities are added up as negative.
    pub negative: Vec<String>,
    /// The same for neutral; may be empty.
    pub neutral: Vec<String>,
    /// The same for positive.
    pub positive: Vec<String>,
    /// Where the mapping was read from, for errors.
    pub from: String,
}

/// A mapping, and what errors call its keys and its place.
pub(crate) struct Mapping<'a> {
    /// `sentiment`, or `model.labels`.
    pub(crate) section: &'static str,
    /// `file` and its name, or `from` and the origin.
    pub(crate) place: (&'static str, &'a str),
    pub(crate) head: &'a str,
    pub(crate) negative: &'a [String],
    pub(crate) neutral: &'a [String],
    pub(crate) positive: &'a [String],
}

impl Mapping<'_> {
    fn invalid(&self, key: &str, value: &str, what: &str, help: String) -> Error {
        let key = if key.is_empty() { self.section.to_owned() } else { format!("{}.{key}", self.section) };
        let error = Error::new(ErrorKind::InvalidConfig, format!("{key} {what}")).with(self.place.0, self.place.1);
        let error = error.with("key", key);
        let error = if value.is_empty() { error } else { error.with("value", value) };
        error.help(help)
    }

    /// The mapping over the heads of a model.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the key, the value and what would be right.
    pub(crate) fn apply(&self, heads: &[HeadSpec]) -> Result<SentimentMap> {
        let found = heads.iter().enumerate().find(|(_, head)| head.name == self.head);
        let Some((index, head)) = found else {
            let names = heads.iter().map(|head| head.name.as_str()).collect::<Vec<_>>().join(", ");
            let help = match heads {
                [] => "the model has none: it only embeds".to_owned(),
                _ => format!("its heads are {names}"),
            };
            return Err(self.invalid("head", self.head, "names no head of the model", help));
        };
        if head.kind != HeadKind::Softmax {
            let help = "polarity needs labels that exclude each other".to_owned();
            return Err(self.invalid("head", self.head, "is not a softmax head", help));
        }
        let known = || format!("its labels are {}", head.labels.join(", "));
        let sides = [
            (Side::Negative, "negative", self.negative),
            (Side::Neutral, "neutral", self.neutral),
            (Side::Positive, "positive", self.positive),
        ];
        let mut mapped: Vec<Option<Side>> = vec![None; head.labels.len()];
        for (side, key, labels) in sides {
            for label in labels {
                let slot = head.labels.iter().position(|known| known == label).and_then(|at| mapped.get_mut(at));
                match slot {
                    None => return Err(self.invalid(key, label, "names no label of the head", known())),
                    Some(Some(_)) => {
                        let help = "a label has one side".to_owned();
                        return Err(self.invalid(key, label, "names a label twice", help));
                    }
                    Some(slot) => *slot = Some(side),
                }
            }
        }
        if let Some((label, _)) = head.labels.iter().zip(&mapped).find(|(_, side)| side.is_none()) {
            let help = "map every label to negative, neutral or positive".to_owned();
            return Err(self.invalid("", label, "leaves a label of the head without a side", help));
        }
        for (key, labels) in [("negative", self.negative), ("positive", self.positive)] {
            if labels.is_empty() {
                return Err(self.invalid(key, "", "lists no label", "polarity needs both sides".to_owned()));
            }
        }
        Ok(SentimentMap { head: index, sides: mapped.into_iter().flatten().collect() })
    }
}

impl LabelMap {
    /// The mapping over the heads of a model; `known` is the head that the folder itself calls its sentiment.
    pub(crate) fn apply(&self, heads: &[HeadSpec], known: Option<&str>) -> Result<SentimentMap> {
        let only = || match heads {
            [head] => Some(head.name.as_str()),
            _ => None,
        };
        let head = self.head.as_deref().or(known).or_else(only).unwrap_or_default();
        Mapping {
            section: "model.labels",
            place: ("from", &self.from),
            head,
            negative: &self.negative,
            neutral: &self.neutral,
            positive: &self.positive,
        }
        .apply(heads)
    }
}

/// The sides of labels that are the three words themselves, in whatever case and order.
pub(crate) fn obvious_sides(labels: &[String]) -> Option<Vec<Side>> {
    let sides: Vec<Side> = labels
        .iter()
        .map(|label| match label.to_lowercase().as_str() {
            "negative" => Some(Side::Negative),
            "neutral" => Some(Side::Neutral),
            "positive" => Some(Side::Positive),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let all = [Side::Negative, Side::Neutral, Side::Positive];
    (sides.len() == all.len() && all.iter().all(|side| sides.contains(side))).then_some(sides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn only_the_three_words_are_obvious() {
        let sides = obvious_sides(&words(&["Positive", "NEGATIVE", "neutral"]));
        assert_eq!(sides, Some(vec![Side::Positive, Side::Negative, Side::Neutral]));
        for labels in
            [&["LABEL_0", "LABEL_1", "LABEL_2"][..], &["negative", "positive"], &["negative", "neutral", "neg"]]
        {
            assert_eq!(obvious_sides(&words(labels)), None, "{labels:?}");
        }
    }
}
