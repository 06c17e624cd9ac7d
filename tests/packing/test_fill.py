"""Filling one pack after the other: the fullest set with the longest left, as by a slow twin."""

from collections import Counter

import numpy as np
from histograms import check_patterns, histogram_of, histograms, packs_in, slow_filling, small_problems, uniform
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.packing.strategies.best_fit.fill import _Sums, plan_filling

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
work_limits = st.sampled_from([0, 1, 10, 100, 1000, 10_000, 100_000, 10**6, 10**8])


@settings(PROPERTY, max_examples=80)
@given(problem=small_problems(most=9))
def test_filling_equals_its_twin(problem):
    """Subset sums on bits of integers, repeated for equal segments, against trying every subset."""
    lengths, capacity = problem
    patterns = plan_filling(histogram_of(lengths, capacity), capacity, 10**9)
    assert packs_in(patterns) == Counter(slow_filling(lengths, capacity))


@settings(PROPERTY, max_examples=100)
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=40), capacity=st.integers(16, 40), each=st.integers(1, 30)
)
def test_sums_and_their_work_equal_the_slow_twin(lengths, capacity, each):
    """Sums that are all reached are not computed on; the work they would take decides when the planner stops."""
    histogram = histogram_of(lengths * each, capacity)
    sums = _Sums(histogram, capacity)
    reached, work = {0}, 0
    for index, length in enumerate(sorted(set(lengths))):
        most = min(int(histogram[length]), capacity // length)
        for copies in range(most):
            work += 1 << copies <= most  # 1, 2, 4 copies at once, and a rest
        reached = {total + count * length for total in reached for count in range(most + 1)}
        reached = {total for total in reached if total <= capacity}
        assert {total for total in range(capacity + 1) if sums.reach[index + 1] >> total & 1} == reached
    assert sums.work == work
    assert len(sums.reach) == len(set(lengths)) + 1


@settings(PROPERTY, max_examples=60)
@given(problem=small_problems(most=9))
def test_the_pattern_of_the_longest_is_the_best(problem):
    lengths, capacity = problem
    pattern = _Sums(histogram_of(lengths, capacity), capacity).best_pattern()
    assert [length for length, count in pattern for _ in range(count)] == list(slow_filling(lengths, capacity)[0])


@settings(PROPERTY, max_examples=80)
@given(problem=histograms(), max_work=work_limits | st.integers(0, 3000))
def test_filling_is_valid_wherever_its_work_ends(problem, max_work):
    """The rest is best-fit decreasing's, in packs begun and new ones: nothing may be lost at the seam."""
    histogram, capacity = problem
    patterns = plan_filling(histogram, capacity, max_work)
    too_many = np.count_nonzero(histogram) * (capacity // 64 + 16) * 2 > max_work
    assert (patterns is None) == too_many
    if patterns is not None:
        check_patterns(histogram, capacity, patterns)


def test_filling_ends_when_its_work_is_done():
    """A limit that is not kept would let a run wait for minutes."""
    histogram = histogram_of(uniform(4000, 1, 900), 1000)
    words = 1000 // 64 + 16
    enough = plan_filling(histogram, 1000, 10**9)
    little = plan_filling(histogram, 1000, np.count_nonzero(histogram) * words * 2)
    check_patterns(histogram, 1000, enough)
    check_patterns(histogram, 1000, little)
    assert packs_in(little) != packs_in(enough)
