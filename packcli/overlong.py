"""Document lengths -> segments no longer than max_len.

Legend: D documents, S segments, L max_len. Example with L = 4 and documents of 3, 9 and 4 tokens:

    split     3 | 4 4 1 | 4      nothing is lost
    truncate  3 | 4     | 4      5 tokens lost
    drop      3 |       | 4      9 tokens, one document lost
    error     OverlongDocument   names the document

`cut_stream` is what concat does: documents 3, 9, 4 as one stream, cut every L tokens:

    stream    3 1 | 4 | 4 | 4    (document 1 gives 1, 4 and 4 tokens)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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

    doc: NDArray[np.int64]
    """int64[S]: index of the document."""
    start: NDArray[np.int64]
    """int64[S]: first token, counted inside the document."""
    length: NDArray[np.int32]
    """int32[S]: tokens, 1..max_len."""

    def __len__(self) -> int:
        """The number of segments S."""
        return len(self.length)


def kept_lengths(lengths: NDArray[np.int64], max_len: int, policy: str) -> NDArray[np.int64]:
    """Tokens of each document that the policy keeps, int64[D]; `split` keeps all.

    Raises:
        OverlongDocumentError: the policy is `error` and a document is too long.
    """
    too_long = lengths > max_len
    if policy == "truncate":
        return np.minimum(lengths, max_len)
    if policy == "drop":
        return np.where(too_long, 0, lengths)
    if policy == "error" and too_long.any():
        first = int(np.argmax(too_long))
        raise OverlongDocumentError(first, int(lengths[first]))
    return lengths


def split_documents(lengths: NDArray[np.int64], max_len: int) -> Segments:
    """Cuts every document into pieces of max_len and a remainder; empty documents give none."""
    pieces = -(-lengths // max_len)
    doc = np.repeat(np.arange(len(lengths), dtype=np.int64), pieces)
    piece_of_doc = np.arange(len(doc), dtype=np.int64) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = piece_of_doc * max_len
    length = np.minimum(lengths[doc] - start, max_len).astype(np.int32)
    return Segments(doc, start, length)


def cut_stream(lengths: NDArray[np.int64], max_len: int) -> Segments:
    """Cuts the joined stream of all documents at every multiple of max_len and at every document's end."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.union1d(ends, np.arange(max_len, total, max_len, dtype=np.int64))
    cuts = cuts[cuts > 0]  # leading empty documents end at 0
    begins = np.concatenate((np.zeros(1, dtype=np.int64), cuts[:-1])) if len(cuts) else cuts
    doc = np.searchsorted(ends, begins, side="right").astype(np.int64)
    return Segments(doc, begins - (ends - lengths)[doc], (cuts - begins).astype(np.int32))
