"""How shuffle-fit keeps lengths of pack mates uncorrelated: it moves its random order a little towards sorted.

Mates are the other documents of a pack. Of k documents that fill a pack, the mates of one of length a have the mean
(capacity - a) / (k - 1), which falls with a. Where ten and more fill a pack, the varying k makes up for that. With two
to four a pack it does not, and lengths of mates correlate by -0.3 to -0.9, even with next fit, which never looks at
lengths. A lean raises the correlation: the place of a document is a weighted mean of its random place and its place by
length, so that documents of like lengths meet more often. With equal weights:

    at random     3 9 1 7 2 8        by length    9 8 7 3 2 1        mean          9 3 7 8 1 2

The smallest lean that is enough is found by trials on a sample. Where lengths vary much it costs hardly any packs;
where it costs more, or no lean is enough, the order stays random.

Legend: S segments; lean: the weight of the place by length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.packing.strategies.patterns import count_lengths, stable_argsort

PARTS = 1 << 10
"""Leans are in these parts: 0 is random, all of them is sorted by length."""

SAMPLE = 1 << 14
"""Segments on which leans are tried: their correlation scatters by 0.01."""

FEWEST = 1 << 10
"""With fewer segments the correlation scatters too much to choose a lean by it."""

GRID = 1 << 9
"""Trials round lengths to so many parts of the capacity: that halves their time."""

TOO_FAR = 0.04
"""A correlation below minus this calls for a lean, and a lean that does not raise it above is not taken."""

AIM = -0.01
"""The correlation to aim at: hardly below 0, since more segments than a sample fit better and correlate less."""

NEAR = 0.015
"""A trial this near to AIM is good enough."""

LEANS = (256, 512, 768, 832)
"""Leans to try in turn, up to the first that is enough."""

REFINED = 3
"""Most trials between the last lean that was not enough and the first that was."""

CHEAP = 0.01
"""A lean may cost so many more packs, as a share of those in random order."""

SCALE = 1 << 12
"""Lengths are compared in so many parts of the capacity, in integers: the same on every machine."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a lean gave on the sample."""

    correlation: float
    num_packs: int


def leaning_order(lengths: NDArray[np.int32], capacity: int, lean: int) -> NDArray[np.int64]:
    """Segments, given in a random order, moved towards longest first: their places, int64[S]; `lean` in 0..PARTS."""
    places = np.arange(len(lengths))
    if not lean:
        return places
    histogram = count_lengths(lengths, capacity)
    not_shorter = np.cumsum(histogram[::-1])[::-1]
    by_length = (not_shorter - histogram // 2)[lengths]
    return stable_argsort(((PARTS - lean) * places + lean * by_length) * 0xFFFF // (PARTS * len(lengths)))


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
    """The lean, in 0..PARTS, that brings the correlation near AIM for few packs; 0 where none does.

    Tries LEANS up to the first that is enough, and then between it and the one before, by regula falsi.
    """
    tried = {0: attempt(0)}
    if tried[0].correlation >= -TOO_FAR:
        return 0
    most_packs = tried[0].num_packs * (1.0 + CHEAP)

    def miss(lean: int) -> float:
        return abs(tried[lean].correlation - AIM)

    low = 0
    for high in LEANS:
        tried[high] = attempt(high)
        if tried[high].correlation >= AIM - NEAR:
            break
        if tried[high].num_packs > most_packs:  # a larger lean would cost even more
            return 0
        low = high
    else:
        high = low
    for _ in range(REFINED):
        below, above = tried[low].correlation, tried[high].correlation
        if min(map(miss, tried)) <= NEAR or above <= below:
            break
        middle = low + round((AIM - below) / (above - below) * (high - low))
        if middle in (low, high):
            break
        tried[middle] = attempt(middle)
        low, high = (middle, high) if tried[middle].correlation < AIM else (low, middle)
    nearest = min(tried, key=miss)
    return nearest if tried[nearest].correlation >= -TOO_FAR and tried[nearest].num_packs <= most_packs else 0
