#!/usr/bin/env bash
# Makes target/dist/undertone-VERSION-x86_64-linux.tar.gz: binary, libtorch's CPU libraries, the model, licences. The
# binary finds its libraries in ../lib and its model in ../models, wherever the tarball is unpacked.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked
version=$(./target/release/undertone --version | cut -d' ' -f2)
name="undertone-$version-x86_64-linux"
folder="target/dist/$name"
rm -rf "$folder"
mkdir -p "$folder"/{bin,lib,models}

strip -o "$folder/bin/undertone" target/release/undertone
# Only the folder beside the binary may be looked at: this machine's cache folder means nothing elsewhere.
patchelf --set-rpath '$ORIGIN/../lib' "$folder/bin/undertone"
cp -L "$LIBTORCH"/lib/{libc10.so,libtorch.so,libtorch_cpu.so,libgomp.so.1} "$folder/lib/"
cp -L "$LIBTORCH"/../nvidia/cu13/lib/{libcudart.so.13,libcupti.so.13} "$folder/lib/"
cp -rL models/sentiment "$folder/models/"
cp LICENSE README.md "$folder/"

cp -r "$LIBTORCH/../licenses" "$folder/licenses"
cp -r "$UNDERTONE_CACHE/all-MiniLM-L6-v2/licenses" "$folder/licenses/all-MiniLM-L6-v2"
cp gateway/page/dist/licenses.txt "$folder/licenses/page.txt"
cargo metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu | python3 scripts/crate-licenses.py > "$folder/licenses/crates.txt"

tar -C target/dist -czf "target/dist/$name.tar.gz" "$name"
ls -lh "target/dist/$name.tar.gz"
