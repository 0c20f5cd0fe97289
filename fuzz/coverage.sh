#!/bin/sh
# Cargo calls it in the place of rustc for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER), so that they count for libFuzzer which
# parts of them an input reaches. The flags are those of `cargo fuzz --sanitizer none`. Build scripts run without a fuzzer.
case " $* " in
*" --crate-name build_script_"*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
