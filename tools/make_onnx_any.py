"""Makes ONNX files of tiny random models of forty kinds, encoders of the field and others (rotary, convolutions, images),
with ONNX Runtime's answers beside them.

usage: make_onnx_any.py OUT [NAME]    (all, or those whose name has NAME in it; needs torch, transformers, onnx, onnxruntime, onnxscript)

    OCTET_ONNX_ANY=OUT build/release/tests/test_onnx --gtest_filter='*AnyFiles'

then says of each whether it is raised, runs node by node or is refused. Cases are OUT/EXPORTER+OPSET-NAME.
"""
import os, sys, shutil, tempfile, warnings, io, contextlib
import numpy as np, onnx, torch, transformers as T
from onnx import numpy_helper
import onnxruntime as ort
warnings.filterwarnings("ignore")
out = sys.argv[1]; only = sys.argv[2] if len(sys.argv) > 2 else ""
os.makedirs(out, exist_ok=True)
W = tempfile.mkdtemp()
S = dict(vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40,
         hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.4)
def prep(m):
    torch.manual_seed(3)
    for n, p in m.named_parameters():
        if "norm" in n.lower(): p.data += 0.2 * torch.randn_like(p)
        elif n.endswith("bias"): p.data += 0.1 * torch.randn_like(p)
    return m.eval()
class Wrap(torch.nn.Module):
    def __init__(self, m, names, pick): super().__init__(); self.m, self.names, self.pick = m, names, pick
    def forward(self, *a):
        y = self.m(**dict(zip(self.names, a)), return_dict=True)
        if callable(self.pick): return self.pick(y, dict(zip(self.names, a)))
        r = tuple(getattr(y, k) for k in self.pick)
        return r[0] if len(r) == 1 else r
def feeds(path, pad, rows=3, length=9, full=False):
    rng = np.random.default_rng(0); model = onnx.load(path, load_external_data=False); f = {}
    for i in model.graph.input:
        d = [x.dim_value for x in i.type.tensor_type.shape.dim]
        if len(d) == 2 and d[0] > 0: rows = d[0]
        if len(d) == 2 and d[1] > 0: length = d[1]
    ids = rng.integers(5, 80, (rows, length)); mask = np.ones_like(ids)
    if not full and rows > 1: mask[1, 6:] = 0
    ids[mask == 0] = pad
    types = np.zeros_like(ids); types[:, 4:] = 1; types *= mask
    for i in model.graph.input:
        t = {7: np.int64, 6: np.int32, 1: np.float32, 10: np.float16, 9: np.bool_}[i.type.tensor_type.elem_type]; n = i.name.lower()
        d = [x.dim_value for x in i.type.tensor_type.shape.dim]
        if "pixel" in n: v = rng.standard_normal([x if x else 2 for x in d])
        elif "bbox" in n: v = rng.integers(0, 30, (rows, length, 4)); v[..., 2:] += v[..., :2]
        elif "mask" in n: v = mask
        elif "type" in n: v = types
        elif "position" in n: v = np.broadcast_to(np.arange(length), ids.shape)
        else: v = ids
        f[i.name] = np.ascontiguousarray(v).astype(t)
    return f
def keep(path, case, pad, full=False):
    d = f"{out}/{case}/test_data_set_0"; shutil.rmtree(f"{out}/{case}", ignore_errors=True); os.makedirs(d)
    m = onnx.load(path); onnx.save(m, f"{out}/{case}/model.onnx")
    so = ort.SessionOptions(); so.log_severity_level = 4; so.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    f = feeds(f"{out}/{case}/model.onnx", pad, full=full)
    s = ort.InferenceSession(f"{out}/{case}/model.onnx", so, providers=["CPUExecutionProvider"])
    for i, (k, v) in enumerate(f.items()): open(f"{d}/input_{i}.pb", "wb").write(numpy_helper.from_array(v, k).SerializeToString())
    for i, v in enumerate(s.run(None, f)): open(f"{d}/output_{i}.pb", "wb").write(numpy_helper.from_array(np.asarray(v), f"o{i}").SerializeToString())
    print("ok", case, flush=True)
