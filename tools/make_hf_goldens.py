#!/usr/bin/env python3
"""Makes tests/data/hf: tiny random BERT, RoBERTa and MPNet checkpoints with outputs computed by transformers.

Development time only (needs torch, transformers, safetensors); the tests read what it wrote. Every folder holds a checkpoint
in one of the file forms and golden.json: {"rows": [{"ids", "type_ids"}], "outputs": {name: [values of row 0, row 1, ...]}} with the
values of each row flat in row-major order, and "tensors": {name: {"dtype", "shape", "sum", "dot"}} of the checkpoint, where
dot is the sum of value[i] * (i mod 7 + 1).
"""
import json
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "hf"
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=60,
             hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2)
BERT = dict(SIZES, max_position_embeddings=24, type_vocab_size=2, pad_token_id=0)
ROBERTA = dict(SIZES, max_position_embeddings=26, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5, bos_token_id=0, eos_token_id=2)
MPNET = dict(SIZES, max_position_embeddings=26, pad_token_id=1, layer_norm_eps=1e-5, bos_token_id=0, eos_token_id=2)
NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.int64: "s64"}


def randomise(model, seed):
    """Biases and LayerNorms too, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            elif "LayerNorm.weight" in name:
                parameter.copy_(1 + torch.randn(parameter.shape, generator=generator) * 0.2)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def rows(pad, types, seed, lengths):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for length in lengths:
        ids = torch.randint(3, SIZES["vocab_size"], (length,), generator=generator)
        if length == 7:
            ids[3] = pad  # a padding id in the middle: RoBERTa's positions skip it
        made.append((ids, torch.randint(0, types, (length,), generator=generator)))
    return made


def pooled(hidden, how):
    return {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values}[how]


def make(name, kind, config, seed, dtype=torch.float32, form="safetensors", sentence=None, lengths=(1, 2, 7, 16, 24)):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    model = kind(config).eval()
    randomise(model, seed)
    model = model.to(dtype)
    config.architectures = [kind.__name__]
    config.dtype = str(dtype).split(".")[1]
    (folder / "config.json").write_text(config.to_json_string())
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    # Tied weights are stored once in safetensors and share a storage in the others.
    seen, unique = {}, {}
    for key, value in state.items():
        if value.data_ptr() not in seen:
            seen[value.data_ptr()] = key
            unique[key] = value
    if form == "safetensors":
        save_file(unique, folder / "model.safetensors", metadata={"format": "pt"})
    elif form == "sharded safetensors":
        unique["embeddings.position_ids"] = torch.arange(config.max_position_embeddings).unsqueeze(0)  # as old versions wrote it
        names = sorted(unique)
        parts = [names[: len(names) // 2], names[len(names) // 2:]]
        weight_map = {}
        for i, part in enumerate(parts):
            file = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
            save_file({k: unique[k] for k in part}, folder / file, metadata={"format": "pt"})
            weight_map.update({k: file for k in part})
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}, indent=1))
    elif form == "bin":
        # Column-major weights and one shared storage: strides and offsets must be followed.
        for key in list(state):
            if key.endswith("query.weight"):
                state[key] = state[key].t().contiguous().t()
        torch.save(state, folder / "pytorch_model.bin")
    elif form == "plain bin":
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    elif form == "sharded bin":
        names = sorted(state)
        parts = [names[: len(names) // 2], names[len(names) // 2:]]
        weight_map = {}
        for i, part in enumerate(parts):
            file = f"pytorch_model-{i + 1:05d}-of-{len(parts):05d}.bin"
            torch.save({k: state[k] for k in part}, folder / file)
            weight_map.update({k: file for k in part})
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1))
    if sentence:
        how, normalise = sentence
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if normalise else [])
        (folder / "modules.json").write_text(json.dumps(
            [{"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{t}"} for i, (p, t) in enumerate(modules)]))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({
            "word_embedding_dimension": config.hidden_size, "pooling_mode_cls_token": how == "cls",
            "pooling_mode_mean_tokens": how == "mean", "pooling_mode_max_tokens": how == "max", "pooling_mode_mean_sqrt_len_tokens": False}))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20, "do_lower_case": False}))

    stored = unique if "safetensors" in form else state
    tensors = {}
    for key, value in stored.items():
        flat = value.double().flatten()
        weights = torch.arange(flat.numel()) % 7 + 1
        tensors[key] = {"dtype": NAMES[value.dtype], "shape": list(value.shape), "sum": flat.sum().item(), "dot": (flat * weights).sum().item()}
    model = model.float()
    outputs, inputs = {}, []
    base = getattr(model, model.base_model_prefix, model)
    for ids, types in rows(config.pad_token_id, getattr(config, "type_vocab_size", 1), seed, lengths):
        inputs.append({"ids": ids.tolist(), "type_ids": types.tolist()})
        feed = dict(input_ids=ids[None], token_type_ids=types[None], attention_mask=torch.ones_like(ids)[None])
        if config.model_type == "mpnet":
            feed.pop("token_type_ids")
        with torch.no_grad():
            if sentence:
                vector = pooled(base(**feed).last_hidden_state[0], sentence[0])
                found = {"embedding": torch.nn.functional.normalize(vector, dim=0) if sentence[1] else vector}
            elif hasattr(model, "classifier"):
                found = {"logits": model(**feed).logits[0]}
            elif hasattr(model, "qa_outputs"):
                result = model(**feed)
                found = {"logits": torch.stack([result.start_logits[0], result.end_logits[0]], -1)}
            else:
                result = base(**feed)
                found = {"last_hidden_state": result.last_hidden_state[0]}
                if result.get("pooler_output") is not None:
                    found["pooler_output"] = result.pooler_output[0]
        for key, value in found.items():
            outputs.setdefault(key, []).append([float(f"{v:.9g}") for v in value.flatten().tolist()])
    (folder / "golden.json").write_text(json.dumps({"rows": inputs, "outputs": outputs, "tensors": tensors}, separators=(",", ":")))


def main():
    t = transformers
    names = lambda *labels: dict(id2label=dict(enumerate(labels)), label2id={l: i for i, l in enumerate(labels)})
    make("bert-classification", t.BertForSequenceClassification, t.BertConfig(**BERT, **names("negative", "neutral", "positive")), 1)
    make("bert-regression", t.BertForSequenceClassification, t.BertConfig(**BERT, num_labels=1, problem_type="regression"), 2, form="bin")
    make("bert-token", t.BertForTokenClassification, t.BertConfig(**BERT, **names("O", "B-PER", "I-PER", "B-LOC", "I-LOC")), 3, torch.float16)
    make("bert-qa", t.BertForQuestionAnswering, t.BertConfig(**BERT), 4, torch.bfloat16)
    make("bert-encoder", t.BertModel, t.BertConfig(**BERT), 5, form="sharded safetensors")
    make("bert-pretraining", t.BertForPreTraining, t.BertConfig(**dict(BERT, hidden_act="gelu_new")), 6, form="plain bin")
    make("bert-sentence-mean", t.BertModel, t.BertConfig(**BERT), 7, torch.float16, sentence=("mean", True))
    make("bert-sentence-max", t.BertModel, t.BertConfig(**dict(BERT, hidden_act="relu")), 8, torch.bfloat16, sentence=("max", False))
    make("roberta-classification", t.RobertaForSequenceClassification, t.RobertaConfig(**ROBERTA, **names("contradiction", "neutral", "entailment")), 9)
    make("roberta-token", t.RobertaForTokenClassification, t.RobertaConfig(**ROBERTA, num_labels=4), 10, torch.bfloat16, form="sharded bin")
    make("roberta-qa", t.RobertaForQuestionAnswering, t.RobertaConfig(**ROBERTA), 11, torch.float16)
    make("roberta-sentence-cls", t.RobertaModel, t.RobertaConfig(**ROBERTA), 12, torch.float16, sentence=("cls", True))
    make("mpnet-classification", t.MPNetForSequenceClassification, t.MPNetConfig(**MPNET, **names("contradiction", "neutral", "entailment")), 14)
    make("mpnet-token", t.MPNetForTokenClassification, t.MPNetConfig(**MPNET, num_labels=4), 15, torch.bfloat16, form="sharded bin")
    make("mpnet-qa", t.MPNetForQuestionAnswering, t.MPNetConfig(**MPNET), 16, torch.float16)
    make("mpnet-encoder", t.MPNetModel, t.MPNetConfig(**MPNET), 17, torch.float16)
    # Long enough for every bucket of relative positions.
    make("mpnet-sentence-mean", t.MPNetModel, t.MPNetConfig(**dict(MPNET, max_position_embeddings=162)), 18, torch.float16, sentence=("mean", True), lengths=(1, 7, 33, 100, 160))
    make("roberta-masked", t.RobertaForMaskedLM, t.RobertaConfig(**ROBERTA), 13, torch.bfloat16)


if __name__ == "__main__":
    main()
