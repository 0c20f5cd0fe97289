//! `undertone key`: keys for callers of the gateway.
//!
//! A new key is 244 bits of the system's chance. It is printed once and kept nowhere; the configuration holds its hash,
//! from which nobody gets it back.

use sha2::{Digest, Sha256};
use undertone_error::{Error, ErrorKind, Result};
use uuid::Uuid;

use super::output::Output;
use crate::Outcome;
use crate::cli::{KeyArgs, KeyCommand};

pub(crate) fn key(args: KeyArgs) -> Result<Outcome> {
    let KeyCommand::New { name } = args.command;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        let error = Error::new(ErrorKind::InvalidInput, "name of a key is not usable").with("name", name);
        return Err(error.help("small letters, digits, '-' and '_', at most 64"));
    }
    let key = format!("ut_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let mut output = Output::create(None)?;
    output.line(key.as_bytes())?;
    output.finish()?;
    tell(&name, &key);
    Ok(Outcome::Done)
}

#[allow(clippy::print_stderr, reason = "the command line's own voice; standard output is the key alone")]
fn tell(name: &str, key: &str) {
    eprintln!("\n[gateway.keys.{name}]\nsha256 = \"{:x}\"", Sha256::digest(key));
    eprintln!("# rate = 100        # texts a second; left out, as many as fit");
}
