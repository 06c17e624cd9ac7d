"""Lower bounds: how few packs are possible at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    histogram = histogram.copy()
    histogram[0] = 0
    count = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(histogram)))
    tokens = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(histogram * np.arange(capacity + 1))))
    middle = capacity // 2 + 1
    a = np.arange(capacity // 2 + 1)
    top = capacity - a + 1  # lengths >= top stand alone, apart from those below a
    alone = count[-1] - count[top]
    halves = count[top] - count[middle]
    room = halves * capacity - (tokens[top] - tokens[middle])
    small = tokens[middle] - tokens[a]
    best = int((alone + halves + np.maximum(0, -(-(small - room) // capacity))).max())
    return max(best, -(-int(count[-1]) // max_docs)) if max_docs else best
