"""Inputs with bad rows, and what becomes of them."""

import base64
import json

import packcli


def pack(path, output, tokenizer, **settings):
    given = {"on_error": "skip", "max_bad": "100%", "workers": 1, "tokenizer_engine": "tokenizers", **settings}
    return packcli.pack(str(path), output, tokenizer=str(tokenizer), **given)


def rejected(output):
    return [json.loads(line) for line in (output / "rejected.jsonl").read_bytes().splitlines()]


def raw_of(entry):
    return entry["raw"].encode() if "raw" in entry else base64.b64decode(entry["raw_base64"])
