"""Loss masks of many documents as runs: memory by turn of a chat, not by token.

    mask    0 0 1 1 1 0 1 0      runs 2..5 and 6..7; between 3 and 7 there are 3

What `counting` asks of a mask, how many tokens between two places carry loss, costs a binary search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.tokens import TokenBatch, TokenBuffer


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of R tokens that carry loss, in order; no two overlap."""

    starts: NDArray[np.int64]
    """int64[R]: places of the first tokens."""
    ends: NDArray[np.int64]
    """int64[R]: places behind the last."""

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_], first: int = 0) -> Runs:
        """The runs of bool[T]; the first token stands at place `first`."""
        padded = np.zeros(len(mask) + 2, dtype=np.int8)
        padded[1:-1] = mask
        edges = np.flatnonzero(padded[1:] != padded[:-1]) + first
        return cls(edges[::2], edges[1::2])

    @classmethod
    def join(cls, runs: Sequence[Runs]) -> Runs:
        """Runs that follow each other."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(
            np.concatenate([nothing, *(each.starts for each in runs)]),
            np.concatenate([nothing, *(each.ends for each in runs)]),
        )

    def moved(self, by: int) -> Runs:
        """The same runs of documents that stand `by` tokens further on."""
        return Runs(self.starts + by, self.ends + by)

    def count(self, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens of begins[i]..ends[i]-1 carry loss, int64; none where begins[i] >= ends[i]."""
        before = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(self.ends - self.starts)))

        def up_to(places: NDArray[np.int64]) -> Any:
            run = np.searchsorted(self.starts, places, side="right")
            last = np.maximum(run - 1, 0)
            missing = np.maximum(self.ends[last] - places, 0)
            return before[run] - np.where(run > 0, missing, 0)

        if not len(self.starts):
            return np.zeros(len(begins), dtype=np.int64)
        found: NDArray[np.int64] = np.maximum(up_to(ends) - up_to(begins), 0)
        return found


class LengthBuffer(TokenBuffer):
    """A TokenBuffer that keeps lengths and the loss mask, and no token."""

    def __init__(self, *, bos: int | None = None, eos: int | None = None, masked: bool = False) -> None:
        super().__init__(bos=bos, eos=eos, capacity=0)
        self._extra = (bos is not None) + (eos is not None)
        self._runs: list[Runs] | None = [] if masked else None

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
        self._runs.append(Runs.of_mask(loss, self._num_tokens))
        self._lengths.append(np.diff(offsets))
        self._num_tokens += len(ids)
        self.num_special += num_special

    def finish(self) -> TokenBatch:
        """There is no token to give."""
        raise AssertionError("this buffer holds lengths only")

    def measured(self) -> tuple[NDArray[np.int64], Runs | None]:
        """Tokens of each document, int64[D], and which of them all carry loss; None: every one."""
        lengths = np.concatenate([np.empty(0, dtype=np.int64), *self._lengths])
        return lengths, None if self._runs is None else Runs.join(self._runs)
