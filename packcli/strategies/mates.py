"""How shuffle-fit keeps lengths of pack mates uncorrelated: by as little bias of its random order as trials ask for.

Of k documents that fill a pack the mates of one of length a have the mean (capacity - a) / (k - 1), which falls with a.
Where ten and more fill a pack, packs of other k make up for that; with two to four a pack no order at random does, and
lengths of mates correlate by -0.3 to -0.9, in next fit too, which chooses nothing. Two biases raise that.

A lean: a document's place in line is a mean of its random place and its place by length, so that lengths meet their
like more often. It costs next to no packs where lengths vary much. Half way:

    at random     3 9 1 7 2 8        by length    9 8 7 3 2 1        half way      9 3 7 8 1 2

The shortest apart: they share packs with each other, and the longest stand alone. That costs the packs that they would
have filled, which is little where the shortest are, and the least that we know where most packs hold two.

    at random     9 1 | 7 3 | 8 2    a third apart    9 | 7 3 | 8 | 2 1

How much of which, is tried on a sample.

Legend: S segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.strategies.patterns import count_lengths, stable_argsort

PARTS = 1 << 10
"""A bias is a number of these parts: a lean of all of them would be sorted by length."""

SAMPLE = 1 << 14
"""Segments on which biases are tried: their correlation scatters by 0.01."""

FEWEST = 1 << 10
"""Of fewer segments the correlation scatters too much to go by it."""

GRID = 1 << 9
"""Trials on a sample see lengths in so many parts of the capacity: that halves their time."""

TOO_FAR = 0.04
"""Below minus this a correlation is worth a bias, and no bias is worth its packs that leaves it there."""

AIM = -0.01
"""The correlation that is looked for: over zero, since more segments than a sample fit better and correlate less."""

NEAR = 0.015
"""A trial so near to it will do."""

LEANS = (256, 512, 768, 832)
"""Leans that are tried, until one is too many."""

SHARES = (64, 128, 256, 512, 704, 800)
"""Shares of segments, the shortest, that are tried apart."""

REFINED = 3
"""Trials between the last bias that was not enough and the first that was."""

CHEAP = 0.015
"""A lean may cost so many packs, as a share of those at random; else the shortest apart cost less."""

DEAREST = 0.25
"""No bias may cost more: with a limit of documents felt it could be half of all packs."""

SCALE = 1 << 12
"""Lengths are compared in so many parts of the capacity, in integers: the same on every machine."""


@dataclass(frozen=True, slots=True)
class Bias:
    """How far packs are from a random order."""

    lean: int = 0
    """Parts of PARTS of the way from a random order to longest first."""
    apart: int = 0
    """Parts of PARTS of the segments, the shortest, that share packs with each other, and with filler."""

    @property
    def name(self) -> str:
        """What reports call it; empty where there is none."""
        return "leaning to longest first" if self.lean else "shortest apart" if self.apart else ""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a bias gives."""

    correlation: float
    num_packs: int


def leaning_order(lengths: NDArray[np.int32], capacity: int, lean: int) -> NDArray[np.int64]:
    """The places of segments in a random order, int64[S], leaned towards longest first; `lean` in 0..PARTS."""
    places = np.arange(len(lengths))
    if not lean:
        return places
    histogram = count_lengths(lengths, capacity)
    not_shorter = np.cumsum(histogram[::-1])[::-1]
    by_length = (not_shorter - histogram // 2)[lengths]
    return stable_argsort(((PARTS - lean) * places + lean * by_length) * 0xFFFF // (PARTS * len(lengths)))


def shortest(lengths: NDArray[np.int32], capacity: int, share: int) -> NDArray[np.bool_]:
    """Which segments are the shortest `share` of PARTS, bool[S]; of equally long ones those that come first."""
    wanted = len(lengths) * share // PARTS
    not_longer = np.cumsum(count_lengths(lengths, capacity))
    longest = int(np.searchsorted(not_longer, wanted))
    chosen: NDArray[np.bool_] = lengths < longest
    chosen[np.flatnonzero(lengths == longest)[: wanted - int(chosen.sum())]] = True
    return chosen


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


def find_bias(attempt: Callable[[Bias], Trial]) -> Bias:
    """The bias that brings the correlation near zero for the fewest packs; none where none does."""
    at_random = attempt(Bias())
    if at_random.correlation >= -TOO_FAR:
        return Bias()
    lean = _find(lambda lean: attempt(Bias(lean=lean)), LEANS, at_random, CHEAP)
    if lean:
        return Bias(lean=lean)
    return Bias(apart=_find(lambda apart: attempt(Bias(apart=apart)), SHARES, at_random, DEAREST))


def _find(attempt: Callable[[int], Trial], ladder: tuple[int, ...], at_random: Trial, price: float) -> int:
    """How many parts bring the correlation near AIM, for that share of packs more at most; else 0.

    Up the ladder as far as the first that is enough, and then in between by regula falsi.
    """
    tried = {0: at_random}
    most_packs = at_random.num_packs * (1.0 + price)

    def miss(parts: int) -> float:
        return abs(tried[parts].correlation - AIM)

    low = 0
    for high in ladder:
        tried[high] = attempt(high)
        if tried[high].correlation >= AIM - NEAR:
            break
        if tried[high].num_packs > most_packs:  # and more parts cost more
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
