//! libFuzzer's way in. `UNDERTONE_FUZZ_TARGET` names the decoder; one program has all of them, since each would link the whole
//! gateway. `UNDERTONE_FUZZ_FOLDER` is where its good examples and the words of its format are put, for libFuzzer to begin with.
//!
//! `fuzz/run.py` builds it with coverage of our own crates, and runs it for each decoder.
#![no_main]
#![allow(clippy::expect_used, reason = "a fuzzer that cannot begin must not seem to find nothing")]

use std::{env, path::Path, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use undertone_fuzz::{Target, find, lay_out};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn target() -> &'static Target {
    TARGET.get_or_init(|| {
        let target = find(&env::var("UNDERTONE_FUZZ_TARGET").expect("UNDERTONE_FUZZ_TARGET names a decoder"));
        if let Some(folder) = env::var_os("UNDERTONE_FUZZ_FOLDER") {
            lay_out(target, Path::new(&folder)).expect("a folder to write to");
        }
        target
    })
}

fuzz_target!(
    init: {
        target();
    },
    |bytes: &[u8]| {
        (target().read)(bytes);
    }
);
