"""Bounds: no packing of fewer packs is there, by exact minima of small problems."""

import numpy as np
from fewest_packs import fewest_packs
from histograms import check_patterns, histogram_of, small_problems, uniform
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.packing.strategies import count_bound
from packcli.packing.strategies.best_fit.column_generation import (
    price_bound,
)
from packcli.packing.strategies.best_fit.decreasing import plan_decreasing
from packcli.packing.strategies.patterns import binding_limit
from packcli.seeds import random_uint64

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)


@settings(PROPERTY, max_examples=150)
@given(problem=small_problems(most=8), max_docs=st.integers(0, 4), ignored=st.integers(0, 5))
def test_count_bound_is_below_the_minimum(problem, max_docs, ignored):
    lengths, capacity = problem
    histogram = histogram_of(lengths, capacity)
    histogram[0] = ignored
    bound = count_bound(histogram, capacity, max_docs)
    assert -(-sum(lengths) // capacity) <= bound <= fewest_packs(lengths, capacity, max_docs)
    assert histogram[0] == ignored


@settings(PROPERTY, max_examples=300)
@given(
    problem=small_problems(most=8),
    max_docs=st.integers(0, 4),
    seed=st.integers(0, 2**64 - 1),
    scale=st.sampled_from([0.01, 0.3, 1.0, 1.0, 5.0, 1e300]),
    special=st.sampled_from([0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]),
    max_work=st.sampled_from([0, 1, 16, 64, 200, 500, 10**6]),
)
def test_any_prices_prove_a_true_bound(problem, max_docs, seed, scale, special, max_work):
    """Prices come out of floating point and of work cut short: no proof may rest on them. Coarse with little work."""
    lengths, capacity = problem
    histogram = histogram_of(lengths, capacity)
    draws = random_uint64(capacity + 1, seed)
    prices = np.where(draws % np.uint64(8) == 0, special, draws.astype(np.float64) / 2.0**64 * scale)
    bound = price_bound(histogram, capacity, prices, max_docs, max_work)
    assert 0 <= bound <= fewest_packs(lengths, capacity, max_docs)


@settings(PROPERTY, max_examples=80)
@given(problem=small_problems(most=8), max_docs=st.integers(0, 4), max_work=st.sampled_from([16, 100, 400, 10**6]))
def test_sensible_prices_prove_a_true_bound(problem, max_docs, max_work):
    """Prices near those of the programme, where a bound that rounds up is false soonest: shares of the capacity."""
    lengths, capacity = problem
    histogram = histogram_of(lengths, capacity)
    fewest = fewest_packs(lengths, capacity, max_docs)
    for prices in (np.arange(capacity + 1) / capacity, np.floor(2 * np.arange(capacity + 1) / capacity) / 2):
        bound = price_bound(histogram, capacity, prices, max_docs, max_work)
        assert bound <= fewest
        if max_work == 10**6 and prices[1] > 0:
            assert bound >= -(-sum(lengths) // capacity) - 1  # the prices are worth what they say


def test_price_bound_by_hand():
    """Lengths over a third of 9: two fit, and a half each proves it; five of them need three packs."""
    histogram = histogram_of([4, 4, 4, 4, 4], 9)
    prices = np.zeros(10)
    prices[4] = 0.5
    assert price_bound(histogram, 9, prices, 0, 10**6) == 3
    assert price_bound(histogram, 9, prices * 7, 0, 10**6) == 3  # over 1: cut off, and judged by what a pack is worth
    assert price_bound(histogram, 9, prices, 1, 10**6) == 5  # one document a pack
    assert price_bound(histogram, 9, prices * 0, 0, 10**6) == 0
    assert price_bound(histogram, 9, -prices, 0, 10**6) == 0


def test_a_coarse_class_is_as_dear_as_its_dearest_length_by_hand():
    """Little work makes 4 and 5 one class of width 2; two fit into 8, each worth 1 at most: 2.1 needs two packs."""
    prices = np.zeros(9)
    prices[4], prices[5] = 1.0, 0.1
    assert price_bound(histogram_of([4, 4, 5], 8), 8, prices, 0, 64) == 2


def test_a_large_capacity_is_proven_coarsely_but_truly():
    """131,072 by 131,072 numbers are too many: lengths are rounded down, so every pack that fits still fits."""
    lengths = uniform(500, 30_000, 60_000)
    histogram = histogram_of(lengths, 131_072)
    prices = (np.arange(131_073) > 131_072 // 4) / 3.0  # three fit at most
    packs = check_patterns(histogram, 131_072, plan_decreasing(histogram, 131_072))
    coarse = price_bound(histogram, 131_072, prices, 0, 10**6)
    fine = price_bound(histogram, 131_072, prices, 0, 10**8)
    assert 0 < coarse <= packs
    assert 0 < fine <= packs


def test_binding_limit_by_hand():
    histogram = histogram_of([3, 3, 5], 10)
    assert [binding_limit(histogram, 10, max_docs) for max_docs in (0, 1, 2, 3, 4)] == [0, 1, 2, 0, 0]
    assert binding_limit(histogram, 6, 2) == 0  # no two threes and another fit
    assert binding_limit(np.array([9, 0, 0]), 2, 1) == 0  # entry 0 is ignored


@PROPERTY
@given(problem=small_problems(), max_docs=st.integers(1, 6))
def test_a_limit_that_does_not_bind_changes_no_minimum(problem, max_docs):
    lengths, capacity = problem
    if not binding_limit(histogram_of(lengths, capacity), capacity, max_docs):
        assert fewest_packs(lengths, capacity, max_docs) == fewest_packs(lengths, capacity, 0)
