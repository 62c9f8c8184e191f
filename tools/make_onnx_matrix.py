"""Makes ONNX files of tiny random encoders with several exporters, with inputs and ONNX Runtime's outputs beside them.

usage: make_onnx_matrix.py OUT [tests/data/onnx]    (makes them; with a second folder copies the committed ones; needs torch, transformers, onnx, onnxruntime, onnxscript)

Each case is OUT/NAME/model.onnx with test_data_set_0/{input,output}_N.pb. NAME is exporter-family-head; quantized ones
have "q-" in it. `COMMITTED` are the ones in tests/data/onnx.
"""
import os, sys, shutil, tempfile, warnings
import numpy as np, onnx, torch, transformers as T
from onnx import numpy_helper
import onnxruntime as ort
from onnxruntime.quantization import (quantize_dynamic, quantize_static, CalibrationDataReader, QuantFormat, QuantType)
from onnxruntime.quantization.shape_inference import quant_pre_process

warnings.filterwarnings("ignore")
out = sys.argv[1]
os.makedirs(out, exist_ok=True)
SIZE = dict(vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
            max_position_embeddings=40, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.4)
COMMITTED = ["legacy-bert-cls", "legacy-electra-encoder", "legacy-albert-cls", "legacy-mpnet-encoder", "legacy-bert-qa",
             "dynamo-bert-cls", "dynamo-roberta-token", "eager-roberta-cls", "opset11-distilbert-cls", "sentence-bert-encoder",
             "ort1-bert-cls", "ort2-roberta-cls", "ort99-distilbert-cls", "fused-bert-cls", "fused-roberta-cls",
             "q-dynamic-bert-cls", "q-dynamic-u8-roberta-cls", "q-qdq-u8s8-roberta-cls", "q-qdq-s8s8-roberta-cls",
             "q-qop-roberta-cls"]


def models(attention):
    torch.manual_seed(7)
    kw = dict(attn_implementation=attention)
    distil = T.DistilBertConfig(vocab_size=80, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=40,
                                dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0, initializer_range=0.4, **kw)
    made = {
        "bert-cls": T.BertForSequenceClassification(T.BertConfig(num_labels=3, **SIZE, **kw)),
        "bert-qa": T.BertForQuestionAnswering(T.BertConfig(**SIZE, **kw)),
        "roberta-cls": T.RobertaForSequenceClassification(T.RobertaConfig(num_labels=3, type_vocab_size=1, **SIZE, **kw)),
        "roberta-token": T.RobertaForTokenClassification(T.RobertaConfig(num_labels=5, type_vocab_size=1, **SIZE, **kw)),
        "distilbert-cls": T.DistilBertForSequenceClassification(distil),
        "electra-encoder": T.ElectraModel(T.ElectraConfig(embedding_size=8, **SIZE, **kw)),
        "albert-cls": T.AlbertForSequenceClassification(T.AlbertConfig(embedding_size=8, num_labels=3, **SIZE, **kw)),
        "mpnet-encoder": T.MPNetModel(T.MPNetConfig(relative_attention_num_buckets=32, **SIZE)),
    }
    for model in made.values():
        for name, p in model.named_parameters():
            if "norm" in name.lower():
                p.data += 0.2 * torch.randn_like(p)
            elif name.endswith("bias"):
                p.data += 0.1 * torch.randn_like(p)
        model.eval()
    return made


class Flat(torch.nn.Module):
    def __init__(self, model, typed, pool=None):
        super().__init__()
        self.model, self.typed, self.pool = model, typed, pool

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        kw = dict(token_type_ids=token_type_ids) if self.typed else {}
        y = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kw)
        if self.pool == "mean":
            m = attention_mask.unsqueeze(-1).expand(y.last_hidden_state.size()).float()
            v = (y.last_hidden_state * m).sum(1) / torch.clamp(m.sum(1), min=1e-9)
            return torch.nn.functional.normalize(v, p=2, dim=1)
        if hasattr(y, "start_logits"):
            return y.start_logits, y.end_logits
        return y.logits if hasattr(y, "logits") else y.last_hidden_state


def batch(name, rows=3, length=9, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 80, (rows, length))
    mask = np.ones_like(ids)
    pad = 1 if "roberta" in name or "mpnet" in name else 0
    mask[1, 6:] = 0
    ids[1, 6:] = pad
    types = np.zeros_like(ids)
    types[:, 4:] = 1
    return ids, mask, types * mask


def feed(path, name, **kw):
    ids, mask, types = batch(name, **kw)
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    model = onnx.load(path)
    return {i.name: known[i.name] for i in model.graph.input}


def session(path, level=ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, to=None):
    so = ort.SessionOptions()
    so.log_severity_level = 4
    so.graph_optimization_level = level
    so.intra_op_num_threads = 1
    if to:
        so.optimized_model_filepath = to
    return ort.InferenceSession(path, so, providers=["CPUExecutionProvider"])


def keep(path, case, name):
    folder = f"{out}/{case}"
    data = f"{folder}/test_data_set_0"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(data)
    model = onnx.load(path)
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    onnx.save(model, f"{folder}/model.onnx")
    inputs = feed(path, name)
    for i, (key, value) in enumerate(inputs.items()):
        open(f"{data}/input_{i}.pb", "wb").write(numpy_helper.from_array(value, key).SerializeToString())
    for i, value in enumerate(session(f"{folder}/model.onnx").run(None, inputs)):
        open(f"{data}/output_{i}.pb", "wb").write(numpy_helper.from_array(value, f"output_{i}").SerializeToString())
    print(case, os.path.getsize(f"{folder}/model.onnx"))


