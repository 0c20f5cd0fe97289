//! `undertone generate`: synthetic posts, one a line.

use std::time::Duration;

use tokio::time::Instant;
use undertone_collectors::generator::{Generator, GeneratorConfig};
use undertone_error::{Error, ErrorKind, Result};

use super::output::Output;
use crate::Outcome;
use crate::cli::GenerateArgs;

pub(crate) async fn generate(args: GenerateArgs) -> Result<Outcome> {
    let start_us = match &args.start {
        None => jiff::Timestamp::now().as_microsecond(),
        Some(text) => text
            .parse::<jiff::Timestamp>()
            .map_err(|e| {
                let error = Error::new(ErrorKind::InvalidConfig, "value of --start is not a time").with("value", text);
                error.source(e).help("write RFC 3339, like 2026-05-01T12:00:00Z")
            })?
            .as_microsecond(),
    };
    let defaults = GeneratorConfig::default();
    let rate = args.rate.unwrap_or(defaults.rate);
    let posts = Generator::new(GeneratorConfig { seed: args.seed, start_us, rate, ..defaults })?;
    let mut output = Output::create(args.output.as_deref())?;

    let began = Instant::now();
    for post in posts.take(args.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX))) {
        if args.rate.is_some() {
            let due = Duration::from_micros(post.at_us.saturating_sub(start_us).unsigned_abs());
            if began.elapsed() < due {
                output.flush()?;
                tokio::time::sleep_until(began + due).await;
            }
        }
        output.line(&post.payload)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}
