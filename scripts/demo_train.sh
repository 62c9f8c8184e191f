#!/usr/bin/env bash
# The training demo: fine-tune, calibrate, train quantized, export, compile; accuracy of each stage on the engine. Run by `make demo-train`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=${OCTET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/octet}
octet=build/release/octet
out=build/demo-train

step() { printf '\n$ %s\n' "$*" && "$@"; }

rm -rf "$out"
mkdir -p "$out"
step build/release/examples/example_reviews split "$cache/movie_reviews.tsv" "$out"
step $octet finetune "$cache/minilm" --labels negative,positive --train "$out/train.tsv" --epochs 2 --lr 5e-5 -o "$out/tuned"
# Ranges come from training sentences only; the test sentences are not looked at before the end.
step $octet calibrate "$out/tuned" --data "$out/train.tsv" --samples 256 -o "$out/tuned.calib.safetensors"
step $octet qat "$out/tuned" --calib "$out/tuned.calib.safetensors" --train "$out/train.tsv" --epochs 1 --lr 1e-6 -o "$out/qat"
step $octet export "$out/qat" --calib "$out/qat/octet_calibration.safetensors" -o "$out/qat.onnx"
step $octet compile "$out/tuned" --precision fp32 --device cpu -o "$out/float.octet"
step $octet compile "$out/tuned" --calib "$out/tuned.calib.safetensors" --device cpu -o "$out/ptq.octet"
step $octet compile "$out/qat" --device cpu -o "$out/qat.octet"

# Evaluates NAME.octet on the test sentences and compares its labels with those of the float plan.
evaluate() {
  printf '\n$ %s\n' "$octet eval $out/$1.octet --data $out/test.tsv --against $out/float.octet --json"
  $octet eval "$out/$1.octet" --data "$out/test.tsv" --against "$out/float.octet" --json >"$out/$1.json"
}
for plan in float ptq qat; do evaluate $plan; done

number() { sed -nE "s/^ *\"$2\": ([0-9.e+-]+),?$/\1/p" "$out/$1.json" | head -1; }
row() {
  printf '%-42s %8.4f %14.4f %10.1f\n' "$2" "$(number "$1" accuracy)" "$(number "$1" equal_labels)" \
    "$(awk -v bytes="$(stat -c %s "$out/$1.octet")" 'BEGIN { print bytes / 1e6 }')"
}
printf '\n%-42s %8s %14s %10s\n' "on the engine, $(number float rows) test sentences" accuracy 'labels = FP32' 'file, MB'
row float "fine-tuned, FP32"
row ptq "calibrated, INT8"
row qat "trained quantized (QAT), INT8"
printf '\nin %s: the folders tuned and qat (transformers loads both), qat.onnx (QDQ), the three plans, and what eval said of each\n' "$out"
