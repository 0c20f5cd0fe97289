# Exports what Cargo needs to build and run Undertone from this checkout. Source it: `. scripts/env.sh`
# Caches live outside the checkout, so that a clean clone at the same place builds only our own crates.

UNDERTONE_CACHE="${UNDERTONE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/undertone}"
export UNDERTONE_CACHE

# torch 2.11.0's CPU libraries and headers, put there by scripts/setup.py.
export LIBTORCH="$UNDERTONE_CACHE/libtorch-2.11.0-cpu/torch"

# Intermediate files of this checkout; the finished binary is in its target/. Not one folder for every checkout: Cargo names
# them by their place in the workspace, so that one checkout would take another's crates for its own.
CARGO_BUILD_BUILD_DIR="$UNDERTONE_CACHE/build/$(pwd -P | cksum | cut -d ' ' -f 1)"
export CARGO_BUILD_BUILD_DIR

# The binary finds libtorch where setup put it. Flags are parted by the unit separator, since a path may hold spaces.
unit_separator=$(printf '\037')
CARGO_ENCODED_RUSTFLAGS="-Clink-arg=-Wl,-rpath,$LIBTORCH/lib"
if command -v mold >/dev/null 2>&1; then
    CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS$unit_separator-Clink-arg=-fuse-ld=mold"
fi
export CARGO_ENCODED_RUSTFLAGS
unset unit_separator
