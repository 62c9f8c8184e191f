#!/usr/bin/env python3
"""Times octet's tokenizer against Hugging Face `tokenizers`, alternating in one run, one thread each.

Both encode all pairs of a TSV file (MNLI dev by default), offsets included, from text in memory to ids in memory; the best of the rounds counts.
Development time only.
usage: bench_tokenizer.py PROBE SHARED [FOLDER ...]      PROBE is build/release/tests/tokenizer_probe
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer  # noqa: E402

ROUNDS = 5


def main():
    probe, shared = sys.argv[1], pathlib.Path(sys.argv[2])
    folders = sys.argv[3:] or [str(shared / "tokenizers/bert-base-uncased"), str(shared / "tokenizers/roberta-base")]
    lines = [line.split("\t") for line in (shared / "data/mnli/dev_matched.tsv").read_text().split("\n")[1:] if line]
    pairs = [(line[1], line[2]) for line in lines]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(p) + "\n" for p in pairs))
        file.flush()
        for folder in folders:
            tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
            tokenizer.no_truncation()
            tokenizer.no_padding()
            theirs = ours = 1e30
            threaded = 1e30
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                encodings = tokenizer.encode_batch(pairs)
                theirs = min(theirs, time.perf_counter() - begin)
                result = json.loads(subprocess.run([probe, "bench", folder, file.name, "2", "1"], capture_output=True, text=True, check=True).stdout)
                ours = min(ours, result["seconds"])
                threaded = min(threaded, json.loads(subprocess.run([probe, "bench", folder, file.name, "2", "2"], capture_output=True, text=True, check=True).stdout)["seconds"])
            tokens = sum(len(e.ids) for e in encodings)
            assert tokens == result["tokens"], (tokens, result["tokens"])
            print(f"{pathlib.Path(folder).name}: {len(pairs)} pairs, {tokens} tokens · tokenizers {theirs * 1e3:.1f} ms ({tokens / theirs / 1e6:.2f} M tokens/s) · "
                  f"octet {ours * 1e3:.1f} ms ({tokens / ours / 1e6:.2f} M tokens/s) · {theirs / ours:.1f}x · 2 threads {threaded * 1e3:.1f} ms · load {result['load_seconds']:.2f} s", flush=True)


main()
