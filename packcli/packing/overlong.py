"""Document lengths -> segments no longer than max_len.

Legend: D documents, S segments, L max_len. Example with L = 4 and documents of 3, 9 and 4 tokens:

    split     3 | 4 4 1 | 4      nothing is lost
    truncate  3 | 4     | 4      5 tokens lost
    drop      3 |       | 4      9 tokens, one document lost
    error     OverlongDocumentError names the document

`cut_stream` is what concat does: documents 3, 9, 4 as one stream, cut every L tokens:

    stream    3 1 | 4 | 4 | 4    (document 1 gives 1, 4 and 4 tokens)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from packcli.packing.arrays import offsets, ranges

Integer = TypeVar("Integer", bound=np.integer)


class OverlongDocumentError(ValueError):
    """A document is longer than max_len and the policy is `error`; `document` is its index."""

    def __init__(self, document: int, length: int) -> None:
        super().__init__(document, length)
        self.document = document
        self.length = length

    def __str__(self) -> str:
        return f"document {self.document} has {self.length} tokens"


@dataclass(frozen=True, slots=True)
class Segments:
    """Runs of tokens of documents, in input order."""

    length: NDArray[np.int32]
    """int32[S]: tokens, 1..max_len."""
    places: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    """doc and start. None, to save memory, when segment s is the whole of document s: the usual case."""

    @property
    def doc(self) -> NDArray[np.int64]:
        """int64[S]: index of the document."""
        return self.places[0] if self.places else np.arange(len(self.length), dtype=np.int64)

    @property
    def start(self) -> NDArray[np.int64]:
        """int64[S]: first token, counted inside the document."""
        return self.places[1] if self.places else np.zeros(len(self.length), dtype=np.int64)

    def __len__(self) -> int:
        """The number of segments S."""
        return len(self.length)


def kept_lengths(lengths: NDArray[Integer], max_len: int, policy: str) -> NDArray[Integer]:
    """Tokens of each document that the policy keeps, integers [D]; `split` keeps all.

    Raises:
        OverlongDocumentError: the policy is `error` and a document is too long.
    """
    too_long = lengths > max_len
    if not too_long.any():
        return lengths
    kept: NDArray[Integer] = lengths.copy()
    if policy == "truncate":
        kept[too_long] = max_len
    if policy == "drop":
        kept[too_long] = 0
    if policy == "error":
        first = int(np.argmax(too_long))
        raise OverlongDocumentError(first, int(lengths[first]))
    return kept


def split_documents(lengths: NDArray[np.integer], max_len: int) -> Segments:
    """Cuts every document into segments of max_len and a remainder; empty documents give none."""
    if not len(lengths) or (lengths.min() > 0 and lengths.max() <= max_len):
        return Segments(lengths.astype(np.int32, copy=False), None)
    lengths = lengths.astype(np.int64, copy=False)
    num_segments = -(-lengths // max_len)
    doc = np.repeat(np.arange(len(lengths), dtype=np.int64), num_segments)
    start = ranges(np.zeros_like(num_segments), num_segments) * max_len
    length = np.minimum(lengths[doc] - start, max_len).astype(np.int32)
    return Segments(length, (doc, start))


def cut_stream(lengths: NDArray[np.integer], max_len: int) -> Segments:
    """Cuts the joined stream of all documents at every multiple of max_len and at every document's end."""
    doc_offsets = offsets(lengths)
    cuts = np.union1d(doc_offsets, np.arange(max_len, int(doc_offsets[-1]), max_len, dtype=np.int64))
    begins = cuts[:-1]
    doc = np.searchsorted(doc_offsets[1:], begins, side="right").astype(np.int64)  # passes over empty ones
    return Segments(np.diff(cuts).astype(np.int32), (doc, begins - doc_offsets[doc]))
