//! A driver without coverage: what still means something after a mutation is an example for the next.
//!
//! The guarantee: the same seed tries the same inputs in the same order, as far as the time suffices, and what breaks a
//! target is answered as bytes.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use crate::{
    Target,
    mutate::{Chance, mutate},
};

/// As many are tried however slow the machine is.
const LEAST: u64 = 200;

/// Examples that are kept beside the good ones.
const KEPT: usize = 256;

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// How many inputs.
    pub tried: u64,
    /// How many of them meant something.
    pub understood: u64,
}

/// An input that broke a target.
#[derive(Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// Which one it was, counted from 0; `None` for a good example.
    pub number: Option<u64>,
    /// What it broke.
    pub reason: String,
}

/// Runs a target on one input.
///
/// # Errors
/// What broke.
pub fn check(target: &Target, input: &[u8]) -> Result<bool, String> {
    catch_unwind(AssertUnwindSafe(|| (target.read)(input))).map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Runs a target on its good examples, and then on mutations of them until the time is over.
///
/// # Errors
/// The first input that breaks it, or a good example that it does not understand.
pub fn drive(target: &Target, time: Duration, seed: u64) -> Result<Report, Failure> {
    let mut examples = (target.seeds)();
    for example in &examples {
        let reason = match check(target, example) {
            Ok(true) => continue,
            Ok(false) => "a good example means nothing to it".to_owned(),
            Err(reason) => reason,
        };
        return Err(Failure { input: example.clone(), number: None, reason });
    }
    let (good, began) = (examples.len(), Instant::now());
    let (mut chance, mut report) = (Chance(seed), Report::default());
    while report.tried < LEAST || began.elapsed() < time {
        let input = mutate(&mut chance, &examples, target.words);
        match check(target, &input) {
            Err(reason) => return Err(Failure { input, number: Some(report.tried), reason }),
            Ok(false) => {}
            Ok(true) => {
                report.understood += 1;
                match examples.len() < good + KEPT {
                    true => examples.push(input),
                    false => examples[good + chance.below(KEPT)] = input,
                }
            }
        }
        report.tried += 1;
    }
    Ok(report)
}
