"""Problems to pack as histograms of lengths, and what patterns have to keep."""

import itertools
from collections import Counter

import numpy as np
from hypothesis import strategies as st

from packcli.packing.strategies.patterns import num_packs, remaining
from packcli.seeds import random_uint64


@st.composite
def small_problems(draw, most=9):
    """(lengths, capacity) that can be solved by trying everything; lengths over a third are common."""
    capacity = draw(st.integers(2, 24))
    length = st.integers(1, capacity) | st.integers(capacity // 4 + 1, max(capacity // 4 + 1, capacity // 2 + 1))
    return draw(st.lists(length.filter(lambda each: each <= capacity), min_size=1, max_size=most)), capacity


@st.composite
def histograms(draw, most_copies=40):
    """(histogram, capacity): up to a dozen lengths, each some times."""
    capacity = draw(st.integers(2, 80))
    lengths = draw(st.sets(st.integers(max(1, capacity // 6), capacity) | st.integers(1, capacity), min_size=1))
    histogram = np.zeros(capacity + 1, dtype=np.int64)
    for length in sorted(lengths)[:12]:
        histogram[length] = draw(st.integers(1, most_copies))
    return histogram, capacity


def histogram_of(lengths, capacity):
    return np.bincount(np.array(lengths, dtype=np.int64), minlength=capacity + 1)


def uniform(count, shortest, longest, seed=1):
    return (random_uint64(count, seed) % np.uint64(longest - shortest + 1)).astype(np.int64) + shortest


def check_patterns(histogram, capacity, patterns, max_docs=0):
    """Every segment once, no pack over capacity or max_docs; returns the number of packs."""
    assert not remaining(histogram, patterns)[1:].any()
    for packs, items in patterns:
        assert packs > 0
        assert all(count > 0 for _, count in items)
        assert len({length for length, _ in items}) == len(items) > 0
        assert sum(length * count for length, count in items) <= capacity
        assert not max_docs or sum(count for _, count in items) <= max_docs
    return num_packs(patterns)


def packs_in(patterns):
    """The lengths in each pack, whatever the order."""
    found = Counter()
    for packs, items in patterns:
        found[tuple(length for length, count in items for _ in range(count))] += packs
    return found


# Filling.


def slow_filling(lengths, capacity):
    """One pack after the other: of all sets with the longest left, the fullest; of those the longer segments."""
    left, packs = sorted(lengths, reverse=True), []
    while left:
        longest, rest = left[0], left[1:]
        sets = {subset for size in range(len(rest) + 1) for subset in itertools.combinations(rest, size)}
        fitting = [(longest, *subset) for subset in sets if longest + sum(subset) <= capacity]
        best = max(fitting, key=lambda pack: (sum(pack), pack))
        packs.append(best)
        for length in best:
            left.remove(length)
    return packs
