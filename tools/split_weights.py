#!/usr/bin/env python3
"""A model folder in pieces of a given size with half-precision weights, for moving it where single files must be small.

    python3 tools/split_weights.py FOLDER OUT --pieces 4     # OUT/piece.0 .. piece.3: a tar of the folder in FP16
    cat OUT/piece.* | tar x -C TARGET                        # on the other side

With --xz each piece is a .xz of its own (about nine tenths of the size): xz -dc OUT/piece.*.xz | tar x -C TARGET.
Needs numpy only. Reads model.safetensors in F32; what does not fit FP16 (beyond 65504) is refused.
"""
import argparse
import io
import json
import lzma
import os
import struct
import tarfile

import numpy as np

SMALL = ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt", "vocab.json",
         "special_tokens_map.json"]


def halved(path):
    """The bytes of a safetensors file with every F32 tensor in F16."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        start = file.tell()
        made, data = {}, []
        at = 0
        for name, entry in sorted(((n, e) for n, e in header.items() if n != "__metadata__"),
                                  key=lambda item: item[1]["data_offsets"][0]):
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            raw = file.read(end - begin)
            kind = entry["dtype"]
            if kind == "F32":
                values = np.frombuffer(raw, np.float32)
                if not (np.abs(values) <= 65504).all():
                    raise SystemExit(f"{name} holds values that FP16 does not")
                raw, kind = values.astype(np.float16).tobytes(), "F16"
            made[name] = {"dtype": kind, "shape": entry["shape"], "data_offsets": [at, at + len(raw)]}
            at += len(raw)
            data.append(raw)
    made["__metadata__"] = header.get("__metadata__", {"format": "pt"})
    text = json.dumps(made).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *data])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--pieces", type=int, default=4)
    parser.add_argument("--xz", action="store_true")
    a = parser.parse_args()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name in SMALL:
            if os.path.exists(os.path.join(a.folder, name)):
                tar.add(os.path.join(a.folder, name), name)
        weights = halved(os.path.join(a.folder, "model.safetensors"))
        info = tarfile.TarInfo("model.safetensors")
        info.size = len(weights)
        tar.addfile(info, io.BytesIO(weights))
    content = whole.getbuffer()
    os.makedirs(a.out, exist_ok=True)
    size = -(-len(content) // a.pieces)
    for i in range(a.pieces):
        piece = content[i * size:(i + 1) * size]
        with open(os.path.join(a.out, f"piece.{i}" + (".xz" if a.xz else "")), "wb") as file:
            file.write(lzma.compress(piece, preset=1) if a.xz else piece)
    print(f"{len(content)} bytes in {a.pieces} pieces of {size}")


if __name__ == "__main__":
    main()
