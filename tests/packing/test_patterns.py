"""Patterns of packs: they hold every segment once, and each length is dealt out without a gap."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_problems import int32, problems

from packcli.packing.strategies.best_fit.decreasing import plan_decreasing
from packcli.packing.strategies.patterns import assign, packs_to_csr, stable_argsort
from packcli.seeds import random_uint64

PROPERTY = settings(deadline=None, derandomize=True, max_examples=30)
TWIN = settings(PROPERTY, max_examples=100)


@PROPERTY
@given(problem=problems(min_size=1), max_docs=st.integers(0, 5))
def test_patterns_hold_every_segment_once_and_are_few(problem, max_docs):
    """The cost grows with distinct lengths only: that is why 10 M documents plan in half a second."""
    lengths, capacity = problem
    histogram = np.bincount(lengths, minlength=capacity + 1)
    patterns = plan_decreasing(histogram, capacity, max_docs)
    found = np.zeros_like(histogram)
    for num_packs, items in patterns:
        assert num_packs > 0
        assert [length for length, _ in items] == sorted({length for length, _ in items}, reverse=True)
        assert sum(length * count for length, count in items) <= capacity
        for length, count in items:
            found[length] += num_packs * count
    assert found.tolist() == histogram.tolist()
    assert len(patterns) <= 2 * np.count_nonzero(histogram) + 1


def test_patterns_do_not_grow_with_the_number_of_segments():
    lengths = random_uint64(50, 9) % np.uint64(2048) + np.uint64(1)
    once = np.bincount(lengths.astype(np.int64), minlength=2049)
    assert len(plan_decreasing(once * 10**9, 2048)) <= 2 * np.count_nonzero(once) + 1


def test_assign_deals_each_length_out_without_a_gap():
    """Two packs of 3 + 1 and one of 1 + 1, from segments 1 3 1 3 1 1."""
    lengths = int32([1, 3, 1, 3, 1, 1])
    patterns = [(2, ((3, 1), (1, 1))), (1, ((1, 2),))]
    order, pack_offsets, *_ = assign(lengths, np.bincount(lengths, minlength=5), patterns, seed=0)
    assert lengths[order].tolist() == [3, 1, 3, 1, 1, 1]
    assert pack_offsets.tolist() == [0, 2, 4, 6]
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4, 5]


def test_packs_to_csr_by_hand():
    order, pack_offsets = packs_to_csr(np.array([1, 0, 1, 2, 0]))
    assert order.tolist() == [1, 4, 0, 2, 3]
    assert pack_offsets.tolist() == [0, 2, 4, 5]


@settings(TWIN, max_examples=200)
@given(keys=st.lists(st.integers(0, 2**62) | st.integers(0, 5) | st.integers(0, 2**17), max_size=40))
def test_stable_argsort_equals_numpy(keys):
    """Ties decide who shares a pack; keys over 16 bits take more passes."""
    keys = np.array(keys, dtype=np.int64)
    assert stable_argsort(keys).tolist() == np.argsort(keys, kind="stable").tolist()