def export(m, path, names, pick, outs, dynamo, opset, fixed=False):
    ids = torch.randint(5, 80, (2, 7)); known = dict(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids), bbox=torch.zeros(2, 7, 4, dtype=torch.long),
        pixel_values=torch.randn(2, 3, 8, 8), decoder_input_ids=ids)
    known["attention_mask"][1, 5:] = 0
    args = tuple(known[n] for n in names); w = Wrap(m, names, pick).eval()
    if dynamo:
        sh = {n: ({0: torch.export.Dim("batch")} if n == "pixel_values" else {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", min=2, max=38)}) for n in names}
        torch.onnx.export(w, args, path, input_names=list(names), output_names=outs, opset_version=opset, dynamo=True, dynamic_shapes=(tuple(sh[n] for n in names),) if False else {"a": tuple(sh[n] for n in names)}, external_data=False, verbose=False)
    else:
        torch.onnx.export(w, args, path, input_names=list(names), output_names=outs, opset_version=opset, dynamo=False,
            dynamic_axes=None if fixed else {n: ({0: "batch"} if n == "pixel_values" else {0: "batch", 1: "sequence"}) for n in names})
def attempt(case, body):
    if only and only not in case: return
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()) as o: body()
        print(o.getvalue().strip().split("\n")[-1], flush=True)
    except Exception as e: print("FAILED", case, type(e).__name__, str(e).strip().split("\n")[-1][:160], flush=True)
def mean(y, a):
    m = a["attention_mask"].unsqueeze(-1).float(); return y.last_hidden_state, torch.nn.functional.normalize((y.last_hidden_state * m).sum(1) / m.sum(1).clamp(min=1e-9), p=2, dim=1)
def splade(y, a): return (torch.log1p(torch.relu(y.logits)) * a["attention_mask"].unsqueeze(-1)).max(1).values
three = ("input_ids", "attention_mask", "token_type_ids"); two = three[:2]; L = ["last_hidden_state"]; LG = ["logits"]
def cases():
    B = lambda **k: T.BertConfig(**{**S, **k})
    yield "st-bert", T.BertModel(B()), three, mean, ["token_embeddings", "sentence_embedding"], 0
    yield "bert-pooler", T.BertModel(B()), three, ["last_hidden_state", "pooler_output"], ["last_hidden_state", "pooler_output"], 0
    yield "bert-mlm", T.BertForMaskedLM(B()), three, LG, LG, 0
    yield "splade", T.BertForMaskedLM(B()), three, splade, ["embedding"], 0
    yield "bert-nsp", T.BertForNextSentencePrediction(B()), three, LG, LG, 0
    yield "bert-hidden", T.BertModel(B()), three, lambda y, a: y.last_hidden_state[:, 0], ["cls"], 0
    yield "bert-ner", T.BertForTokenClassification(B(num_labels=5)), three, LG, LG, 0
    yield "xlmr", T.XLMRobertaModel(T.XLMRobertaConfig(**S, type_vocab_size=1)), two, L, L, 1
    yield "xlmr-ner", T.XLMRobertaForTokenClassification(T.XLMRobertaConfig(**S, type_vocab_size=1, num_labels=5)), two, LG, LG, 1
    yield "camembert", T.CamembertForSequenceClassification(T.CamembertConfig(**S, type_vocab_size=1)), two, LG, LG, 1
    yield "roberta-mlm", T.RobertaForMaskedLM(T.RobertaConfig(**S, type_vocab_size=1)), two, LG, LG, 1
    yield "xlmrxl", T.XLMRobertaXLModel(T.XLMRobertaXLConfig(**S, type_vocab_size=1)), two, L, L, 1
    yield "megatron", T.MegatronBertModel(T.MegatronBertConfig(**S)), three, L, L, 0
    yield "ernie", T.ErnieModel(T.ErnieConfig(**S)), three, L, L, 0
    yield "data2vec", T.Data2VecTextModel(T.Data2VecTextConfig(**S, type_vocab_size=1)), two, L, L, 1
    yield "camem-qa", T.CamembertForQuestionAnswering(T.CamembertConfig(**S, type_vocab_size=1)), two, ["start_logits", "end_logits"], ["start_logits", "end_logits"], 1
    yield "electra-disc", T.ElectraForPreTraining(T.ElectraConfig(embedding_size=8, **S)), three, LG, LG, 0
    yield "electra-cls", T.ElectraForSequenceClassification(T.ElectraConfig(embedding_size=8, num_labels=3, **S)), three, LG, LG, 0
    yield "albert-mlm", T.AlbertForMaskedLM(T.AlbertConfig(embedding_size=8, **S)), three, LG, LG, 0
    yield "distil-mlm", T.DistilBertForMaskedLM(T.DistilBertConfig(vocab_size=80, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=40)), two, LG, LG, 0
    yield "distil-ner", T.DistilBertForTokenClassification(T.DistilBertConfig(vocab_size=80, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=40, num_labels=5)), two, LG, LG, 0
    yield "mpnet-cls", T.MPNetForSequenceClassification(T.MPNetConfig(relative_attention_num_buckets=32, num_labels=3, **S)), two, LG, LG, 1
    yield "deberta2", T.DebertaV2Model(T.DebertaV2Config(**S, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False, type_vocab_size=0)), two, L, L, 0
    yield "t5enc", T.T5EncoderModel(T.T5Config(vocab_size=80, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)), two, L, L, 0
    yield "t5gated", T.T5EncoderModel(T.T5Config(vocab_size=80, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")), two, L, L, 0
    yield "modernbert", T.ModernBertModel(T.ModernBertConfig(vocab_size=80, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40, local_attention=8, global_attn_every_n_layers=3, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2, attn_implementation="eager", reference_compile=False)), two, L, L, 0
    if hasattr(T, "NomicBertModel"): yield "nomic", T.NomicBertModel(T.NomicBertConfig(vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40)), three, L, L, 0
    yield "roformer", T.RoFormerModel(T.RoFormerConfig(**S, embedding_size=16)), three, L, L, 0
    yield "mobilebert", T.MobileBertModel(T.MobileBertConfig(vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40, embedding_size=8, intra_bottleneck_size=8, num_feedforward_networks=2)), three, L, L, 0
    yield "squeezebert", T.SqueezeBertModel(T.SqueezeBertConfig(vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40, embedding_size=16, q_groups=2, k_groups=2, v_groups=2, post_attention_groups=1, intermediate_groups=2, output_groups=2)), three, L, L, 0
    yield "layoutlm", T.LayoutLMModel(T.LayoutLMConfig(**S, max_2d_position_embeddings=64)), ("input_ids", "bbox", "attention_mask", "token_type_ids"), L, L, 0
    yield "esm", T.EsmModel(T.EsmConfig(vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40, pad_token_id=1, mask_token_id=3, position_embedding_type="rotary", token_dropout=False)), two, L, L, 1
    yield "esm-abs", T.EsmModel(T.EsmConfig(vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40, pad_token_id=1, mask_token_id=3, position_embedding_type="absolute", token_dropout=True)), two, L, L, 1
    yield "clip-text", T.CLIPTextModel(T.CLIPTextConfig(vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40, eos_token_id=79)), two, ["last_hidden_state", "pooler_output"], ["last_hidden_state", "pooler_output"], 0
    yield "vit", T.ViTModel(T.ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4)), ("pixel_values",), L, L, 0
    yield "fnet", T.FNetModel(T.FNetConfig(vocab_size=80, hidden_size=16, num_hidden_layers=2, intermediate_size=24, max_position_embeddings=40)), ("input_ids", "token_type_ids"), L, L, 0
    yield "convbert", T.ConvBertModel(T.ConvBertConfig(**S, embedding_size=16)), three, L, L, 0
    yield "xlnet", T.XLNetModel(T.XLNetConfig(vocab_size=80, d_model=16, n_layer=2, n_head=2, d_inner=24)), two, L, L, 0
    yield "bigbird", T.BigBirdModel(T.BigBirdConfig(**S, attention_type="original_full")), three, L, L, 0
    yield "longformer", T.LongformerModel(T.LongformerConfig(**S, attention_window=4)), two, L, L, 1
    yield "eurobert", (T.EuroBertModel(T.EuroBertConfig(vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=24, max_position_embeddings=40)) if hasattr(T, "EuroBertModel") else None), two, L, L, 0
    yield "gpt2", T.GPT2Model(T.GPT2Config(vocab_size=80, n_embd=16, n_layer=2, n_head=2, n_positions=40, use_cache=False)), two, L, L, 0
it = cases()
while True:
    try: case = next(it)
    except StopIteration: break
    except Exception as e: print("MODEL", type(e).__name__, str(e)[:160]); break
    name, m, names, pick, outs, pad = case
    if m is None: continue
    m = prep(m)
    for dyn, op in ((False, 14), (False, 17), (True, 18), (True, 20), (True, 23)):
        if op == 17 and name not in ("st-bert", "modernbert", "clip-text"): continue
        if op in (20, 23) and name not in ("st-bert", "bert-pooler", "xlmr", "mpnet-cls", "distil-ner", "electra-cls", "albert-mlm", "modernbert"): continue
        c = f"{'dynamo' if dyn else 'legacy'}{op}-{name}"; p = f"{W}/{c}.onnx"
        attempt(c, lambda: (export(m, p, names, pick, outs, dyn, op), keep(p, c, pad, full=name in ("fnet",))))
    c = f"fixed-{name}"; p = f"{W}/{c}.onnx"
    if name in ("st-bert", "xlmr", "mpnet-cls"): attempt(c, lambda: (export(m, p, names, pick, outs, False, 14, True), keep(p, c, pad)))
