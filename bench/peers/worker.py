"""One engine in a process of its own: reads requests as JSON lines, answers with milliseconds a call.

  worker.py ENGINE FOLDER THREADS [ONNX_FOLDER]

A request is {"batches": [[length of each row], ...]}: each batch is run once on random ids, padded to its longest row
with an attention mask; the answer is {"ms": [one number a batch]}.
"""
import json
import os
import sys
import time

engine, folder, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
onnx_folder = sys.argv[4] if len(sys.argv) > 4 else None
os.environ["OMP_NUM_THREADS"] = str(threads)
import numpy as np  # noqa: E402  (after the thread count is set)


def torch_fp32():
    import torch
    from transformers import AutoModelForSequenceClassification
    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="sdpa").eval()

    def run(ids, mask):
        with torch.inference_mode():
            return model(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
    return run


def onnxruntime_session(name):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(os.path.join(onnx_folder, name), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    def run(ids, mask):
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return session.run(None, {n: given[n] for n in names})[0]
    return run


def openvino_model(name):
    import openvino as ov
    core = ov.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(os.path.join(onnx_folder, name)), "CPU", config)
    names = [list(i.names)[0] for i in compiled.inputs]
    request = compiled.create_infer_request()

    def run(ids, mask):
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return request.infer({n: given[n] for n in names})[0]
    return run


def ctranslate2_encoder(kind):
    import ctranslate2
    import torch
    from transformers import AutoModelForSequenceClassification
    encoder = ctranslate2.Encoder(os.path.join(onnx_folder, "ctranslate2"), compute_type=kind, intra_threads=threads,
                                  inter_threads=1)
    head = AutoModelForSequenceClassification.from_pretrained(folder).classifier.eval()
    torch.set_num_threads(threads)

    def run(ids, mask):
        out = encoder.forward_batch(ctranslate2.StorageView.from_array(ids.astype(np.int32)),
                                    ctranslate2.StorageView.from_array(mask.sum(1).astype(np.int32)))
        with torch.inference_mode():
            return head(torch.from_numpy(np.array(out.last_hidden_state)))
    return run


ENGINES = {
    "pytorch-fp32": torch_fp32,
    "onnxruntime-fp32": lambda: onnxruntime_session("model.onnx"),
    "onnxruntime-dynamic-int8": lambda: onnxruntime_session("model-dynamic.onnx"),
    "onnxruntime-qdq-u8s8": lambda: onnxruntime_session("model-qdq.onnx"),
    "openvino-fp32": lambda: openvino_model("model.onnx"),
    "openvino-int8": lambda: openvino_model("model-nncf.xml"),
    "ctranslate2-fp32": lambda: ctranslate2_encoder("float32"),
    "ctranslate2-int8": lambda: ctranslate2_encoder("int8"),
}


def main():
    run = ENGINES[engine]()
    rng = np.random.default_rng(0)
    vocab = json.load(open(os.path.join(folder, "config.json")))["vocab_size"]
    print(json.dumps({"ready": engine}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        times = []
        for lengths in request["batches"]:
            rows, longest = len(lengths), max(lengths)
            ids = rng.integers(10, vocab - 10, (rows, longest), dtype=np.int64)
            mask = (np.arange(longest)[None, :] < np.array(lengths)[:, None]).astype(np.int64)
            ids = np.where(mask == 1, ids, 1)
            begin = time.perf_counter()
            run(ids, mask)
            times.append((time.perf_counter() - begin) * 1e3)
        print(json.dumps({"ms": times}), flush=True)


main()
