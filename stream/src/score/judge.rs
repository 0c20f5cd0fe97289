//! Scoring texts until each is scored or proven to be at fault.
//!
//! The guarantee: a text is given up only if the scorer calls it bad input, or if it fails alone with a fault of ours and
//! a known-good text passes right after. An engine that is full, down or ill costs time and no text.
//!
//! A text that takes the device with it is no exception: the engine blames it (a fault of ours) only after the device was
//! lost, and got well, each time the text ran alone, and it must do so twice. Where no device gets well in this process,
//! the engine is down for everybody; see [`super::attempts`].

use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};

use super::scorer::{Scorer, Scores};
use crate::backoff::Backoff;

/// Any model scores this; if it does not, the model is ill.
const CANARY: &str = "The coffee here is good today.";
/// So many rounds in a row with an ill model are waited out before the stage stops.
const MAX_ILL_ROUNDS: u32 = 8;

/// What became of one text.
#[derive(Debug)]
pub(super) enum Verdict {
    Scored(Box<Scores>),
    /// It is the text's own fault.
    Poison {
        error: Error,
        attempts: u32,
    },
}

/// What an error of one text says should happen next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Try again later, with the others.
    Again,
    /// Try it alone.
    Alone,
    /// It will never be scored.
    GiveUp,
}

fn next(kind: ErrorKind) -> Next {
    use ErrorKind as K;
    match kind {
        K::InvalidInput | K::TooLarge | K::Unsupported => Next::GiveUp,
        K::Busy | K::Unavailable | K::Exhausted | K::DeadlineExceeded | K::Cancelled | K::Conflict => Next::Again,
        K::Internal | K::Corrupt | K::NotFound | K::InvalidConfig => Next::Alone,
    }
}

/// One verdict for each text, in order; `None` if the shutdown came first.
///
/// # Errors
/// The scorer's error, if it stays ill: nothing is dead-lettered for that.
pub(super) async fn judge(
    scorer: &impl Scorer,
    texts: &[&str],
    shutdown: &CancellationToken,
) -> Result<Option<Vec<Verdict>>> {
    let mut verdicts: Vec<Option<Verdict>> = texts.iter().map(|_| None).collect();
    let mut attempts = vec![0u32; texts.len()];
    let mut open: Vec<usize> = (0..texts.len()).collect();
    let mut backoff = Backoff::default();
    let mut ill_rounds = 0;
    loop {
        let batch = open.iter().filter_map(|&i| texts.get(i)).map(|&text| text.to_owned()).collect();
        let Some(results) = score(scorer, batch, shutdown).await? else { return Ok(None) };
        let mut again = Vec::new();
        let mut trouble = None;
        for (i, result) in std::mem::take(&mut open).into_iter().zip(results) {
            let (Some(text), Some(tried), Some(verdict)) = (texts.get(i), attempts.get_mut(i), verdicts.get_mut(i))
            else {
                continue;
            };
            *tried += 1;
            let Some(judged) = examine(scorer, text, result, tried, shutdown).await? else { return Ok(None) };
            match judged {
                Ok(done) => *verdict = Some(done),
                Err(error) => {
                    again.push(i);
                    trouble = Some(error);
                }
            }
        }
        let Some(error) = trouble else { break };
        ill_rounds = if next(error.kind()) == Next::Alone { ill_rounds + 1 } else { 0 };
        if ill_rounds >= MAX_ILL_ROUNDS {
            return Err(error.help("the model fails on good texts too; nothing was dead-lettered for it"));
        }
        tracing::warn!(%error, posts = again.len(), "scoring failed, trying again");
        if !backoff.wait(shutdown).await {
            return Ok(None);
        }
        open = again;
    }
    Ok(verdicts.into_iter().collect())
}

/// A verdict, or the error for which the text must be tried again. `None` if the shutdown came first.
async fn examine(
    scorer: &impl Scorer,
    text: &str,
    result: Result<Scores>,
    attempts: &mut u32,
    shutdown: &CancellationToken,
) -> Result<Option<Result<Verdict, Error>>> {
    let error = match result {
        Ok(scores) => return Ok(Some(Ok(Verdict::Scored(Box::new(scores))))),
        Err(error) => error,
    };
    match next(error.kind()) {
        Next::GiveUp => return Ok(Some(Ok(Verdict::Poison { error, attempts: *attempts }))),
        Next::Again => return Ok(Some(Err(error))),
        Next::Alone => {}
    }
    *attempts += 1;
    let Some(alone) = score(scorer, vec![text.to_owned()], shutdown).await? else { return Ok(None) };
    let error = match alone.into_iter().next() {
        Some(Ok(scores)) => return Ok(Some(Ok(Verdict::Scored(Box::new(scores))))),
        Some(Err(error)) => error,
        None => error,
    };
    if next(error.kind()) == Next::Again {
        return Ok(Some(Err(error)));
    }
    let Some(canary) = score(scorer, vec![CANARY.to_owned()], shutdown).await? else { return Ok(None) };
    Ok(Some(match canary.into_iter().next() {
        Some(Ok(_)) => Ok(Verdict::Poison { error, attempts: *attempts }),
        Some(Err(ill)) => Err(ill),
        None => Err(error),
    }))
}

async fn score(
    scorer: &impl Scorer,
    texts: Vec<String>,
    shutdown: &CancellationToken,
) -> Result<Option<Vec<Result<Scores>>>> {
    let wanted = texts.len();
    let results = tokio::select! {
        () = shutdown.cancelled() => return Ok(None),
        results = scorer.score_all(texts) => results,
    };
    if results.len() != wanted {
        let error = Error::new(ErrorKind::Internal, "scorer answered another number of texts than it was asked");
        return Err(error.with("asked", wanted).with("answered", results.len()));
    }
    Ok(Some(results))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::fake::Fake;

    async fn verdicts(fake: &Fake, texts: &[&str]) -> Result<Vec<Verdict>> {
        judge(fake, texts, &CancellationToken::new()).await.map(|verdicts| verdicts.expect("no shutdown"))
    }

    fn poisoned(verdicts: &[Verdict]) -> Vec<bool> {
        verdicts.iter().map(|verdict| matches!(verdict, Verdict::Poison { .. })).collect()
    }

    #[tokio::test]
    async fn bad_input_and_what_fails_alone_are_given_up_and_nothing_else() {
        let fake = Fake::default();
        let found = verdicts(&fake, &["good", "toolarge", "internal", "busy twice", "flaky in company"]).await.unwrap();
        assert_eq!(poisoned(&found), [false, true, true, false, false]);
        let attempts: Vec<_> = found
            .iter()
            .filter_map(|verdict| match verdict {
                Verdict::Poison { attempts, .. } => Some(*attempts),
                Verdict::Scored(_) => None,
            })
            .collect();
        assert_eq!(attempts, [1, 2]);
    }

    #[tokio::test]
    async fn an_ill_model_costs_no_text() {
        let fake = Fake::default();
        fake.ill_for(6);
        let found = verdicts(&fake, &["good", "fine"]).await.unwrap();
        assert_eq!(poisoned(&found), [false, false]);
    }

    #[tokio::test]
    async fn a_shutdown_ends_the_waiting() {
        let fake = Fake::default();
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert!(judge(&fake, &["always busy"], &shutdown).await.unwrap().is_none());
    }

    #[test]
    fn every_transient_kind_is_tried_again() {
        for kind in [ErrorKind::Busy, ErrorKind::Unavailable, ErrorKind::Exhausted, ErrorKind::DeadlineExceeded] {
            assert_eq!(next(kind), Next::Again, "{kind:?}");
        }
    }
}
