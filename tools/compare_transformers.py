#!/usr/bin/env python3
"""Compares octet's FP32 embeddings with transformers' on the sentences of STS-B, and Spearman of both.

    python3 tools/compare_transformers.py build/release/octet MODEL_FOLDER ../shared/data/stsb/dev.tsv [rows]

Needs torch, transformers and scipy; a check for development, the tests need none of it.
"""
import json
import subprocess
import sys

import numpy as np
import torch
from scipy.stats import spearmanr
from transformers import AutoModel, AutoTokenizer


def main():
    octet, folder, path = sys.argv[1:4]
    limit = int(sys.argv[4]) if len(sys.argv) > 4 else 1 << 30
    rows = [line.rstrip("\n").split("\t") for line in open(path, encoding="utf-8")]
    header, rows = rows[0], [r for r in rows[1:] if len(r) == len(rows[0])][:limit]
    first, second, gold = (header.index(n) for n in ("sentence1", "sentence2", "score"))
    texts = [r[first] for r in rows] + [r[second] for r in rows]

    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    expected = []
    for i in range(0, len(texts), 32):
        batch = tokenizer(texts[i:i + 32], padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
        expected.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)))
    expected = torch.cat(expected).numpy()

    lines = "\n".join(t.replace("\t", " ") for t in texts) + "\n"
    done = subprocess.run([octet, "run", folder, "--precision", "fp32", "--json"], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    found = np.array([r["embedding"] for r in json.loads(done.stdout)], dtype=np.float32)

    n = len(rows)
    score = [float(r[gold]) for r in rows]
    cosine = lambda e: (e[:n] * e[n:]).sum(1)
    print(f"{len(texts)} sentences: largest difference {np.abs(found - expected).max():.2e} of scale {np.abs(expected).max():.3f}")
    print(f"Spearman transformers {spearmanr(cosine(expected), score)[0]:.5f}, octet {spearmanr(cosine(found), score)[0]:.5f}")


if __name__ == "__main__":
    main()
