//! The revision: one name for exactly these bytes. It stands on every record, so that a score can be traced to the model
//! that gave it, and changes whenever a file of the model changes.

use std::fs::File;
use std::io::Read;

use sha2::{Digest, Sha256};
use undertone_error::Result;

use super::folder::{ModelFolder, cannot_read};

/// SHA-256 over name, length and contents of the model's files in their fixed order; 64 hex digits.
pub(crate) fn revision(folder: &ModelFolder) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for name in folder.files() {
        let failed = |error| cannot_read(folder.path(), &name, error);
        let mut file = File::open(folder.path().join(&name)).map_err(failed)?;
        // The length keeps two files from being read as one longer and one shorter file.
        let length = file.metadata().map_err(failed)?.len();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(length.to_le_bytes());
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
    }
    // A mapping of the configuration's own gives another polarity, so it is another model to whoever compares scores.
    if let Some(labels) = folder.remapped() {
        let sides = [&labels.negative, &labels.neutral, &labels.positive];
        hash.update(format!("labels{:?}{sides:?}", folder.manifest().sentiment_head()));
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
