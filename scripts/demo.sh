#!/usr/bin/env bash
# The demo: a Hugging Face folder becomes an INT8 plan; both are compared on real sentences. Run by `make demo`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=build/demo
step() { printf '\n$ %s\n' "$*" && "$@"; }

scripts/models.sh
step build/release/examples/example_reviews compare "$out/minilm-fp32.octet" "$out/minilm-int8.octet" "$out" --json "$out/result.json"
step build/release/octet explain "$out/minilm-int8.octet"
step build/release/examples/example_search "$out/minilm-int8.octet" "$out/test.tsv" "a moving story about growing up"
printf '\nin %s: the model folder minilm, minilm-fp32.octet, minilm-int8.octet, result.json\n' "$out"
