#!/usr/bin/env python3
"""Writes tests/data/tokenizer/: digests of what the `tokenizers` package makes of the shared data sets and of nasty Unicode.

tests/text/golden_test.cpp computes the same digests with octet, without Python. A digest is the CRC-32 of little-endian int32 over
all rows: number of tokens, ids, type ids, begins and ends of the offsets, special tokens mask; a row that cannot be truncated as
asked is -1. Development time only.
usage: make_tokenizer_goldens.py SHARED MINILM_FOLDER MPNET_FOLDER OUTPUT_FOLDER      (Python with `tokenizers` and `numpy`)
"""
import json
import pathlib
import random
import sys
import zlib

import numpy as np
from tokenizers import Tokenizer

SHARED, MINILM, MPNET, OUT = map(pathlib.Path, sys.argv[1:5])
STRATEGIES = ("longest_first", "only_first", "only_second")

FIXED = [
    "", " ", "a", "\t\n\r ", "hello world", "Hello, World!!", "don't can't I'll we've they're it's HE'S 's 't 're 've 'm 'll 'd 'x",
    "caf\u00e9 cafe\u0301 CAFE\u0301 \u00c5ngstro\u0308m", "\u0130stanbul \u0131 I\u0307 i\u0307\u0323", "\u03a3\u03a3 \u039f\u0394\u039f\u03a3 \u03c3\u03c2",
    "\U0001F468\u200d\U0001F469\u200d\U0001F467 family \U0001F1FA\U0001F1F8 \U0001F44D\U0001F3FD ok", "\u4f60\u597d\u4e16\u754c hello\u4e16\u754cworld",
    "\u3053\u3093\u306b\u3061\u306f \u30ab\u30bf\u30ab\u30ca \uff76\uff9e\uff77\uff9e", "\uac00\ub098\ub2e4 \u1100\u1161\u11a8 \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u202eabc\u202c", "a\u0000b \u0001\u0002x\u007f\u0080\u0085y\u009f",
    "\ufffd a\ufffdb \ufeffbom \u00ad soft\u00adhyphen", "x\u200by\u200cz\u200d \u2060w", "\u00a0nbsp\u00a0 \u2003em\u3000ideo\u1680o\u180em",
    "[CLS] [SEP] [MASK] [PAD][UNK] [cls] [mask]x", "<s> </s> <mask> <pad><unk> a<mask>b   <mask>  c <S>", "a" * 99, "a" * 100, "a" * 101,
    "\u00e9" * 100, "e\u0301" * 100, "ab" * 2000, "x." * 500, "!" * 300, " " * 300, "   leading", "trailing   ",
    "a  b   c    d\n\n\ne \n f\t\tg \t", "\n", " \n", "\n ", "  \n  a", "\u2028\u2029",
    "12345 1,234.56 \u00bd\u00b2\u2460 \u0661\u0662\u0663 \u0967 \u2167 1st 2nd", "\U0001D400\U0001D7D8 \ufb01\ufb02 \ufb03 \u01c4 \u1e9e \u00df \u0149",
    "\ud7ff\ue000\uf8ff \U000F0000 \U0010FFFF \ufdd0 \uffff \ufffe", "\u0378\u0379 \u1234 \U0002FA1D \uf900 \u2f800 \U0002F800",
    "a\u0323\u0307 a\u0307\u0323 \u1e69 s\u0323\u0307 q\u0307\u0323", "\u302e\u302f x\u302e\u0301 \U0001D165\U0001D16E", "\u0344 \u0958 \u09dc \u0f43 \u2adc \u212b \u2126 \u212a",
    "\u0e01\u0e33 \u0e40\u0e01\u0e47\u0e1a \u0ea0", "\u0915\u094d\u0937\u093f \u0928\u092e\u0938\u094d\u0924\u0947",
    "$+<=>^`|~ \u00a2\u00a3\u20ac \u2010\u2013\u2014\u2026\u00ab\u00bb\u201c\u201d\u2018\u2019 \u3001\u3002\uff01", "http://example.com/a?b=c&d=e#f user@mail.org C++ #tag @me",
    "\u1cf2\u1cf3 \u166d \U000111c9 \u1734 \U00010D40", "word\u0301\u0302\u0303\u0304\u0316\u0317 end", "\u0301start", "\u0301", "a \u0301 b", "\u200d", "\u00ad", "\ufffd", "\x00",
    "ABC\u0130DEF \u0130", "\u1e9b\u0323 \u017f", "\u0587 \u00c6\u0152", "\U00010400\U00010428 \ua7cb \U00010d50", "\u06f1\u06f2\u06f3abc\u0664", "'\u2019s", "''s ''' 'S 'LL",
    " 's", "a's b't", "1's", "\u00e9's", "x\u00a0\u00a0y", "\u00a0 x", "\u3000\u3000x y", "e\u0301\u0327x", "\ud7ff \ue000", "hello\u2581world \u2581", "--a--b- -", "{x} tok TOK tok. atok tok1",
    "e\u0301" * 3 + "\u0041\u030a\u0327\u0301", "\u1111\u1171\u11b6\u0301", "\uff21\uff42\uff43\u3000\uff11", "\u2126\u03c9\u00b5 \u3392 \ufdfa"]


