//! Good examples and words as files, for fuzzers that begin with a folder.

use std::{fs, io, path::Path};

use crate::Target;

/// Writes the good examples of a target to `corpus/` of a folder, one a file, and the words of its format to `words`, as a
/// dictionary of libFuzzer's.
///
/// # Errors
/// Those of the disk.
pub fn lay_out(target: &Target, folder: &Path) -> io::Result<()> {
    let corpus = folder.join("corpus");
    fs::create_dir_all(&corpus)?;
    for (number, example) in (target.seeds)().iter().enumerate() {
        fs::write(corpus.join(format!("good-{number}")), example)?;
    }
    // An empty dictionary is an error to libFuzzer; one of comments is none.
    let heading = format!("# words of {}\n", target.name);
    fs::write(folder.join("words"), target.words.iter().fold(heading, |lines, word| lines + &entry(word)))
}

/// A line of a dictionary: printable characters stand for themselves but for quote and backslash.
fn entry(word: &str) -> String {
    let mut line = String::from("\"");
    for byte in word.bytes() {
        match byte {
            b'"' | b'\\' => line.extend(['\\', char::from(byte)]),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => line.push_str(&format!("\\x{byte:02X}")),
        }
    }
    line.push_str("\"\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_written_as_libfuzzer_reads_them() {
        for (word, wanted) in [("null", "\"null\"\n"), ("\"a\\", "\"\\\"a\\\\\"\n"), ("é\n", "\"\\xC3\\xA9\\x0A\"\n")]
        {
            assert_eq!(entry(word), wanted);
        }
    }

    #[test]
    fn every_good_example_is_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = crate::find("rows");
        lay_out(target, folder.path()).expect("written");
        for (number, example) in (target.seeds)().iter().enumerate() {
            assert_eq!(&fs::read(folder.path().join(format!("corpus/good-{number}"))).expect("a file"), example);
        }
        let words = fs::read_to_string(folder.path().join("words")).expect("a file");
        assert_eq!(words.lines().count(), 1 + target.words.len());
    }
}
