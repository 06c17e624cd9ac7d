"""Spreading: a planner for where the limit of segments a pack binds.

Where few segments may share a pack, longest first is a poor order: the short ones end up together, and their
packs are full of segments long before they are full of tokens. Here the number of packs is set beforehand, at
the bound, and every segment, longest first, goes to the pack with the most room for each segment that it may
still take. So long ones meet short ones, and packs are full of segments and of tokens at about the same time.
(Worst fit decreasing on a fixed number of bins, as MULTIFIT uses first fit: Coffman, Garey and Johnson 1978.)

    lengths 5 4 3 2 1 1, capacity 8, at most three a pack
    longest first      5 3   | 4 2 1 | 1
    spread over two    5 2 1 | 4 3 1           beside 5 and 4 there is room for 3/2 and 4/2 a segment: 3 goes to 4
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from packcli.packing.strategies.best_fit.decreasing import Chain, items_of, plan_decreasing
from packcli.packing.strategies.patterns import Pattern, num_packs, remaining

SPARE = (0.0, 0.002, 0.01)
"""Numbers of packs that are tried: this share above the bound."""


def plan_spreading(histogram: NDArray[np.int64], capacity: int, max_docs: int, bound: int) -> list[Pattern]:
    """Spreads counts of lengths over about `bound` packs of at most max_docs segments.

    Args:
        histogram: int64[capacity+1], histogram[l] segments have length l; entry 0 is ignored.
        capacity: Tokens a pack.
        max_docs: Most segments a pack, at least 1.
        bound: No packing has fewer packs.

    Returns:
        Patterns that hold every segment once.
    """
    plans = []
    for share in SPARE:
        spread = _spread(histogram, capacity, max_docs, int(bound * (1.0 + share)))
        plans.append(plan_decreasing(remaining(histogram, spread), capacity, max_docs, begun=spread))
    return min(plans, key=num_packs)


def _spread(histogram: NDArray[np.int64], capacity: int, max_docs: int, count: int) -> list[Pattern]:
    """What fits into `count` packs."""
    # (- room a place, serial number to break ties, room, places, packs, what they hold)
    heap: list[tuple[float, int, int, int, int, Chain | None]] = [
        (-capacity / max_docs, 0, capacity, max_docs, count, None)
    ]
    serial = 0
    closed: list[tuple[int, Chain]] = []
    for length in np.flatnonzero(histogram)[::-1].tolist():
        left = int(histogram[length]) if length else 0
        too_full = []
        while left and heap:
            group = heapq.heappop(heap)
            key, number, room, places, packs, chain = group
            if room < length:
                too_full.append(group)
                continue
            taken = min(packs, left)
            left -= taken
            if taken < packs:
                heapq.heappush(heap, (key, number, room, places, packs - taken, chain))
            room, places, chain = room - length, places - 1, (chain, length, 1)
            if room and places:
                serial += 1
                heapq.heappush(heap, (-room / places, serial, room, places, taken, chain))
            else:
                closed.append((taken, chain))
        for group in too_full:
            heapq.heappush(heap, group)
    closed += [(packs, chain) for _, _, _, _, packs, chain in sorted(heap, key=lambda group: group[1]) if chain]
    return [(packs, items_of(chain)) for packs, chain in closed]
