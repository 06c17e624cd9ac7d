"""Lower bounds: how few packs are possible at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from packcli.packing.arrays import offsets


def count_bound(histogram: NDArray[np.int64], capacity: int, max_docs: int = 0) -> int:
    """The Martello-Toth L2 bound, and segments / max_docs: no packing needs fewer packs.

    For a threshold a <= L/2: segments over L - a share a pack with nothing of a tokens or more; those over L/2 need
    a pack each; what of the segments of a..L/2 does not fit beside the latter needs more packs. The
    bound is the best over all a; a = 0 gives ceil(tokens / L). (Martello and Toth 1990, section 8.3.)

    Args:
        histogram: int64[capacity+1] counts of lengths; entry 0 is ignored.
        capacity: Tokens a pack.
        max_docs: Most segments a pack; 0 means no limit.
    """
    lengths = np.flatnonzero(histogram[1:]) + 1
    counts = histogram[lengths]
    count = offsets(counts)
    tokens = offsets(counts * lengths)
    middle = int(np.searchsorted(lengths, capacity // 2 + 1))
    # Between two lengths a higher threshold proves more, so only lengths, and L/2, are tried.
    a = np.append(lengths[:middle], capacity // 2)
    above_a = np.searchsorted(lengths, a)
    top = np.searchsorted(lengths, capacity - a + 1)  # from here on they share a pack at most with lengths below a
    alone = count[-1] - count[top]
    halves = count[top] - count[middle]
    room = halves * capacity - (tokens[top] - tokens[middle])
    small = tokens[middle] - tokens[above_a]
    best = int((alone + halves + np.maximum(0, -(-(small - room) // capacity))).max())
    return max(best, -(-int(count[-1]) // max_docs)) if max_docs else best
