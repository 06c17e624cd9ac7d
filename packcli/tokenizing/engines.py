"""Two engines behind one interface: `fastokens`, and `tokenizers` as the reference and the fallback.

Both give the ids that `tokenizers` gives for the text alone: no BOS, no EOS, and special tokens written in
the text are ordinary text unless the spec allows them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from packcli.errors import TokenizerError, unknown_name
from packcli.tokenizing.pieces import PiecewiseEngine
from packcli.tokenizing.spec import TokenizerSpec

BATCH_DOCUMENTS = 64
"""Texts in a call: small calls keep text and tokens in the cache, and beat one giant call."""


@contextlib.contextmanager
def _panics(what: str) -> Iterator[None]:
    """Turns what `tokenizers` raises, plain Exception or a panic that is none, into TokenizerError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise TokenizerError(f"{what}: {str(error)[:300] or type(error).__name__}") from None


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
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
        import tokenizers

        self.version = tokenizers.__version__
        self._path = spec.path
        with _panics(f"{spec.path}: tokenizers cannot load it"):
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        # Lost by pickling, by save and by to_str, so every process sets it on its own object, and looks.
        self._tokenizer.encode_special_tokens = not spec.allow_special
        if self._tokenizer.encode_special_tokens is spec.allow_special:
            raise TokenizerError(f"tokenizers {self.version} cannot keep special tokens in text apart")

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """See Engine."""
        with _panics(f"{self._path}: tokenizers cannot encode with it"):
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        arrays = [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        return (np.concatenate(arrays) if arrays else np.empty(0, dtype=np.uint32)), offsets


class FastEngine:
    """The `fastokens` library: the same ids, about fifty times faster (see guard for how that is held)."""

    name = "fastokens"

    def __init__(self, spec: TokenizerSpec, text: str, threads: int) -> None:
        # Read when the library makes its pool, at the first call.
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
    return PiecewiseEngine(ENGINES[name](spec, spec.load() if text is None else text, threads), spec)
