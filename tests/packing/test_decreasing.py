"""Best-fit decreasing over a histogram, held to a slow twin."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_problems import filled, full, problems, run, slow_decreasing

from packcli.packing.strategies import reference
from packcli.packing.strategies.best_fit.decreasing import contents_item, plan_decreasing

PROPERTY = settings(deadline=None, derandomize=True, max_examples=30)
TWIN = settings(PROPERTY, max_examples=100)
seeds = st.integers(0, 2**64 - 1)


def test_best_fit_by_hand():
    """6 5 5 4 4 3 2 2 1 with capacity 8 gives 6 2 | 5 3 | 5 2 1 | 4 4."""
    lengths = [6, 5, 5, 4, 4, 3, 2, 2, 1]
    assert filled(run("best-fit", lengths, 8), lengths) == [[1, 2, 5], [2, 6], [3, 5], [4, 4]]
    shuffled = [2, 4, 1, 5, 6, 2, 4, 3, 5]  # the order of the input plays no part
    assert filled(run("best-fit", shuffled, 8), shuffled) == [[1, 2, 5], [2, 6], [3, 5], [4, 4]]


def test_best_fit_counts_the_documents_of_a_pack_that_is_half_filled():
    """The pack of 5 has room for two 2s and gets the only one: after that there is one place left, not three."""
    lengths = [5, 2, 1, 1, 1]
    assert filled(run("best-fit", lengths, 10, max_docs=3), lengths) == [[1, 1], [1, 2, 5]]


@pytest.mark.parametrize("capacity", [65535, 65536, 70000])
def test_best_fit_tells_lengths_around_two_to_the_16_apart(capacity):
    """Lengths are sorted as 16 bits where they fit: 70000 and 4464 would be the same there."""
    lengths = [1, capacity - 1, 2, capacity, 3, capacity - 3, max(1, capacity - 65536)]
    packs = run("best-fit", lengths, capacity)
    assert filled(packs, lengths) == filled(reference.best_fit_decreasing(lengths, capacity), lengths)
    assert max(full(packs, lengths)) <= capacity


def test_plan_decreasing_by_hand():
    """Patterns: (packs, ((length, how many in each), ...)), longest first."""
    assert sorted(plan_decreasing(np.bincount([6, 5, 5, 4, 4, 3, 2, 2, 1]), 8)) == [
        (1, ((4, 2),)),
        (1, ((5, 1), (2, 1), (1, 1))),
        (1, ((5, 1), (3, 1))),
        (1, ((6, 1), (2, 1))),
    ]
    assert sorted(plan_decreasing(np.bincount([2] * 7), 8, 3)) == [(1, ((2, 1),)), (2, ((2, 3),))]
    assert plan_decreasing(np.array([5, 0, 0]), 2) == []  # entry 0 is ignored


@TWIN
@given(problem=problems(), seed=seeds)
def test_best_fit_without_effort_fills_packs_like_its_twin(problem, seed):
    lengths, capacity = problem
    packs = run("best-fit", lengths, capacity, seed=seed, effort="fast")
    assert full(packs, lengths) == full(reference.best_fit_decreasing(lengths, capacity), lengths)


def test_slow_decreasing_by_hand():
    assert slow_decreasing([6, 5, 5, 4, 4, 3, 2, 2, 1], 8) == [[0, 6], [1, 5], [2, 7, 8], [3, 4]]
    assert slow_decreasing([6, 5, 5, 4, 4, 3, 2, 2, 1], 8, begun=[[8, 3]]) == [[8, 3, 5], [0, 6], [1, 7], [2], [4]]
    assert slow_decreasing([1, 1, 1], 5, 2) == [[0, 1], [2]]


@settings(TWIN, max_examples=300)
@given(problem=problems(), max_docs=st.integers(0, 5), num_begun=st.integers(0, 20), as_one=st.booleans())
def test_plan_decreasing_equals_its_twin(problem, max_docs, num_begun, as_one):
    """Packs that are begun are filled by the same rules, whether their segments are named or held as one item."""
    lengths, capacity = problem
    num_begun = min(num_begun, len(lengths))
    begun = reference.next_fit(lengths[:num_begun], capacity, max_docs or 3)
    patterns = [(1, tuple(sorted(Counter(lengths[each] for each in pack).items(), reverse=True))) for pack in begun]
    if as_one:
        patterns = [
            (1, ((contents_item(len(pack), sum(lengths[each] for each in pack), capacity), 1),)) for pack in begun
        ]
    histogram = np.bincount(lengths[num_begun:], minlength=capacity + 1)
    found = plan_decreasing(histogram, capacity, max_docs, patterns)
    if as_one:  # what is held comes back as it is
        items = Counter({item: 0 for _, ((item, _),) in patterns})
        items.update(item for count, parts in found for item, _ in parts if item > capacity for _ in range(count))
        assert items == Counter(item for _, ((item, _),) in patterns)
    docs_and_tokens = []
    for count, parts in found:
        docs = tokens = 0
        for item, each in parts:
            item_docs, item_tokens = divmod(item, capacity + 1)
            docs += each * (item_docs or 1)
            tokens += each * item_tokens
        docs_and_tokens += [(docs, tokens)] * count
    twin = slow_decreasing(lengths, capacity, max_docs, begun)
    assert sorted(docs_and_tokens) == sorted((len(pack), sum(lengths[each] for each in pack)) for pack in twin)


def test_plan_decreasing_fills_packs_begun_by_hand():
    """Two packs of 5 in 8: a 3 goes into one, a 2 and a 1 into the other; held as one item they are filled alike."""
    histogram = np.bincount([3, 2, 1], minlength=9)
    assert sorted(plan_decreasing(histogram, 8, begun=[(2, ((5, 1),))])) == [
        (1, ((5, 1), (2, 1), (1, 1))),
        (1, ((5, 1), (3, 1))),
    ]
    item = contents_item(2, 5, 8)  # two documents of together 5 tokens
    assert sorted(plan_decreasing(histogram, 8, 3, begun=[(2, ((item, 1),))])) == [
        (1, ((1, 1),)),
        (1, ((item, 1), (2, 1))),
        (1, ((item, 1), (3, 1))),
    ]
    assert plan_decreasing(np.zeros(9, dtype=np.int64), 8, begun=[(3, ((8, 1),))]) == [(3, ((8, 1),))]
