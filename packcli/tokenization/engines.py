"""Two engines behind one interface: `fastokens`, and `tokenizers` as the reference and the fallback.

Both encode the text alone, without BOS and EOS. Special tokens written in it are ordinary text unless the spec allows
them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from packcli.errors import unknown_name
from packcli.tokenization.long_texts import LongTextEngine
from packcli.tokenization.reference import load_reference
from packcli.tokenization.spec import TokenizerSpec

BATCH_DOCUMENTS = 64
"""Texts in a call: small calls keep text and tokens in the cache, and beat one giant call."""


class Engine(Protocol):
    """Texts to ids."""

    name: str
    version: str

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The ids of all texts, uint32[T], and where each begins and ends, int64[D+1]."""


class ReferenceEngine:
    """The `tokenizers` library: what every other engine must equal."""

    name = "tokenizers"

    def __init__(self, spec: TokenizerSpec, text: str, threads: int) -> None:
        # 0.x and 1.x read the number of threads in their own way, when they are first used.
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        self._reference = load_reference(text, spec.path)
        self._split_special = not spec.allow_special
        self.version = self._reference.version

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """See Engine."""
        return self._reference.encode(texts, split_special=self._split_special)


class FastEngine:
    """The `fastokens` library: the same ids, which `guard` makes sure of.

    11 to 80 times as fast as `tokenizers` 0.23.3, 1.2 to 3 times as 1.0.0rc3 (tests/benchmarks/bench_engines.py).
    """

    name = "fastokens"

    def __init__(self, spec: TokenizerSpec, text: str, threads: int) -> None:
        # The library reads these at its first call, when it makes its pool of threads.
        os.environ["FASTOKENS_BPE_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
        import importlib.metadata

        import fastokens

        self.version = importlib.metadata.version("fastokens")
        self._tokenizer = fastokens.Tokenizer.from_json_str(text)
        self._split_special = not spec.allow_special

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """See Engine."""
        ids, offsets = self._tokenizer.encode_batch_flat(
            texts if isinstance(texts, list) else list(texts),
            add_special_tokens=False,
            split_special_tokens=self._split_special,
        )
        return np.frombuffer(ids, dtype=np.uint32), np.frombuffer(offsets, dtype=np.int64)


ENGINES: dict[str, Callable[[TokenizerSpec, str, int], Engine]] = {
    "fastokens": FastEngine,
    "tokenizers": ReferenceEngine,
}


def make_engine(name: str, spec: TokenizerSpec, *, threads: int = 1, text: str | None = None) -> Engine:
    """Loads the tokenizer into an engine.

    Args:
        name: A key of ENGINES.
        spec: The tokenizer.
        threads: Cores that the engine may use in this process.
        text: What spec.load() gives, when the caller has it already.

    Raises:
        TokenizerError: `tokenizers` cannot load the file. (The fast engine raises what its library raises.)
    """
    if name not in ENGINES:
        raise unknown_name("tokenizer engine", name, ENGINES)
    return LongTextEngine(ENGINES[name](spec, spec.load() if text is None else text, threads), spec)
