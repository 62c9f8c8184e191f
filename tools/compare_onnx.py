#!/usr/bin/env python3
"""What ONNX Runtime answers on the files that octet exports, beside octet's own simulation of the same quantizers.

    python3 tools/compare_onnx.py FOLDER CALIBRATION DATA.tsv [--octet build/release/octet] [--text C --pair C] [--limit 1000]

Writes the float file and both forms of the QDQ file, has the ONNX checker read them, and runs each in ONNX Runtime, optimizations off and
on, on the rows of DATA, one by one. A classifier's logits are compared after taking their mean away, which octet's
probabilities do not hold. Needs onnx, onnxruntime, numpy and tokenizers.
"""
import argparse
import csv
import json
import os
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from tokenizers import Tokenizer


def centred(values):
    return values - values.mean(axis=1, keepdims=True)


def answers_of(octet, arguments, rows, names):
    lines = "".join("\t".join(row) + "\n" for row in rows)
    done = subprocess.run([octet, "run", *arguments, "--json"], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    return centred(np.log(np.array([[answer["scores"][name] for name in names] for answer in found])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("calibration")
    parser.add_argument("data")
    parser.add_argument("--octet", default="build/release/octet")
    parser.add_argument("--text", default="sentence1")
    parser.add_argument("--pair", default="sentence2")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--length", type=int, default=128)
    a = parser.parse_args()
    with open(a.data, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = [[r[c] for c in (a.text, a.pair) if c and c in r] for _, r in zip(range(a.limit), reader)]
    with open(os.path.join(a.folder, "config.json"), encoding="utf-8") as file:
        labels = json.load(file)["id2label"]
    names = [labels[str(i)] for i in range(len(labels))]
    tokenizer = Tokenizer.from_file(os.path.join(a.folder, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(a.length)
    encoded = [tokenizer.encode(*row) for row in rows]

    cut = ["--max-length", str(a.length)]
    exact = answers_of(a.octet, [a.folder, "--precision", "fp32", *cut], rows, names)
    simulated = answers_of(a.octet, [a.folder, "--calib", a.calibration, "--backend", "simulate", *cut], rows, names)
    lost = np.sqrt(((simulated - exact) ** 2).mean())
    print(f"{len(rows)} rows; simulate against float: rms {lost:.4f}, {(simulated.argmax(1) == exact.argmax(1)).mean():.2%} equal labels")
    with tempfile.TemporaryDirectory() as folder:
        files = {"float": [], "qdq": ["--calib", a.calibration], "qdq, int8 weights": ["--calib", a.calibration, "--weights", "int8"]}
        for kind, arguments in files.items():
            path = os.path.join(folder, "m.onnx")
            subprocess.run([a.octet, "export", a.folder, *arguments, "-o", path], check=True, stdout=subprocess.DEVNULL)
            onnx.checker.check_model(path, full_check=True)
            wanted = exact if kind == "float" else simulated
            for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
                options = ort.SessionOptions()
                options.graph_optimization_level = level
                session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                inputs = [i.name for i in session.get_inputs()]
                got = []
                for e in encoded:
                    given = {"input_ids": e.ids, "attention_mask": e.attention_mask, "token_type_ids": e.type_ids}
                    got.append(session.run(None, {n: np.array([given[n]], dtype=np.int64) for n in inputs})[0][0])
                got = centred(np.array(got, dtype=np.float64))
                rms = np.sqrt(((got - wanted) ** 2).mean())
                print(f"{kind:18s} optimizations {'off' if level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL else 'on ':3s} "
                      f"largest {np.abs(got - wanted).max():.2e}, rms over simulate's {rms / lost:.3f}, "
                      f"{(got.argmax(1) == wanted.argmax(1)).mean():.2%} equal labels", flush=True)


if __name__ == "__main__":
    main()
