"""Columns: valid, never worse than the plans given, and what they prove is true."""

import itertools

import numpy as np
import pytest
from fewest_packs import fewest_packs
from histograms import check_patterns, histogram_of, histograms, small_problems, uniform
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.packing.strategies.best_fit.column_generation import (
    COARSEST,
    MAX_ITEMS,
    Limits,
    _interpolate,
    _Knapsack,
    _Master,
    plan_columns,
    price_bound,
)
from packcli.packing.strategies.best_fit.decreasing import plan_decreasing
from packcli.packing.strategies.best_fit.portfolio import plan_histogram
from packcli.packing.strategies.patterns import num_packs

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
work_limits = st.sampled_from([0, 1, 10, 100, 1000, 10_000, 100_000, 10**6, 10**8])


@settings(PROPERTY, max_examples=80)
@given(
    problem=histograms(),
    max_docs=st.just(0) | st.integers(1, 20),
    simplex_work=work_limits,
    fill_work=work_limits,
)
def test_columns_are_valid_and_never_worse_than_the_plans_given(problem, max_docs, simplex_work, fill_work):
    histogram, capacity = problem
    given_plans = [plan_decreasing(histogram, capacity, max_docs)]
    limits = Limits(fill_work=fill_work, simplex_work=simplex_work, gap=0.0)
    patterns, prices = plan_columns(histogram, capacity, limits, max_docs, given_plans)
    packs = check_patterns(histogram, capacity, patterns, max_docs)
    assert packs <= num_packs(given_plans[0])
    assert prices.shape == (capacity + 1,)
    assert price_bound(histogram, capacity, prices, max_docs, 10**8) <= packs


@settings(PROPERTY, max_examples=100)
@given(problem=small_problems(), max_docs=st.integers(0, 4))
def test_prices_of_columns_prove_a_true_bound(problem, max_docs):
    """Where prices are nearly those of the optimum, a bound that rounds the wrong way is over it at once."""
    lengths, capacity = problem
    histogram = histogram_of(lengths, capacity)
    limits = Limits(fill_work=10**6, simplex_work=10**7, gap=0.0)
    patterns, prices = plan_columns(
        histogram, capacity, limits, max_docs, [plan_decreasing(histogram, capacity, max_docs)]
    )
    packs = check_patterns(histogram, capacity, patterns, max_docs)
    fewest = fewest_packs(lengths, capacity, max_docs)
    assert fewest <= packs
    for max_work in (10**7, 400, 64):
        assert price_bound(histogram, capacity, prices, max_docs, max_work) <= fewest


def test_columns_leave_the_shortest_to_best_fit_decreasing():
    """More than MAX_ITEMS of them fit into a pack; where all are so short there is no column at all."""
    limits = Limits(fill_work=10**7, simplex_work=10**7, gap=0.0)
    mixed = histogram_of([60] * 90 + [45] * 60 + [30] * 33 + [1] * 500, 100)
    only_short = histogram_of([1] * 500 + [2] * 100, 100)
    for histogram in (mixed, only_short):
        patterns, prices = plan_columns(histogram, 100, limits, 0, [plan_decreasing(histogram, 100)])
        packs = check_patterns(histogram, 100, patterns)
        assert price_bound(histogram, 100, prices, 0, 10**8) <= packs
    assert np.flatnonzero(mixed)[0] <= 100 // (MAX_ITEMS + 1)


