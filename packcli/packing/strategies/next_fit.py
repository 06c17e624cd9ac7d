"""next-fit: a segment goes into the newest pack, or opens the next; the order is kept exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from packcli.packing.arrays import offsets
from packcli.packing.strategies.patterns import Packs


def next_fit(
    lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0, effort: str = "normal"
) -> Packs:
    """Keeps the stream's order, for curricula.

    3 2 4 1 1 with capacity 5 gives 3 2 | 4 1 | 1: pack_offsets 0 2 4 5.
    """
    ends = pack_ends(lengths, capacity, max_docs)
    return Packs(np.arange(len(lengths), dtype=np.int64), np.concatenate((np.zeros(1, dtype=np.int64), ends)))


def pack_ends(lengths: NDArray[np.int32], capacity: int, max_docs: int = 0) -> NDArray[np.int64]:
    """Where each pack of next fit ends, int64[P].

    A binary search for every segment tells where a pack that starts there would end. From there the next pack
    starts, so the loop takes one step a pack.
    """
    num_segments = len(lengths)
    before = offsets(lengths)
    ends = np.searchsorted(before, before[:-1] + capacity, side="right") - 1
    if max_docs:
        np.minimum(ends, np.arange(num_segments) + max_docs, out=ends)
    end_of = ends.tolist()
    chosen, place = [], 0
    while place < num_segments:
        place = end_of[place]
        chosen.append(place)
    return np.array(chosen, dtype=np.int64)
