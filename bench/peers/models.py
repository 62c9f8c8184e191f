"""The peers' models from one Hugging Face folder: float ONNX, its dynamic and QDQ INT8, NNCF's INT8, CTranslate2's.

  models.py FOLDER OUT      what exists already is kept; a peer that is not installed or fails says why and is left out
"""
import os
import sys
import traceback

import numpy as np

folder, out = sys.argv[1], sys.argv[2]
os.makedirs(out, exist_ok=True)
path = lambda name: os.path.join(out, name)  # noqa: E731
rng = np.random.default_rng(1)


def samples(count=32, length=128):
    import json
    vocab = json.load(open(os.path.join(folder, "config.json")))["vocab_size"]
    for _ in range(count):
        yield {"input_ids": rng.integers(10, vocab - 10, (1, length), dtype=np.int64),
               "attention_mask": np.ones((1, length), np.int64)}


def float_onnx():
    import torch
    from transformers import AutoModelForSequenceClassification
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()

    class Logits(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, input_ids, attention_mask):
            return self.inner(input_ids=input_ids, attention_mask=attention_mask).logits

    axes = {n: {0: "batch", 1: "length"} for n in ("input_ids", "attention_mask")}
    example = tuple(torch.from_numpy(v) for v in next(samples(1, 16)).values())
    torch.onnx.export(Logits(model), example, path("model.onnx"), input_names=list(axes), output_names=["logits"],
                      dynamic_axes=axes, opset_version=17, dynamo=False)


def dynamic_onnx():
    from onnxruntime.quantization import QuantType, quantize_dynamic
    quantize_dynamic(path("model.onnx"), path("model-dynamic.onnx"), weight_type=QuantType.QInt8, per_channel=True)


def qdq_onnx():
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rows = samples(16)

        def get_next(self):
            return next(self.rows, None)
    quantize_static(path("model.onnx"), path("model-qdq.onnx"), Reader(), quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True)


def nncf_model():
    import nncf
    import openvino as ov
    model = ov.Core().read_model(path("model.onnx"))
    quantized = nncf.quantize(model, nncf.Dataset(list(samples())), model_type=nncf.ModelType.TRANSFORMER,
                              subset_size=32)
    ov.save_model(quantized, path("model-nncf.xml"), compress_to_fp16=False)


def ctranslate2_model():
    # CTranslate2 takes the encoder; the head stays with PyTorch (see worker.py).
    import ctranslate2
    import transformers
    transformers.PretrainedConfig.position_embedding_type = "absolute"  # its converter asks for what newer configs lack
    ctranslate2.converters.TransformersConverter(folder).convert(path("ctranslate2"), force=True)


for name, made, make in (("float ONNX", "model.onnx", float_onnx), ("dynamic INT8", "model-dynamic.onnx", dynamic_onnx),
                         ("QDQ U8S8", "model-qdq.onnx", qdq_onnx), ("OpenVINO NNCF", "model-nncf.xml", nncf_model),
                         ("CTranslate2", "ctranslate2", ctranslate2_model)):
    if os.path.exists(path(made)):
        continue
    print(f"making {name}", file=sys.stderr, flush=True)
    try:
        make()
    except Exception:
        print(f"{name}: left out\n{traceback.format_exc(limit=2)}", file=sys.stderr, flush=True)