def nasty():
    rng = random.Random(7)
    pool = [chr(c) for c in list(range(0, 0x250)) * 2 + list(range(0x300, 0x370)) * 4 + list(range(0x370, 0x600)) + list(range(0x900, 0xA00))
            + list(range(0x1100, 0x1200)) + list(range(0x1E00, 0x2100))
            + [0x4E00, 0x4E01, 0xAC00, 0xAC01, 0xD7A3, 0xF900, 0xFB01, 0xFE0F, 0x200D, 0x1F600, 0x1F468, 0x20000, 0x2F800, 0x1D15E, 0x302E, 0x3099, 0x10FFFF, 0xFFFD, 0xFEFF] * 6]
    pool += list(" \t\n'.,!?-") * 60 + list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") * 12
    words = ["the", "unbelievable", "'s", "n't", "[MASK]", "<mask>", "[SEP]", "</s>", "\u00e9t\u00e9", "\u4e2d", "\u0130", "\u0301", "\ufb01", "  ", "\n", "\t", ".",
             "tokenization", "\U0001F600", "123", "\u200d", "<unk>", "Ab", "\u00a0", "tok", "TOK", "{x}", "{y}"]
    texts = list(FIXED)
    texts += ["".join(rng.choice(pool) for _ in range(rng.randint(1, 40))) for _ in range(350)]
    texts += ["".join(rng.choice(words) + rng.choice(["", " ", ""]) for _ in range(rng.randint(1, 14))) for _ in range(350)]
    return texts


