# Exports what Cargo needs to build and run Undertone from this checkout. Source it: `. scripts/env.sh`
# Caches live outside the checkout, so that a second clean clone on the same machine builds only our own crates.

UNDERTONE_CACHE="${UNDERTONE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/undertone}"
export UNDERTONE_CACHE

# torch 2.11.0's CPU libraries and headers, put there by scripts/setup.
export LIBTORCH="$UNDERTONE_CACHE/libtorch-2.11.0-cpu/torch"

# Intermediate files of every checkout share one folder; the finished binary stays in the checkout's own target/.
export CARGO_BUILD_BUILD_DIR="$UNDERTONE_CACHE/build"

# The binary finds libtorch where setup put it, or, in the tarball of `make dist`, in the lib/ beside its bin/.
RUSTFLAGS="-C link-arg=-Wl,-rpath,$LIBTORCH/lib -C link-arg=-Wl,-rpath,\$ORIGIN/../lib"
if command -v mold >/dev/null 2>&1; then RUSTFLAGS="$RUSTFLAGS -C link-arg=-fuse-ld=mold"; fi
export RUSTFLAGS
