//! Each decoder on mutations of good examples, for a second. `UNDERTONE_FUZZ_SECONDS` and `UNDERTONE_FUZZ_SEED` ask for more or
//! for others; `UNDERTONE_FUZZ_FILE` names an input that is tried alone.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "what fails is said and fails the test")]

use std::{env, fs, panic, sync::Once, time::Duration};

use undertone_fuzz::{Failure, TARGETS, check, drive, find};

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Decoders of others panic, and ours catch that: thousands of backtraces would say nothing.
static QUIET: Once = Once::new();

fn fuzz(name: &str) {
    let target = find(name);
    if let Ok(file) = env::var("UNDERTONE_FUZZ_FILE") {
        let understood = check(target, &fs::read(file).expect("a file")).expect("the input breaks nothing");
        println!("{name}: the input {}", if understood { "means something" } else { "means nothing" });
        return;
    }
    QUIET.call_once(|| panic::set_hook(Box::new(|_| {})));
    let seed = number("UNDERTONE_FUZZ_SEED", 20_260_501);
    match drive(target, Duration::from_secs(number("UNDERTONE_FUZZ_SECONDS", 1)), seed) {
        Ok(report) => println!("{name}: {report:?}"),
        Err(Failure { input, number, reason }) => {
            let file = env::temp_dir().join(format!("undertone-fuzz-{name}-{seed}"));
            fs::write(&file, &input).expect("the input is kept");
            let shown: String = input.iter().take(1000).flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
            let which = number.map_or("a good example".to_owned(), |number| format!("input {number} of seed {seed}"));
            println!("{name}: {which}: {reason}\n{} bytes, in {}: {shown}", input.len(), file.display());
            panic!("{name} was broken");
        }
    }
}

macro_rules! decoders {
    ($($name:ident)*) => {
        $(#[test] fn $name() { fuzz(stringify!($name)); })*

        #[test]
        fn every_target_is_driven() {
            let driven = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), driven);
        }
    };
}

decoders! {
    score embed stream arrow posts replay openai tei query headers grpc event mapped records text rows compressed parquet dead_letters
    segment frames
}
