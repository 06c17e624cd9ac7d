"""next-fit: a segment goes into the pack in hand, or opens the next; the order is kept exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def next_fit(
    lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keeps the stream's order, for curricula.

    3 2 4 1 1 with capacity 5 gives 3 2 | 4 1 | 1: pack_offsets 0 2 4 5.

    For every segment one search tells where a pack that starts there would end; the packs are then a
    walk along those ends, one step a pack.
    """
    num_segments = len(lengths)
    before = np.zeros(num_segments + 1, dtype=np.int64)
    np.cumsum(lengths, out=before[1:])
    ends = np.searchsorted(before, before[:-1] + capacity, side="right") - 1
    if max_docs:
        ends = np.minimum(ends, np.arange(num_segments) + max_docs)
    end_of = ends.tolist()
    pack_offsets = [0]
    while pack_offsets[-1] < num_segments:
        pack_offsets.append(end_of[pack_offsets[-1]])
    return np.arange(num_segments, dtype=np.int64), np.array(pack_offsets, dtype=np.int64)
