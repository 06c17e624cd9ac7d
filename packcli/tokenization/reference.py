"""The `tokenizers` library, whose ids are right by definition. One small class for each of its major versions.

1.0 dropped much of what 0.x had: it reads files only, takes at every call what to do with special tokens in the text,
and gives no offsets. Both classes here have the same methods, and `load_reference` picks the one that fits.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from packcli.errors import TokenizerError
from packcli.packing import offsets

Ids = NDArray[np.uint32]
Offsets = NDArray[np.int64]


class Reference(Protocol):
    """A loaded tokenizer.json. Control tokens are never added; the text alone is encoded.

    `split_special`: special tokens written in a text are encoded as ordinary text; else they become control tokens.
    """

    version: str

    def encode(self, texts: Sequence[str], *, split_special: bool) -> tuple[Ids, Offsets]:
        """The ids of all texts, uint32[T], and where each text begins and ends in them, int64[D+1]."""

    def places(self, text: str, *, split_special: bool) -> tuple[Ids, NDArray[np.int64]] | None:
        """The ids of a text, uint32[T], and the characters at which each token begins and ends, int64[T, 2].

        None: this version gives no offsets.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; control tokens are written out."""

    def spelling(self, token: int) -> str | None:
        """How the vocabulary spells a token; None for an id that it does not have."""


def load_reference(text: str, name: str) -> Reference:
    """Loads a tokenizer.json.

    Args:
        text: Its contents.
        name: What errors call it.

    Raises:
        TokenizerError: `tokenizers` cannot load it.
    """
    return (_Reference0 if _major() == 0 else _Reference1)(text, name)


def bytes_per_second() -> int:
    """About how much text one core encodes: 2.7 to 3.3 MB/s were measured of 0.23.3, 8 to 120 of 1.0.0rc3."""
    return 2_000_000 if _major() == 0 else 8_000_000


def _major() -> int:
    import tokenizers

    return int(tokenizers.__version__.partition(".")[0])


OLDER = "an older one may: pip install 'tokenizers<1'"
"""The hint for what 1.x cannot do."""


@contextlib.contextmanager
def _named(what: str, hint: str = "") -> Iterator[None]:
    """Turns what `tokenizers` raises into TokenizerError; a panic of its Rust code is a BaseException."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise TokenizerError(f"{what}: {str(error)[:300] or type(error).__name__}", hint) from None


def _joined(arrays: list[Ids]) -> tuple[Ids, Offsets]:
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    return (np.concatenate(arrays) if arrays else np.empty(0, dtype=np.uint32)), offsets(lengths)


class _Reference0:
    """`tokenizers` 0.x."""

    def __init__(self, text: str, name: str) -> None:
        import tokenizers

        self.version: str = tokenizers.__version__
        self._name = name
        with _named(f"{name}: tokenizers {self.version} cannot load it"):
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(text)

    def encode(self, texts: Sequence[str], *, split_special: bool) -> tuple[Ids, Offsets]:
        """See Reference."""
        self._split(split_special)
        with _named(f"{self._name}: tokenizers cannot encode with it"):
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return _joined([np.array(encoding.ids, dtype=np.uint32) for encoding in encodings])

    def places(self, text: str, *, split_special: bool) -> tuple[Ids, NDArray[np.int64]] | None:
        """See Reference."""
        self._split(split_special)
        with _named(f"{self._name}: tokenizers cannot encode with it"):
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.uint32)
        return ids, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)

    def _split(self, split_special: bool) -> None:
        # Pickling, saving and to_str lose this setting, so it is set before every call, and read back.
        self._tokenizer.encode_special_tokens = split_special
        if self._tokenizer.encode_special_tokens is not split_special:
            raise TokenizerError(f"tokenizers {self.version} cannot keep special tokens in text apart")

    def decode(self, ids: Sequence[int]) -> str:
        """See Reference."""
        with _named(f"{self._name}: tokenizers cannot decode with it"):
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def spelling(self, token: int) -> str | None:
        """See Reference."""
        spelling = self._tokenizer.id_to_token(token)
        return None if spelling is None else str(spelling)


class _Reference1:
    """`tokenizers` 1.x."""

    def __init__(self, text: str, name: str) -> None:
        import tokenizers

        self.version: str = tokenizers.__version__
        self._name = name
        with tempfile.TemporaryDirectory(prefix="packcli-") as directory:
            path = Path(directory, "tokenizer.json")  # not the user's file: `text` may have been edited
            path.write_text(text, encoding="utf-8")
            with _named(f"{name}: tokenizers {self.version} cannot load it", OLDER):
                self._tokenizer: Any = tokenizers.Tokenizer.from_file(os.fspath(path))

    def encode(self, texts: Sequence[str], *, split_special: bool) -> tuple[Ids, Offsets]:
        """See Reference."""
        with _named(f"{self._name}: tokenizers cannot encode with it"):
            encodings = self._tokenizer.encode_batch(
                list(texts), add_special_tokens=False, encode_special_tokens=split_special
            )
        return _joined([encoding.ids_array for encoding in encodings])

    def places(self, text: str, *, split_special: bool) -> tuple[Ids, NDArray[np.int64]] | None:
        """See Reference."""
        return None

    def decode(self, ids: Sequence[int]) -> str:
        """See Reference."""
        with _named(f"{self._name}: tokenizers cannot decode with it"):
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def spelling(self, token: int) -> str | None:
        """See Reference."""
        with _named(f"{self._name}: tokenizers cannot decode with it"):
            spellings = self._tokenizer.decode_tokens([token])
        return str(spellings[0]) if spellings else None
