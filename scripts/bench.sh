#!/usr/bin/env bash
# FP32 against INT8 on this machine, at the shapes of the README. Run by `make bench`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -f build/demo/minilm-fp32.octet ] && [ -f build/demo/minilm-int8.octet ] || scripts/models.sh
build/release/octet bench build/demo/minilm-fp32.octet build/demo/minilm-int8.octet --shapes "${SHAPES:-1x16,1x128,8x128,32x64}" \
  --threads "${THREADS:-$(nproc)}"
