"""Token ids of many documents in two flat arrays.

Legend: D documents, T tokens.

    ids      uint32[T]    all documents, one after the other, BOS and EOS included
    offsets  int64[D+1]   document d is ids[offsets[d]:offsets[d+1]]
    loss     bool[T]      which tokens carry loss; None: all of them

Where tokens are not kept, loss masks are runs: their memory grows with the turns of chats, not with the tokens.

    mask    0 0 1 1 1 0 1 0      runs 2..5 and 6..7; between 3 and 7 there are 3

How many tokens between two places carry loss is then found by a binary search (LossRuns.count).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.packing import arrays


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Token ids of D documents."""

    ids: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    loss: NDArray[np.bool_] | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, int64[D]."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        """The number of documents D."""
        return len(self.offsets) - 1


class TokenBuffer:
    """Grows a TokenBatch call by call, without ever holding the tokens twice.

    The array is enlarged in place (realloc moves pages, it does not copy them), so the peak is the
    batch itself. `num_special` counts the BOS and EOS added so far. With `masked` it holds a loss mask as well.
    """

    def __init__(
        self, *, bos: int | None = None, eos: int | None = None, capacity: int = 1 << 16, masked: bool = False
    ) -> None:
        self._bos = bos
        self._eos = eos
        self._ids: NDArray[np.uint32] = np.empty(max(capacity, 16), dtype=np.uint32)
        self._loss: NDArray[np.bool_] | None = np.empty(len(self._ids), dtype=np.bool_) if masked else None
        self._num_tokens = 0
        self._lengths: list[NDArray[np.int64]] = []
        self.num_special = 0

    @property
    def num_tokens(self) -> int:
        """Tokens held so far, special ones included."""
        return self._num_tokens

    def append(self, ids: NDArray[np.uint32], offsets: NDArray[np.int64]) -> None:
        """Adds D documents, each between the BOS and EOS that the buffer was made with.

        Args:
            ids: uint32[T], without special tokens.
            offsets: int64[D+1], from 0 to T.
        """
        num_docs = len(offsets) - 1
        lengths = np.diff(offsets)
        extra = (self._bos is not None) + (self._eos is not None)
        total = len(ids) + extra * num_docs
        out = self._reserve(total)
        if not extra:
            out[:] = ids
        else:
            ends = np.cumsum(lengths + extra)
            is_text = np.ones(total, dtype=np.bool_)
            if self._eos is not None:
                is_text[ends - 1] = False
                out[ends - 1] = self._eos
            if self._bos is not None:
                starts = ends - lengths - extra
                is_text[starts] = False
                out[starts] = self._bos
            out[is_text] = ids
        self._num_tokens += total
        self.num_special += extra * num_docs
        self._lengths.append(lengths + extra)

    def append_masked(
        self, ids: NDArray[np.uint32], offsets: NDArray[np.int64], loss: NDArray[np.bool_], num_special: int
    ) -> None:
        """Adds D documents as they are; `num_special` of their tokens are BOS and EOS that packcli added.

        Args:
            ids: uint32[T].
            offsets: int64[D+1], from 0 to T.
            loss: bool[T].
            num_special: Of all D documents.
        """
        if self._loss is None:
            raise AssertionError("this buffer holds no mask")
        self._reserve(len(ids))[:] = ids
        end = self._num_tokens + len(ids)
        if end > len(self._loss):
            self._loss.resize(len(self._ids), refcheck=False)
        self._loss[self._num_tokens : end] = loss
        self._num_tokens = end
        self.num_special += num_special
        self._lengths.append(np.diff(offsets))

    def _reserve(self, count: int) -> NDArray[np.uint32]:
        need = self._num_tokens + count
        if need > len(self._ids):
            self._ids.resize(max(need, len(self._ids) + (len(self._ids) >> 2)), refcheck=False)
        return self._ids[self._num_tokens : need]

    def finish(self) -> TokenBatch:
        """Everything appended so far; the buffer must not be used after it."""
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, dtype=np.int64)
        loss = None if self._loss is None else self._loss[: self._num_tokens]
        return TokenBatch(self._ids[: self._num_tokens], arrays.offsets(lengths), loss)


@dataclass(frozen=True, slots=True)
class LossRuns:
    """Runs of R tokens that carry loss, in order; no two overlap."""

    starts: NDArray[np.int64]
    """int64[R]: place of the first token of each run."""
    ends: NDArray[np.int64]
    """int64[R]: place after the last token of each run."""

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_], first: int = 0) -> LossRuns:
        """The runs of bool[T]; the first token stands at place `first`."""
        padded = np.zeros(len(mask) + 2, dtype=np.int8)
        padded[1:-1] = mask
        edges = np.flatnonzero(padded[1:] != padded[:-1]) + first
        return cls(edges[::2], edges[1::2])

    @classmethod
    def join(cls, runs: Sequence[LossRuns]) -> LossRuns:
        """Runs that follow each other."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(
            np.concatenate([nothing, *(each.starts for each in runs)]),
            np.concatenate([nothing, *(each.ends for each in runs)]),
        )

    def moved(self, by: int) -> LossRuns:
        """The same runs of documents that stand `by` tokens further on."""
        return LossRuns(self.starts + by, self.ends + by)

    def count(self, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens of begins[i]..ends[i]-1 carry loss, int64; none where begins[i] >= ends[i]."""
        before = arrays.offsets(self.ends - self.starts)

        def up_to(places: NDArray[np.int64]) -> Any:
            run = np.searchsorted(self.starts, places, side="right")
            last = np.maximum(run - 1, 0)
            missing = np.maximum(self.ends[last] - places, 0)
            return before[run] - np.where(run > 0, missing, 0)

        if not len(self.starts):
            return np.zeros(len(begins), dtype=np.int64)
        between: NDArray[np.int64] = np.maximum(up_to(ends) - up_to(begins), 0)
        return between


class LengthBuffer(TokenBuffer):
    """A TokenBuffer that keeps lengths and the loss mask, and no token."""

    def __init__(self, *, bos: int | None = None, eos: int | None = None, masked: bool = False) -> None:
        super().__init__(bos=bos, eos=eos, capacity=0)
        self._extra = (bos is not None) + (eos is not None)
        self._runs: list[LossRuns] | None = [] if masked else None

    def append(self, ids: NDArray[np.uint32], offsets: NDArray[np.int64]) -> None:
        """See TokenBuffer."""
        num_special = self._extra * (len(offsets) - 1)
        self._lengths.append(np.diff(offsets) + self._extra)
        self._num_tokens += len(ids) + num_special
        self.num_special += num_special

    def append_masked(
        self, ids: NDArray[np.uint32], offsets: NDArray[np.int64], loss: NDArray[np.bool_], num_special: int
    ) -> None:
        """See TokenBuffer."""
        if self._runs is None:
            raise AssertionError("this buffer holds no mask")
        self._runs.append(LossRuns.of_mask(loss, self._num_tokens))
        self._lengths.append(np.diff(offsets))
        self._num_tokens += len(ids)
        self.num_special += num_special

    def finish(self) -> TokenBatch:
        """Always raises AssertionError: there are no tokens."""
        raise AssertionError("this buffer holds lengths only")

    def measured(self) -> tuple[NDArray[np.int64], LossRuns | None]:
        """Tokens of each document, int64[D], and which of all tokens carry loss; None: every one."""
        lengths = np.concatenate([np.empty(0, dtype=np.int64), *self._lengths])
        return lengths, None if self._runs is None else LossRuns.join(self._runs)
