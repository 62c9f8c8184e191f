#!/usr/bin/env bash
# Makes build/demo: the model's folder, the split data, a calibration file, and the FP32 and INT8 plans. Used by demo and bench.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=${OCTET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/octet}
octet=build/release/octet
out=build/demo

step() { printf '\n$ %s\n' "$*" && "$@"; }

rm -rf "$out"
mkdir -p "$out"
cp -r "$cache/minilm" "$out/minilm"
step build/release/examples/example_reviews split "$cache/movie_reviews.tsv" "$out"
# Ranges come from training sentences only; the test sentences are not looked at.
step $octet calibrate "$out/minilm" --data "$out/train.tsv" --samples 256 -o "$out/minilm.calib.safetensors"
step $octet compile "$out/minilm" --precision fp32 --device cpu -o "$out/minilm-fp32.octet"
step $octet compile "$out/minilm" --calib "$out/minilm.calib.safetensors" --precision int8 --device cpu -o "$out/minilm-int8.octet"
