#!/usr/bin/env python3
"""Writes a Hugging Face folder with random weights of a real model's shape, for measuring speed and parity.

    python3 tools/make_random_model.py roberta-base build/random/roberta-base

Needs numpy only. Weights are normal with a deviation of 0.02 and LayerNorms near one, as at the start of training, in FP32.
"""
import json
import os
import struct
import sys

import numpy as np

SHAPES = {  # layers, hidden, heads, intermediate, vocabulary, positions, types, epsilon
    "roberta-base": ("roberta", 12, 768, 12, 3072, 50265, 514, 1, 1e-5),
    "mpnet-base": ("mpnet", 12, 768, 12, 3072, 30527, 514, 0, 1e-5),
    "bert-base": ("bert", 12, 768, 12, 3072, 30522, 512, 2, 1e-12),
    "bert-large": ("bert", 24, 1024, 16, 4096, 30522, 512, 2, 1e-12),
    "minilm-l6": ("bert", 6, 384, 12, 1536, 30522, 512, 2, 1e-12),
    "roberta-tiny": ("roberta", 2, 128, 2, 512, 1000, 66, 1, 1e-5),
}


def tensors(shape, labels):
    family, layers, hidden, heads, intermediate, vocabulary, positions, types, _ = SHAPES[shape]
    p = family + "."
    yield p + "embeddings.word_embeddings.weight", (vocabulary, hidden)
    yield p + "embeddings.position_embeddings.weight", (positions, hidden)
    if types:
        yield p + "embeddings.token_type_embeddings.weight", (types, hidden)
    if family == "mpnet":
        yield p + "encoder.relative_attention_bias.weight", (32, heads)
    norms = [p + "embeddings.LayerNorm"]
    linears = []
    for layer in range(layers):
        q = f"{p}encoder.layer.{layer}."
        if family == "mpnet":
            linears += [(q + "attention.attn." + n, hidden, hidden) for n in "qkvo"]
        else:
            linears += [(q + "attention.self." + n, hidden, hidden) for n in ("query", "key", "value")]
            linears += [(q + "attention.output.dense", hidden, hidden)]
        linears += [(q + "intermediate.dense", intermediate, hidden),
                    (q + "output.dense", hidden, intermediate)]
        norms += [q + ("attention.LayerNorm" if family == "mpnet" else "attention.output.LayerNorm"), q + "output.LayerNorm"]
    if family != "bert":
        linears += [("classifier.dense", hidden, hidden), ("classifier.out_proj", labels, hidden)]
    else:
        linears += [("bert.pooler.dense", hidden, hidden), ("classifier", labels, hidden)]
    for name, out, into in linears:
        yield name + ".weight", (out, into)
        yield name + ".bias", (out,)
    for name in norms:
        yield name + ".weight", (hidden,)
        yield name + ".bias", (hidden,)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__ + "\nshapes: " + ", ".join(SHAPES))
    shape, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    family, layers, hidden, heads, intermediate, vocabulary, positions, types, epsilon = SHAPES[shape]
    labels = 3
    config = {
        "model_type": family, "architectures": [{"roberta": "Roberta", "bert": "Bert", "mpnet": "MPNet"}[family] + "ForSequenceClassification"],
        "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": intermediate,
        "vocab_size": vocabulary, "max_position_embeddings": positions, "type_vocab_size": types, "layer_norm_eps": epsilon,
        "hidden_act": "gelu", "pad_token_id": 0 if family == "bert" else 1,
        "id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"},
        "label2id": {"entailment": 0, "neutral": 1, "contradiction": 2},
    }
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    random = np.random.default_rng(20211223)
    header, offset, listed = {}, 0, list(tensors(shape, labels))
    for name, extent in listed:
        size = int(np.prod(extent)) * 4
        header[name] = {"dtype": "F32", "shape": list(extent), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, extent in listed:
            values = random.standard_normal(extent, dtype=np.float32) * 0.02
            if name.endswith("LayerNorm.weight"):
                values += 1.0
            f.write(values.tobytes())


if __name__ == "__main__":
    main()
