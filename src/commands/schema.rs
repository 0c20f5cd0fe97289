//! `undertone schema`: what a post may be, for those who send them.

use undertone_error::Result;
use undertone_proto::Post;

use super::output::Output;
use crate::Outcome;

pub(crate) fn schema() -> Result<Outcome> {
    let mut output = Output::create(None)?;
    output.line(Post::SCHEMA.trim_end().as_bytes())?;
    output.finish()?;
    Ok(Outcome::Done)
}