def components():
    """Small tokenizers, one or a few components each. Every byte is a token, so ids show the whole normalized text."""
    vocab = {"<unk>": 0, **{f"<0x{b:02X}>": b + 1 for b in range(256)}}
    special = lambda content, id, **flags: {"id": id, "content": content, "special": False, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, **flags}

    def make(normalizer=None, pre_tokenizer=None, post_processor=None, added=()):
        return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(added), "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
                "post_processor": post_processor, "decoder": None,
                "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                          "byte_fallback": True, "ignore_merges": False, "vocab": vocab, "merges": []}}

    sequence = lambda *parts: {"type": "Sequence", "normalizers": list(parts)}
    bert = lambda **flags: {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True, **flags}
    byte_level = lambda prefix, regex=True: {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}
    found = {form: make({"type": form}) for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")}
    found["nfd_strip_lower"] = make(sequence({"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}))
    found["nfkc_lower_strip"] = make(sequence({"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True}))
    found["strip_left"] = make({"type": "Strip", "strip_left": True, "strip_right": False})
    found["replace"] = make(sequence({"type": "Replace", "pattern": {"String": "a"}, "content": "bc"}, {"type": "Replace", "pattern": {"String": "--"}, "content": ""}))
    found["replace_regex"] = make({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    found["prepend"] = make({"type": "Prepend", "prepend": "\u2581x"})
    found["bert_cased"] = make(bert(lowercase=False), {"type": "BertPreTokenizer"})
    found["bert_accents"] = make(bert(strip_accents=False), {"type": "BertPreTokenizer"})
    found["bert_dirty"] = make(bert(clean_text=False, handle_chinese_chars=False), {"type": "BertPreTokenizer"})
    found["whitespace"] = make(None, {"type": "Whitespace"})
    found["whitespace_split_lower"] = make({"type": "Lowercase"}, {"type": "WhitespaceSplit"})
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        found["punctuation_" + behavior] = make(None, {"type": "Punctuation", "behavior": behavior})
    found["digits"] = make(None, {"type": "Digits", "individual_digits": False})
    found["digits_each"] = make(None, {"type": "Digits", "individual_digits": True})
    found["sequence"] = make({"type": "NFC"}, {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Digits", "individual_digits": True}]})
    for scheme in ("always", "first", "never"):
        found["metaspace_" + scheme] = make(None, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": True}, None, [special("tok", 257)])
    found["metaspace_whole"] = make({"type": "NFKC"}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": False})
    found["byte_level_prefix"] = make(None, byte_level(True), {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True})
    found["byte_level_nfc"] = make({"type": "NFC"}, byte_level(False), {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}]})
    found["byte_level_whole"] = make(None, byte_level(True, False), {"type": "RobertaProcessing", "sep": ["<unk>", 0], "cls": ["<unk>", 0], "trim_offsets": True, "add_prefix_space": True})
    added = [special("tok", 257, single_word=True), special("{x}", 258, lstrip=True), special("{y}", 259, rstrip=True, normalized=True), special("TOK", 260, normalized=True, lstrip=True, rstrip=True),
             special("\u00e9", 261, normalized=True), special("the", 262, single_word=True, normalized=True)]
    found["added_raw"] = make(None, {"type": "WhitespaceSplit"}, None, added)
    found["added_normalized"] = make(bert(), {"type": "BertPreTokenizer"}, None, added)
    found["added_bytes"] = make(None, byte_level(True), {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}, added)
    found["template"] = make(None, {"type": "WhitespaceSplit"}, {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "A", "type_id": 3}}, {"Sequence": {"id": "A", "type_id": 1}}],
        "pair": [{"Sequence": {"id": "B", "type_id": 2}}, {"SpecialToken": {"id": "A", "type_id": 5}}, {"Sequence": {"id": "A", "type_id": 1}}],
        "special_tokens": {"A": {"id": "A", "ids": [7, 8], "tokens": ["x", "y"]}}})
    return found


class Digest:
    def __init__(self):
        self.crc, self.tokens = 0, 0

    def add(self, encoding):
        if encoding is None:
            flat = [-1]
        else:
            offsets = encoding.offsets
            flat = [len(encoding.ids), *encoding.ids, *encoding.type_ids, *(o[0] for o in offsets), *(o[1] for o in offsets), *encoding.special_tokens_mask]
            self.tokens += len(encoding.ids)
        self.crc = zlib.crc32(np.asarray(flat, dtype="<i4").tobytes(), self.crc)


def digest(tokenizer, rows, max_length=0, strategy="longest_first", special=True):
    result = Digest()
    tokenizer.no_padding()
    if max_length:
        tokenizer.enable_truncation(max_length, strategy=strategy)
    else:
        tokenizer.no_truncation()
    for begin in range(0, len(rows), 4096):
        part = rows[begin:begin + 4096]
        try:
            encodings = tokenizer.encode_batch(part, add_special_tokens=special)
        except Exception:
            encodings = []
            for row in part:
                try:
                    encodings.append(tokenizer.encode(*(row if isinstance(row, tuple) else (row,)), add_special_tokens=special))
                except Exception:
                    encodings.append(None)
        for encoding in encodings:
            result.add(encoding)
    return [f"{result.crc:08x}", result.tokens]


FILES = {"mnli/dev_matched.tsv": ("sentence1", "sentence2"), "mnli/train_union.tsv": ("sentence1", "sentence2"), "rte/train.tsv": ("sentence1", "sentence2"), "rte/dev.tsv": ("sentence1", "sentence2"),
         "mrpc/train.tsv": ("#1 String", "#2 String"), "mrpc/dev.tsv": ("#1 String", "#2 String"), "sst2/train.tsv": ("sentence",), "sst2/dev.tsv": ("sentence",),
         "cola/train.tsv": (3,), "cola/dev.tsv": (3,), "stsb/train.tsv": ("sentence1", "sentence2"), "stsb/dev.tsv": ("sentence1", "sentence2")}


def read(name):
    lines = [line.rstrip("\r").split("\t") for line in (SHARED / "data" / name).read_bytes().decode("utf-8-sig").split("\n") if line.rstrip("\r")]
    columns = FILES[name]
    if isinstance(columns[0], str):
        header = lines.pop(0)
        columns = [header.index(c) for c in columns]
    return [tuple(line[c] for c in columns) for line in lines]


def groups(tokenizer, rows, thorough):
    """Digests by name; `rows` are tuples of one or two texts."""
    found = {"text": digest(tokenizer, [row[0] for row in rows])}
    if len(rows[0]) == 1:
        return found
    found["second"] = digest(tokenizer, [row[1] for row in rows])
    found["pair"] = digest(tokenizer, rows)
    for max_length in (9, 24, 64) if thorough else (32,):
        for strategy in STRATEGIES:
            found[f"pair {max_length} {strategy}"] = digest(tokenizer, rows, max_length, strategy)
    return found


def main():
    texts = nasty()
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "nasty.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))
    small = components()
    (OUT / "components.json").write_text("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps({k: v for k, v in t.items() if k != 'model'})}" for name, t in small.items()) + "\n}\n")
    goldens = {}
    pairs = list(zip(texts, texts[1:] + texts[:1]))
    for name, description in small.items():
        tokenizer = Tokenizer.from_str(json.dumps(description))
        goldens["component " + name] = {"nasty": {"text": digest(tokenizer, texts), "pair": digest(tokenizer, pairs), "plain pair": digest(tokenizer, pairs, special=False)}}
    folders = {"bert-base-uncased": SHARED / "tokenizers/bert-base-uncased", "roberta-base": SHARED / "tokenizers/roberta-base", "minilm": MINILM, "mpnet": MPNET}
    if (SHARED / "tokenizers/xlm-roberta").exists():
        folders["xlm-roberta"] = SHARED / "tokenizers/xlm-roberta"
    for name, folder in folders.items():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        found = {"nasty": groups(tokenizer, pairs, True)}
        found["nasty"]["plain pair"] = digest(tokenizer, pairs, special=False)
        for file in FILES:
            if name in ("minilm", "mpnet", "xlm-roberta") and not file.endswith("dev.tsv") and "dev_" not in file:
                continue
            found[file] = groups(tokenizer, read(file), "dev" in file)
            print(name, file, flush=True)
        goldens[name] = found
    (OUT / "goldens.json").write_text(json.dumps(goldens, indent=1) + "\n")


main()
