"""concat: one pack after the other from a stream that is already cut at every multiple of capacity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from packcli.packing.arrays import offsets
from packcli.packing.strategies.patterns import Packs


def concat(
    lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0, effort: str = "normal"
) -> Packs:
    """Packs segments in order, each pack exactly full but the last.

    The segments come from `overlong.cut_stream`, so that ends of packs are ends of segments:
    3 1 | 4 | 2 2 | 1 with capacity 4 gives pack_offsets 0 2 3 5 6.

    Raises:
        ValueError: the segments are not cut at every multiple of capacity.
    """
    segment_offsets = offsets(lengths)
    total = int(segment_offsets[-1])
    edges = np.arange(0, total + 1, capacity, dtype=np.int64)
    pack_offsets = np.searchsorted(segment_offsets, edges)
    if not np.array_equal(segment_offsets[pack_offsets], edges):
        raise ValueError("concat needs segments that are cut at every multiple of capacity")
    if total % capacity:
        pack_offsets = np.append(pack_offsets, len(lengths))
    return Packs(np.arange(len(lengths), dtype=np.int64), pack_offsets.astype(np.int64))
