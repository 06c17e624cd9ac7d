"""Balance: an order of packs in which every group of consecutive packs costs nearly the same.

Data-parallel ranks take equal shares of every batch, and all wait for the one whose documents cost the most. The cost
of attention is the sum of squared segment lengths; between full packs it differs by more than ten times.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from packcli.seeds import derive, permutation

GROUP = 8
"""Packs in a group."""


def balanced_order(costs: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Packs in groups of GROUP, most expensive first, each to the cheapest group that is not full.

    Longest processing time first (Graham 1969), with as many packs in every group. The groups, and the packs
    inside a group, are in a random order; what is left over when P is no multiple of GROUP comes last.

    Args:
        costs: int64[P].
        seed: Decides which packs are left over, ties, and the order of groups.

    Returns:
        int64[P], a permutation.
    """
    shuffled = permutation(len(costs), derive(seed, 1))
    num_groups = len(costs) // GROUP
    grouped = shuffled[: num_groups * GROUP]
    descending = grouped[np.argsort(-costs[grouped], kind="stable")]
    heap = [(0, group) for group in range(num_groups)]
    members: list[list[int]] = [[] for _ in range(num_groups)]
    for pack, cost in zip(descending.tolist(), costs[descending].tolist(), strict=True):
        total, group = heap[0]
        members[group].append(pack)
        if len(members[group]) < GROUP:
            heapq.heapreplace(heap, (total + cost, group))
        else:
            heapq.heappop(heap)
    inside = np.argsort(permutation(len(grouped), derive(seed, 2)).reshape(-1, GROUP), axis=1, kind="stable")
    groups = np.array(members, dtype=np.int64).reshape(num_groups, GROUP)
    groups = np.take_along_axis(groups, inside, axis=1)[permutation(num_groups, derive(seed, 3))]
    return np.concatenate((groups.reshape(-1), shuffled[num_groups * GROUP :]))


def group_costs(costs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The cost of every whole group of consecutive packs, int64[P // GROUP]."""
    whole = len(costs) // GROUP * GROUP
    groups: NDArray[np.int64] = costs[:whole].reshape(-1, GROUP).sum(axis=1)
    return groups
