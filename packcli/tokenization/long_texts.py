r"""Long texts are encoded in chunks, which bounds the memory, where that is proven to change no id.

A cut stands between a letter and a space or line feed that has another letter behind it. It changes nothing when

- the normalizer is none or NFC: neither composes across a space or a line feed with a letter behind;
- the first step of the pre-tokenizer that is not `Digits` splits with a pattern of SAFE_PATTERNS. In none of
  them can a match hold a letter with white space after it, and none looks behind: so a match ends at the cut, and
  the next begins there. The only look ahead, `\s+(?!\S)`, follows white space, and stands right of the cut. Later
  steps and the model see one match at a time;
- the pre-tokenizer puts no space before a text;
- no added token holds a letter with white space behind, or takes the white space around it.

Texts for other tokenizers, and texts without such places, are encoded whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.tokenization.spec import TokenizerSpec, load_json

LONG_CHARS = 1 << 20
"""Texts above this are cut."""
CHUNK_CHARS = 1 << 18
"""Characters after which a chunk ends at the next safe place."""
CALL_CHARS = 1 << 22
"""Characters in one call of an engine, at most, for a call cannot be interrupted."""

_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
SAFE_PATTERNS = (_CL100K, _CL100K.replace("{1,3}", ""))
"""Of `Split`: GPT-4, Llama 3, OLMo 2 and packcli's own; Qwen 2. GPT-2's own stands in `ByteLevel`."""

# Letters in every version of Unicode: a character that an engine does not take for a letter could put a cut inside a
# match.
_LETTER = (
    "[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u0400-\u0481\u05d0-\u05ea\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3]"
)
_CUT = re.compile(f"{_LETTER}(?=[ \n]{_LETTER})")


def may_cut(data: dict[str, Any]) -> bool:
    """Whether the texts of a tokenizer.json may be cut; see the module."""
    normalizer = data.get("normalizer")
    if normalizer is not None and normalizer["type"] != "NFC":
        return False
    for token in data.get("added_tokens") or []:
        if token.get("lstrip") or token.get("rstrip") or re.search(r"\w\s", token["content"]):
            return False
    pre = data.get("pre_tokenizer") or {"type": "none"}
    steps = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    if any(step.get("add_prefix_space") for step in steps):
        return False
    for step in steps:
        if step["type"] == "Digits":
            continue
        if step["type"] == "ByteLevel":
            return bool(step.get("use_regex", True))
        is_whole = step.get("behavior") == "Isolated" or (step.get("behavior") == "Removed" and step.get("invert"))
        return bool(step["type"] == "Split" and is_whole and step["pattern"].get("Regex") in SAFE_PATTERNS)
    return False


def cut_text(text: str) -> Iterator[str]:
    """The chunks of a text, in order: each ends at the first safe place after CHUNK_CHARS."""
    begin = 0
    while len(text) - begin > LONG_CHARS:
        cut = _CUT.search(text, begin + CHUNK_CHARS)
        if cut is None:
            break
        yield text[begin : cut.end()]
        begin = cut.end()
    yield text[begin:]


class LongTextEngine:
    """Passes texts on to an engine: long ones in chunks, and at most CALL_CHARS in a call."""

    def __init__(self, engine: Any, spec: TokenizerSpec) -> None:
        self._engine, self._spec = engine, spec
        self._may_cut: bool | None = None
        self.name: str = engine.name
        self.version: str = engine.version

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """See Engine."""
        if sum(map(len, texts)) <= LONG_CHARS:
            ids, offsets = self._engine.encode(texts)
            return ids, offsets
        chunks: list[str] = []
        ends = np.zeros(len(texts) + 1, dtype=np.int64)  # of each text, counted in chunks
        for index, text in enumerate(texts):
            chunks += cut_text(text) if len(text) > LONG_CHARS and self._can_cut() else [text]
            ends[index + 1] = len(chunks)
        ids_of_calls, lengths = [], []
        for call in _calls(chunks):
            ids, offsets = self._engine.encode(call)
            ids_of_calls.append(ids)
            lengths.append(np.diff(offsets))
        chunk_offsets = np.concatenate(([0], np.cumsum(np.concatenate(lengths))))
        return np.concatenate(ids_of_calls), chunk_offsets[ends]

    def _can_cut(self) -> bool:
        if self._may_cut is None:  # the file is large, and most inputs have no long text
            try:
                self._may_cut = may_cut(load_json(self._spec.load()))
            except (AttributeError, LookupError, TypeError):  # a structure that may_cut does not know
                self._may_cut = False
        return self._may_cut


def _calls(chunks: list[str]) -> Iterator[list[str]]:
    """The chunks in groups of at most CALL_CHARS, or of one."""
    call: list[str] = []
    size = 0
    for chunk in chunks:
        if call and size + len(chunk) > CALL_CHARS:
            yield call
            call, size = [], 0
        call.append(chunk)
        size += len(chunk)
    yield call
