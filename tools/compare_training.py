#!/usr/bin/env python3
"""The first losses of `octet finetune` beside those of transformers: same weights, same batches, FP32, on a CPU.

    python3 tools/compare_training.py MODEL_FOLDER mnli.tsv --octet build/release/octet --text sentence1 --pair sentence2

Needs torch and transformers. transformers gives the model a fresh head and writes it; both start from that folder, without
dropout, with AdamW and a linear schedule. octet's order of rows (src/train/schedule.cpp) is computed here again.
"""
import argparse
import csv
import json
import os
import subprocess
import tempfile

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MASK = (1 << 64) - 1


def order(count, seed):
    state = (seed * 0x9E3779B97F4A7C15 + 1) & MASK
    rows = list(range(count))
    for i in range(count, 1, -1):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        other = (z ^ (z >> 31)) % i
        rows[i - 1], rows[other] = rows[other], rows[i - 1]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--octet", default="build/release/octet")
    parser.add_argument("--text", default="sentence1")
    parser.add_argument("--pair", default="sentence2")
    parser.add_argument("--label", default="label")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--bound", type=float, default=1e-3)
    a = parser.parse_args()
    with open(a.data, newline="", encoding="utf-8") as file:
        rows = [r for _, r in zip(range(a.steps * a.batch), csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))]
    names = sorted({r[a.label] for r in rows})
    torch.manual_seed(a.seed)
    config = {"num_labels": len(names), "id2label": dict(enumerate(names)),
              "label2id": {n: i for i, n in enumerate(names)}, "hidden_dropout_prob": 0.0,
              "attention_probs_dropout_prob": 0.0}
    model = AutoModelForSequenceClassification.from_pretrained(a.model, dtype=torch.float32, **config)
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    with tempfile.TemporaryDirectory() as folder:
        start, data, out = (os.path.join(folder, n) for n in ("start", "data.tsv", "out"))
        model.save_pretrained(start)
        tokenizer.save_pretrained(start)
        with open(data, "w", encoding="utf-8") as file:
            file.write("sentence1\tsentence2\tlabel\n")
            file.writelines(f"{r[a.text]}\t{r[a.pair]}\t{r[a.label]}\n" for r in rows)
        subprocess.run([a.octet, "finetune", start, "--train", data, "-o", out, "--lr", str(a.rate), "--batch",
                        str(a.batch), "--max-length", str(a.length), "--max-steps", str(a.steps), "--dropout", "0",
                        "--no-group-by-length", "--log-every", "1", "--device", "cpu", "--seed", str(a.seed)],
                       check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(out, "metrics.jsonl"), encoding="utf-8") as file:
            mine = [json.loads(line)["loss"] for line in file]
    plain = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
    decayed = [p for n, p in model.named_parameters() if not ("bias" in n or "LayerNorm" in n)]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
                                  lr=a.rate, betas=(0.9, 0.999), eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / a.steps)
    model.train()
    shuffled, worst = order(len(rows), a.seed), 0.0
    for step in range(a.steps):
        batch = [rows[i] for i in shuffled[step * a.batch:(step + 1) * a.batch]]
        encoded = tokenizer([r[a.text] for r in batch], [r[a.pair] for r in batch], truncation=True,
                            max_length=a.length, padding=True, return_tensors="pt")
        loss = model(**encoded, labels=torch.tensor([names.index(r[a.label]) for r in batch])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        difference = abs(loss.item() - mine[step])
        worst = max(worst, difference)
        print(f"step {step + 1:3}  transformers {loss.item():.7f}  octet {mine[step]:.7f}  difference {difference:.2e}", flush=True)
    print(f"largest difference {worst:.2e}: {'within' if worst <= a.bound else 'BEYOND'} {a.bound:g}")
    raise SystemExit(worst > a.bound)


if __name__ == "__main__":
    main()
