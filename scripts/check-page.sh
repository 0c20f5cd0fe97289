#!/usr/bin/env bash
# The page's built files are committed so that building the binary needs no Node. This shows that they are what the
# source makes: type check, unit tests, a fresh build, and no difference.
set -euo pipefail
cd "$(dirname "$0")/../gateway/page"

npm ci --no-audit --no-fund --loglevel=error
npm run --silent check
npm test --silent
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
npm run --silent build -- --outDir "$fresh" --emptyOutDir
if ! diff -r dist "$fresh"; then
    echo "gateway/page/dist is not what the source builds; run 'make page' and commit the result" >&2
    exit 1
fi
echo "gateway/page/dist is what the source builds"
