#!/usr/bin/env python3
"""Makes tests/data/train/*.json: losses and gradients of the tiny checkpoints of tests/data/hf, computed by transformers in FP64.

Development time only (needs torch, transformers). Each file: {"rows": [{"ids", "type_ids", "label"}], "loss", "gradients": {name:
{"norm", "elements": {index: value}, "dots": [4 sums of value[i] * cos(i * (k + 1) + k)]}}, "losses": 200 full-batch steps of AdamW}.
Padding is used here and not in octet: that both agree is part of the test.
"""
import json
import math
import pathlib
import sys

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
ONLY = sys.argv[1:]  # some of the checkpoints
LEARNING_RATE, WEIGHT_DECAY, STEPS, WARMUP, CLIP = 1e-3, 0.01, 200, 20, 1.0


def padded(rows, pad):
    longest = max(len(row["ids"]) for row in rows)
    fill = lambda values, by: values + [by] * (longest - len(values))
    return dict(input_ids=torch.tensor([fill(row["ids"], pad) for row in rows]),
                token_type_ids=torch.tensor([fill(row["type_ids"], 0) for row in rows]),
                attention_mask=torch.tensor([fill([1] * len(row["ids"]), 0) for row in rows]),
                labels=torch.tensor([row["label"] for row in rows]))


def summary(gradient):
    flat = gradient.flatten().tolist()
    places = sorted({(i * 7919) % len(flat) for i in range(12)})
    return {"norm": gradient.norm().item(), "elements": {str(i): flat[i] for i in places},
            "dots": [sum(v * math.cos(i * (k + 1) + k) for i, v in enumerate(flat)) for k in range(4)]}


def main():
    (ROOT / "train").mkdir(exist_ok=True)
    for name in ONLY or ("bert-classification", "roberta-classification", "mpnet-classification"):
        folder = ROOT / "hf" / name
        if not folder.exists():
            continue
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
        model.eval()  # no dropout
        config = model.config
        generator = torch.Generator().manual_seed(5)
        rows = []
        for length in (3, 9, 16, 16, 22, 5, 12, 1):
            ids = torch.randint(3, config.vocab_size, (length,), generator=generator).tolist()
            types = torch.randint(0, max(1, getattr(config, "type_vocab_size", 1)), (length,), generator=generator).tolist()
            rows.append({"ids": ids, "type_ids": types, "label": len(rows) % config.num_labels})
        batch = padded(rows, config.pad_token_id)
        if config.model_type == "mpnet":
            batch.pop("token_type_ids")
        loss = model(**batch).loss
        loss.backward()
        golden = {"rows": rows, "loss": loss.item(),
                  "gradients": {n: summary(p.grad) for n, p in model.named_parameters() if p.grad is not None},
                  "settings": {"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "steps": STEPS, "warmup": WARMUP, "clip": CLIP}}
        decay = [p for n, p in model.named_parameters() if "bias" not in n and "LayerNorm" not in n]
        plain = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
        optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}], lr=LEARNING_RATE)
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
        golden["losses"] = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = model(**batch).loss
            golden["losses"].append(loss.item())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
        path = ROOT / "train" / (name + ".json")
        path.write_text(json.dumps(golden))
        print(path, path.stat().st_size, golden["loss"], golden["losses"][-1])


main()
