// The program that a Python runs for `octet report`: one engine on one ONNX file, requests and answers as JSON lines.
#pragma once

namespace octet::cli {

/// Arguments: engine, file, threads. A request is {"ids": [[..]], "types": [[..]]}, answered by {"ms", "values"}:
/// values a text, or a token without padding; {"memory": true} is answered by {"bytes"}. A first line says that it is
/// ready.
inline constexpr const char* kPeerWorker = R"python(
import json, os, sys, time
engine, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what an engine prints is no answer
if threads > 0:
    os.environ["OMP_NUM_THREADS"] = str(threads)
import numpy as np


def onnxruntime(path):
    import onnxruntime as ort
    global before
    before = peak()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # others run between two calls
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [i.name for i in session.get_inputs()], lambda given: session.run(None, given)[0]


def onnxruntime_dynamic(path):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    made = path + ".dynamic.onnx"
    quantize_dynamic(path, made, weight_type=QuantType.QInt8, per_channel=True)
    return onnxruntime(made)


def openvino(path):
    import openvino as ov
    global before
    before = peak()
    core = ov.Core()
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads > 0:
        config["INFERENCE_NUM_THREADS"] = threads
    model = core.compile_model(core.read_model(path), "CPU", config)
    names = [list(i.names)[0] for i in model.inputs]
    request = model.create_infer_request()
    return names, lambda given: request.infer(given)[0]


def peak():  # not ru_maxrss, which begins with the peak of the process that started this one
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


before = peak()
names, run = {"onnxruntime": onnxruntime, "onnxruntime-dynamic": onnxruntime_dynamic, "openvino": openvino}[engine](path)
print(json.dumps({"ready": engine}), file=answers, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "memory" in request:
        print(json.dumps({"bytes": max(peak() - before, 0)}), file=answers, flush=True)
        continue
    rows = request["ids"]
    lengths = [len(r) for r in rows]
    ids = np.zeros((len(rows), max(lengths)), np.int64)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)
    for i, r in enumerate(rows):
        ids[i, :len(r)], types[i, :len(r)], mask[i, :len(r)] = r, request["types"][i], 1
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    given = {n: given[n] for n in names}
    begin = time.perf_counter()
    out = run(given)
    ms = (time.perf_counter() - begin) * 1e3
    out = np.asarray(out, np.float32)
    if out.ndim == 3:
        out = np.concatenate([out[i, :n].reshape(-1) for i, n in enumerate(lengths)])
    values = out.reshape(-1).tolist() if request.get("want", True) else []
    print(json.dumps({"ms": ms, "values": values}), file=answers, flush=True)
)python";

}  // namespace octet::cli
