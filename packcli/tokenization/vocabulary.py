"""What is read from a tokenizer.json besides an engine: the lengths of tokens, and which are special."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.tokenization.spec import TokenizerSpec, load_json


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the tokenizer.json says about lengths and special tokens; from read_vocabulary."""

    num_bytes: NDArray[np.int32]
    """int32[V]: bytes of text that each id stands for; -1 where that is not known."""
    num_marks: NDArray[np.int32]
    """int32[V]: how often each token holds U+2581, where that stands for a space; num_bytes counts it as one byte."""
    lead: int
    """Bytes that may be put in front of a stretch of text: 1 where a space is prepended."""
    checks_nfc: bool
    """Whether text is normalized, so that lengths hold only for text that is normal already."""
    special: dict[str, int]
    """Literal -> id of the special tokens."""
    others: tuple[str, ...]
    """Literals of the added tokens that are not special."""
    lstrip: frozenset[str]
    rstrip: frozenset[str]
    """Special tokens that take the white space before (lstrip) or after them (rstrip) along."""
    unsafe: str | None
    """Why texts with control tokens cannot be cut at them; None when they can."""
    first_only: bool
    """Whether a space is prepended at the very beginning of a text only, and not after control tokens."""


@functools.lru_cache(maxsize=2)
def read_vocabulary(spec: TokenizerSpec) -> Vocabulary:
    """The Vocabulary of a tokenizer; cached, because it takes long to parse the file."""
    data = load_json(spec.load())
    added = data.get("added_tokens") or []
    model, normalizers, steps = data["model"], _types(data, "normalizer"), _types(data, "pre_tokenizer")
    vocab = model["vocab"]
    pairs = enumerate(piece for piece, _ in vocab) if isinstance(vocab, list) else ((i, p) for p, i in vocab.items())
    num_bytes = np.full(spec.vocab_size, -1, dtype=np.int32)
    num_marks = np.zeros(spec.vocab_size, dtype=np.int32)
    is_byte_level = "ByteLevel" in steps
    for number, piece in pairs if _spells_text(data, is_byte_level) else ():
        if is_byte_level:
            num_bytes[number] = len(piece)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
            num_bytes[number] = 1
        else:
            num_marks[number] = piece.count("\u2581")
            num_bytes[number] = len(piece.encode()) - 2 * num_marks[number]
    for token in added:  # known even where the lengths of other tokens are not
        num_bytes[token["id"]] = len(token["content"].encode())
    special = [token for token in added if token.get("special")]
    metaspace = [step for step in _steps(data, "pre_tokenizer") if step["type"] == "Metaspace"]
    unsafe = None
    for token in special:
        if token.get("single_word"):
            unsafe = f"{token['content']!r} is a special token only as a word of its own"
        if token.get("normalized") and set(normalizers) - {"NFC"}:
            unsafe = f"{token['content']!r} is found in normalized text"
    return Vocabulary(
        num_bytes=num_bytes,
        num_marks=num_marks,
        lead=int(bool(metaspace) or "Prepend" in normalizers or _prefixes_space(data)),
        checks_nfc=bool(set(normalizers) - {"Prepend", "Replace"}),
        special={token["content"]: token["id"] for token in special},
        others=tuple(token["content"] for token in added if not token.get("special")),
        lstrip=frozenset(token["content"] for token in special if token.get("lstrip")),
        rstrip=frozenset(token["content"] for token in special if token.get("rstrip")),
        unsafe=unsafe,
        first_only=any(step.get("prepend_scheme") == "first" for step in metaspace),
    )


def _spells_text(data: dict[str, Any], is_byte_level: bool) -> bool:
    """Whether the ids of a text spell it, byte by byte, but for a space in front and for normal forms."""
    if data["model"].get("type", "BPE") != "BPE":
        return False
    if is_byte_level:
        return set(_types(data, "normalizer")) <= {"NFC"}
    for step in _steps(data, "normalizer"):
        is_space = step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == "\u2581"
        if not is_space and not (step["type"] == "Prepend" and step["prepend"] == "\u2581"):
            return False
    return bool(data["model"].get("byte_fallback")) and set(_types(data, "pre_tokenizer")) <= {"Metaspace", "Split"}


def _steps(data: dict[str, Any], part: str) -> list[dict[str, Any]]:
    step = data.get(part)
    if step is None:
        return []
    key = "normalizers" if part == "normalizer" else "pretokenizers"
    return list(step[key]) if step["type"] == "Sequence" else [step]


def _types(data: dict[str, Any], part: str) -> list[str]:
    return [step["type"] for step in _steps(data, part)]


def _prefixes_space(data: dict[str, Any]) -> bool:
    return any(step.get("add_prefix_space") for step in _steps(data, "pre_tokenizer"))


def never_prepend(text: str) -> str:
    """A tokenizer.json that prepends no space: for text that stands after a control token."""
    data = load_json(text)
    for step in _steps(data, "pre_tokenizer"):
        if step["type"] == "Metaspace":
            step["prepend_scheme"] = "never"
    return json.dumps(data)