@settings(PROPERTY, max_examples=150)
@given(
    capacity=st.integers(1, 24),
    items=st.dictionaries(st.integers(1, 24), st.integers(-4, 12), max_size=5),
    max_items=st.integers(0, 5),
)
def test_a_knapsack_finds_the_most_valuable_set(capacity, items, max_items):
    """Prices are eighths, so that sums are exact; the twin tries every set of so many items and fewer."""
    items = {length: eighths / 8 for length, eighths in sorted(items.items()) if length <= capacity}
    lengths = np.array(list(items), dtype=np.int64)
    knapsack = _Knapsack(lengths, np.array(list(items.values())), capacity)
    best = [0.0] * (capacity + 1)
    for size in range(max_items + 1):
        for chosen in itertools.combinations_with_replacement(items, size):
            for tokens in range(sum(chosen), capacity + 1):
                best[tokens] = max(best[tokens], sum(items[length] for length in chosen))
    assert knapsack.value(max_items).tolist() == best
    sets = knapsack.sets(max_items, np.arange(capacity + 1))
    assert sets.shape == (capacity + 1, max_items)
    for tokens, row in enumerate(sets.tolist()):
        chosen = [int(lengths[item]) for item in row if item < len(lengths)]
        assert sum(chosen) <= tokens
        assert sum(items[length] for length in chosen) == best[tokens]


@settings(PROPERTY, max_examples=80)
@given(
    capacity=st.integers(2, 16),
    demand=st.dictionaries(st.integers(1, 16), st.integers(1, 50), min_size=1, max_size=5),
    max_items=st.integers(1, 4),
)
def test_the_programme_is_solved(capacity, demand, max_items):
    """With every column in the pool: packs and prices both keep their rules and come to one sum, so none is better."""
    demand = {length: count for length, count in sorted(demand.items()) if length <= capacity} or {capacity: 3}
    weights, wanted = np.array(list(demand)), np.array(list(demand.values()))
    master = _Master(weights, wanted, capacity, max_items)
    none = len(weights)
    columns = [
        [*chosen, *[none] * (max_items - size)]
        for size in range(1, max_items + 1)
        for chosen in itertools.combinations_with_replacement(range(none), size)
        if weights[list(chosen)].sum() <= capacity
    ]
    before = len(master.basis)
    master.add(np.array(columns))
    assert not master.add(np.array(columns[:3]))  # known ones are passed over
    master.solve(10**9)
    assert master.basis.shape == (before, max_items)
    assert (master.amounts >= 0).all()
    held = np.zeros(none + 1)
    for row, amount in zip(master.basis.tolist(), master.amounts.tolist(), strict=True):
        for item in row:
            held[item] += amount
    assert held[:none] == pytest.approx(wanted)
    assert master.worth(np.array(columns)).max() <= 1 + 1e-5
    assert (master.prices * wanted).sum() == pytest.approx(master.amounts.sum())


def test_prices_between_lengths_lie_on_a_line():
    found = _interpolate(10, np.array([0, 4, 8]), np.array([0.0, 0.5, 0.75]))
    assert found.tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.5625, 0.625, 0.6875, 0.75, 0.75, 0.75]


def test_a_limit_of_work_is_kept_by_columns():
    """Counts, not seconds: a tenth of the work must be a fraction of the time on any machine, and still a plan."""
    histogram = histogram_of(uniform(2000, 50, 100), 200)
    plans = [plan_decreasing(histogram, 200)]
    packs = []
    for simplex_work in (0, 10**5, 10**6, 10**8):
        limits = Limits(fill_work=10**6, simplex_work=simplex_work, gap=0.0)
        patterns, _ = plan_columns(histogram, 200, limits, 0, plans)
        packs.append(check_patterns(histogram, 200, patterns))
    assert packs[0] == num_packs(plans[0])  # no work, no columns
    assert packs == sorted(packs, reverse=True)
    assert packs[-1] < packs[0]


def test_many_lengths_are_solved_from_coarse_to_fine():
    """More lengths than the first programme has classes: rounded up, so that its patterns fit."""
    histogram = histogram_of(uniform(3000, 300, 700), 1500)
    assert np.count_nonzero(histogram) > 3 * COARSEST
    answer = plan_histogram(histogram, 1500)
    assert answer.found_by == "columns"
    assert check_patterns(histogram, 1500, answer.patterns) < num_packs(plan_decreasing(histogram, 1500))