def export(model, name, path, dynamo, opset, pool=None):
    typed = not any(x in name for x in ("roberta", "distilbert", "mpnet"))
    wrapped = Flat(model, typed, pool).eval()
    ids, mask, types = (torch.from_numpy(x) for x in batch(name, rows=2, length=7))
    args = (ids, mask, types) if typed else (ids, mask)
    names = ["input_ids", "attention_mask", "token_type_ids"][:len(args)]
    if dynamo:
        shapes = {n: {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", min=2, max=38)} for n in names}
        torch.onnx.export(wrapped, args, path, input_names=names, opset_version=opset, dynamo=True, dynamic_shapes=shapes,
                          external_data=False, verbose=False)
    else:
        torch.onnx.export(wrapped, args, path, input_names=names, opset_version=opset, dynamo=False,
                          output_names=["start_logits", "end_logits"] if name.endswith("qa") else
                          ["sentence_embedding"] if pool else ["logits"] if "encoder" not in name else ["last_hidden_state"],
                          dynamic_axes={n: {0: "batch", 1: "sequence"} for n in names})


class Rows(CalibrationDataReader):
    def __init__(self, path, name):
        self.rows = iter([feed(path, name, seed=s) for s in range(1, 6)])

    def get_next(self):
        return next(self.rows, None)


def attempt(what, body):
    try:
        body()
    except Exception as error:
        print("FAILED", what, str(error).strip().split("\n")[-1][:200])


def main():
    work = tempfile.mkdtemp()
    eager, sdpa = models("eager"), models("sdpa")
    for name, model in sdpa.items():
        path = f"{work}/legacy-{name}.onnx"
        attempt("legacy " + name, lambda: (export(model, name, path, False, 14), keep(path, "legacy-" + name, name)))
        d = f"{work}/dynamo-{name}.onnx"
        attempt("dynamo " + name, lambda: (export(model, name, d, True, 18), keep(d, "dynamo-" + name, name)))
    for name in ("bert-cls", "roberta-cls", "distilbert-cls"):
        p = f"{work}/eager-{name}.onnx"
        attempt("eager " + name, lambda: (export(eager[name], name, p, False, 17), keep(p, "eager-" + name, name)))
        p2 = f"{work}/opset11-{name}.onnx"
        attempt("opset11 " + name, lambda: (export(eager[name], name, p2, False, 11), keep(p2, "opset11-" + name, name)))
    p3 = f"{work}/sentence.onnx"
    base = sdpa["bert-cls"].bert
    attempt("sentence", lambda: (export(base, "bert-encoder", p3, False, 14, "mean"), keep(p3, "sentence-bert-encoder", "bert")))
    levels = {"ort1": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, "ort2": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
              "ort99": ort.GraphOptimizationLevel.ORT_ENABLE_ALL}
    for name in ("bert-cls", "roberta-cls", "distilbert-cls", "electra-encoder", "albert-cls", "mpnet-encoder"):
        for prefix in ("legacy", "eager"):
            source = f"{work}/{prefix}-{name}.onnx"
            if not os.path.exists(source):
                continue
            for level, value in levels.items():
                q = f"{work}/{level}-{prefix}-{name}.onnx"
                case = f"{level}-{name}" if prefix == "legacy" else f"{level}-eager-{name}"
                attempt(case, lambda: (session(source, value, q), keep(q, case, name)))
    try:
        from onnxruntime.transformers import optimizer
        for name in ("bert-cls", "roberta-cls", "distilbert-cls"):
            q = f"{work}/fused-{name}.onnx"
            def fused():
                m = optimizer.optimize_model(f"{work}/eager-{name}.onnx", model_type="bert", num_heads=2, hidden_size=16,
                                             opt_level=1)
                m.save_model_to_file(q)
                keep(q, "fused-" + name, name)
            attempt("fused " + name, fused)
    except ImportError as error:
        print("no transformer optimizer:", error)
    for name in ("bert-cls", "roberta-cls", "distilbert-cls"):
        source = f"{work}/eager-{name}.onnx"
        pre = f"{work}/pre-{name}.onnx"
        attempt("pre", lambda: quant_pre_process(source, pre, skip_symbolic_shape=True))
        src = pre if os.path.exists(pre) else source
        q = f"{work}/q.onnx"
        attempt("dynamic " + name, lambda: (quantize_dynamic(src, q), keep(q, "q-dynamic-" + name, name)))
        attempt("dynamic-u8 " + name, lambda: (quantize_dynamic(src, q, weight_type=QuantType.QUInt8, per_channel=False),
                                              keep(q, "q-dynamic-u8-" + name, name)))
        for case, fmt, act, per in (("u8s8", QuantFormat.QDQ, QuantType.QUInt8, True),
                                    ("s8s8", QuantFormat.QDQ, QuantType.QInt8, False),
                                    ("qop", QuantFormat.QOperator, QuantType.QUInt8, False)):
            extra = {"ActivationSymmetric": case == "s8s8", "WeightSymmetric": True}
            title = f"q-qdq-{case}-{name}" if case != "qop" else f"q-qop-{name}"
            attempt(title, lambda: (quantize_static(src, q, Rows(src, name), quant_format=fmt, activation_type=act,
                                                    weight_type=QuantType.QInt8, per_channel=per, extra_options=extra,
                                                    op_types_to_quantize=["MatMul", "Gemm", "Gather"]),
                                    keep(q, title, name)))


if len(sys.argv) > 2:  # copies the committed ones
    for case in COMMITTED:
        if os.path.isdir(f"{out}/{case}"):
            shutil.copytree(f"{out}/{case}", f"{sys.argv[2]}/{case}", dirs_exist_ok=True)
else:
    main()
