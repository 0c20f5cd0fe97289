//! `undertone model verify`: does the model compute here what it computed where it was made?
//!
//! A model folder may hold `reference.json`: texts, and what Python says about them in fp32. They go through the whole
//! core, normaliser and tokeniser included, on the device and in the precision that were asked for.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use undertone_error::{Error, ErrorKind, Result};
use undertone_inference::{EngineConfig, Lane, Scored};

use super::model::start_engine;
use super::output::Output;
use crate::Outcome;

const FILE: &str = "reference.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    format: u32,
    made_by: String,
    texts: Vec<Entry>,
}

/// A text and what it should come to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    text: String,
    embedding: Vec<f32>,
    /// By head, one probability a label.
    heads: BTreeMap<String, Vec<f32>>,
}

/// How far a precision may be from fp32.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tolerance {
    /// The mean cosine between embedding and reference, at least.
    cosine: f64,
    /// The mean over texts of the largest difference of a probability, at most.
    probability: f64,
}

impl Tolerance {
    /// Means, as the promises about precisions are: a single text near a border may move further.
    fn of(precision: &str) -> Self {
        match precision {
            "fp32" => Self { cosine: 0.99999, probability: 1e-4 },
            "int8" => Self { cosine: 0.998, probability: 0.03 },
            _ => Self { cosine: 0.9999, probability: 0.01 },
        }
    }
}

/// How far a model is from its reference.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Distance {
    mean_cosine: f64,
    least_cosine: f64,
    mean_probability: f64,
    most_probability: f64,
}

impl Distance {
    fn within(&self, tolerance: Tolerance) -> bool {
        // Written so that a value that is not a number is outside.
        self.mean_cosine >= tolerance.cosine && self.mean_probability <= tolerance.probability
    }
}

pub(super) async fn verify(dir: &Path, config: EngineConfig) -> Result<Outcome> {
    let reference = read(dir)?;
    let engine = start_engine(dir, config).await?;
    let info = engine.model().clone();
    let texts = reference.texts.iter().map(|entry| entry.text.clone()).collect();
    let scored = engine.score_all(texts, Lane::Bulk).await.into_iter().collect::<Result<Vec<_>>>();
    engine.shutdown().await;
    let distance = measure(&reference.texts, &scored?)?;
    let tolerance = Tolerance::of(&info.precision);

    let mut output = Output::create(None)?;
    let mut row = |name: &str, value: String| output.line(format!("{name:<12} {value}").as_bytes());
    row("model", format!("{} ({})", info.name, info.short_revision()))?;
    row("runs", format!("{} on {} by {}", info.precision, info.device, info.kernels))?;
    row("reference", format!("{} texts, made by {}", reference.texts.len(), reference.made_by))?;
    row(
        "cosine",
        format!(
            "mean {:.6}, least {:.6}; at least {} in the mean",
            distance.mean_cosine, distance.least_cosine, tolerance.cosine
        ),
    )?;
    row(
        "probability",
        format!(
            "off by {:.1e} in the mean, {:.1e} at most; at most {:.0e} in the mean",
            distance.mean_probability, distance.most_probability, tolerance.probability
        ),
    )?;
    let within = distance.within(tolerance);
    row("verdict", if within { "as it should be" } else { "outside the tolerance of the precision" }.to_owned())?;
    output.finish()?;
    Ok(if within { Outcome::Done } else { Outcome::SomeFailed })
}

fn read(dir: &Path) -> Result<Reference> {
    let fail = |kind, message: &str| Error::new(kind, message).with("path", dir.display()).with("file", FILE);
    let json = std::fs::read(dir.join(FILE)).map_err(|error| {
        fail(ErrorKind::NotFound, "model folder has no reference to verify against")
            .source(error)
            .help("name a model folder that holds reference.json; models/reference.py shows how one is made")
    })?;
    let reference: Reference = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&json))
        .map_err(|error| {
            let key = error.path().to_string();
            fail(ErrorKind::InvalidConfig, "reference does not say what it must")
                .with("key", key)
                .source(error.into_inner())
        })?;
    if reference.format != 1 {
        return Err(fail(ErrorKind::Unsupported, "reference is of a format that we do not know")
            .with("format", reference.format)
            .help("format 1 is known"));
    }
    if reference.texts.is_empty() {
        return Err(fail(ErrorKind::InvalidConfig, "reference has no texts").help("make it again"));
    }
    Ok(reference)
}

fn measure(entries: &[Entry], scored: &[Scored]) -> Result<Distance> {
    let mut distance = Distance { least_cosine: 1.0, ..Distance::default() };
    for (entry, scored) in entries.iter().zip(scored) {
        let cosine = cosine(&entry.embedding, &scored.embedding)?;
        let mut most = 0.0_f64;
        for (name, expected) in &entry.heads {
            let found = scored.heads.iter().find(|head| *head.head == **name).map(|head| &head.probabilities);
            let Some(found) = found.filter(|found| found.len() == expected.len()) else {
                return Err(Error::new(ErrorKind::InvalidConfig, "reference is of another model")
                    .with("head", name)
                    .help("make reference.json again for this model folder"));
            };
            for (a, b) in expected.iter().zip(found) {
                most = most.max(f64::from((a - b).abs()));
            }
        }
        let texts = entries.len() as f64;
        distance.mean_cosine += cosine / texts;
        distance.least_cosine = distance.least_cosine.min(cosine);
        distance.mean_probability += most / texts;
        distance.most_probability = distance.most_probability.max(most);
    }
    Ok(distance)
}

fn cosine(a: &[f32], b: &[f32]) -> Result<f64> {
    if a.len() != b.len() {
        return Err(Error::new(ErrorKind::InvalidConfig, "reference is of a model with another width")
            .with("reference", a.len())
            .with("model", b.len())
            .help("make reference.json again for this model folder"));
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    Ok(dot(a, b) / (dot(a, a) * dot(b, b)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_that_is_no_number_is_outside() {
        let tolerance = Tolerance::of("bf16");
        let good = Distance { mean_cosine: 0.99995, mean_probability: 0.001, ..Distance::default() };
        assert!(good.within(tolerance) && !good.within(Tolerance::of("fp32")));
        assert!(!Distance { mean_cosine: f64::NAN, ..good }.within(tolerance));
        assert!(!Distance { mean_probability: f64::NAN, ..good }.within(tolerance));
    }

    #[test]
    fn cosine_of_vectors_of_other_widths_is_refused() {
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]).expect("a number") - 0.5_f64.sqrt()).abs() < 1e-9);
        let error = cosine(&[1.0], &[1.0, 2.0]).expect_err("other widths").to_string();
        assert!(error.contains("reference: 1") && error.contains("model: 2"), "{error}");
    }
}
