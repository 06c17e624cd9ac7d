"""How far shuffle-fit leans from a random order towards a sorted one, so that pack mates are not of unlike lengths.

Of k documents that fill a pack the mates of one of length a have the mean (capacity - a) / (k - 1), which falls with a.
Where ten and more fill a pack, packs of other k make up for that; with two to four a pack no order at random does, and
lengths of mates correlate by -0.3 to -0.9, in next fit too, which chooses nothing. A document's place in line is
therefore a mean of its random place and its place by length, and lengths meet their like more often. Half way:

    at random     3 9 1 7 2 8        by length    9 8 7 3 2 1        lean 16 of 32   9 3 8 7 2 1

The weight is found by trying weights on a sample, and is 0 where no weight takes the correlation away at a fair price.

Legend: S segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.strategies.patterns import count_lengths

LEANS = 32
"""A lean of so much would be sorted by length."""

SAMPLE = 1 << 14
"""Segments on which leans are tried: their correlation scatters by 0.01."""

FEWEST = 1 << 10
"""Of fewer segments the correlation scatters too much to lean after it."""

TOO_FAR = 0.05
"""Below minus this a correlation is worth a lean."""

NEAR = 0.02
"""A lean that brings it to minus this is enough: the last hundredths are the dear ones."""

FINE = 4
"""Leans between two that are so near are not tried: correlation and packs are taken as linear there."""

PRICE = 0.03
"""Most packs that a lean may cost, as a share of those at random. (Uniform lengths would take 0.09.)"""

SCALE = 1 << 12
"""Lengths are compared in so many parts of the capacity, in integers: the same on every machine."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a lean gives."""

    correlation: float
    num_packs: int


def leaning_order(lengths: NDArray[np.int32], capacity: int, lean: int) -> NDArray[np.int64]:
    """The places of segments in a random order, int64[S], leaned towards longest first; `lean` in 0..LEANS-1."""
    places = np.arange(len(lengths))
    if not lean:
        return places
    histogram = count_lengths(lengths, capacity)
    not_shorter = np.cumsum(histogram[::-1])[::-1]
    by_length = (not_shorter - histogram // 2)[lengths]
    key = ((LEANS - lean) * places + lean * by_length) * 0xFFFF // (LEANS * len(lengths))
    order: NDArray[np.int64] = np.argsort(key.astype(np.uint16), kind="stable")
    return order


def mate_correlation(lengths: NDArray[np.int32], pack_of: NDArray[np.int64], capacity: int) -> float:
    """Correlation of the length of a segment with the mean length of its pack mates; 0 where nothing varies.

    Args:
        lengths: int32[S], S up to SAMPLE.
        pack_of: int64[S], the pack of each.
        capacity: Tokens a pack.
    """
    num_mates = (np.bincount(pack_of) - 1)[pack_of]
    tokens = np.bincount(pack_of, weights=lengths).astype(np.int64)[pack_of]
    has_mates = num_mates > 0
    own = lengths[has_mates].astype(np.int64)
    mates = (tokens[has_mates] - own) * SCALE // (capacity * num_mates[has_mates])
    own = own * SCALE // capacity
    count, sum_own, sum_mates = len(own), int(own.sum()), int(mates.sum())
    spread = (count * int((own * own).sum()) - sum_own**2) * (count * int((mates * mates).sum()) - sum_mates**2)
    if not spread:
        return 0.0
    return (count * int((own * mates).sum()) - sum_own * sum_mates) / float(np.sqrt(float(spread)))


def find_lean(attempt: Callable[[int], Trial]) -> int:
    """The lean that brings the correlation, which rises with it, near zero; 0 where that would cost too many packs."""
    low, high = 0, LEANS - 1
    at_random = below = attempt(low)
    above = attempt(high)
    if below.correlation > -TOO_FAR or above.correlation < -NEAR:
        return 0
    most_packs = at_random.num_packs * (1.0 + PRICE)
    while high - low > FINE:
        middle = (low + high + 1) // 2
        trial = attempt(middle)
        if trial.correlation >= -NEAR:
            high, above = middle, trial
        elif trial.num_packs <= most_packs:
            low, below = middle, trial
        else:  # and a higher one costs more
            return 0
    part = (below.correlation + NEAR) / (below.correlation - above.correlation)
    packs = below.num_packs + part * (above.num_packs - below.num_packs)
    return low + round(part * (high - low)) if packs <= most_packs else 0
