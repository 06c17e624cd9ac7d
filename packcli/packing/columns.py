"""What a row is made of: its layout, where its tokens come from, and a batch of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BATCH_TOKENS = 1 << 18
"""Positions in a record batch, about: so few that its columns are hashed and written while they are in the cache."""


def rows_per_batch(max_len: int) -> int:
    """Rows of a record batch, 16 to 1000: 128 at L = 2048. Single rows load slowly, many long ones fill memory."""
    return min(max(BATCH_TOKENS // max_len, 16), 1000)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLayout:
    """How a row looks."""

    columns: tuple[str, ...]
    pad_id: int
    isolate: bool
    ragged: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """Where documents come from: parallel arrays over the documents of a unit."""

    source: NDArray[np.int32]
    """int32[D]: index of the input file in the manifest."""
    row: NDArray[np.int64]
    """int64[D]: row inside the input file, from 0."""


@dataclass(frozen=True, slots=True)
class Lists:
    """A column of lists: row p is values[offsets[p]:offsets[p+1]]."""

    values: NDArray[np.int32]
    offsets: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sources:
    """The column `sources`, as parallel arrays over the segments of a batch."""

    source: NDArray[np.int32]
    row: NDArray[np.int64]
    start: NDArray[np.int32]
    end: NDArray[np.int32]
    offsets: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PackBatch:
    """P rows, column by column; a column that was not asked for is None."""

    num_rows: int
    input_ids: Lists
    labels: Lists | None
    position_ids: Lists | None
    seq_lengths: Lists | None
    sources: Sources | None
