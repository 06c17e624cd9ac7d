"""Strategies: without these tests a pack could overflow, lose a segment, or change between two machines.

Every invariant is parametrised over STRATEGIES: a new strategy inherits them all. The fast ones are held
against the slow, obvious twins of packcli/packing/strategies/reference.py.
"""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_problems import check, filled, int32, problems, run

from packcli.config import choices
from packcli.config.choices import CANNOT_CAP_DOCS, STRATEGY_ALIASES
from packcli.errors import UnknownNameError
from packcli.packing.overlong import cut_stream
from packcli.packing.strategies import STRATEGIES, get_strategy, reference
from packcli.packing.strategies.best_fit.portfolio import EFFORTS
from packcli.seeds import random_uint64

PROPERTY = settings(deadline=None, derandomize=True, max_examples=30)
TWIN = settings(PROPERTY, max_examples=100)
CAN_CAP_DOCS = sorted(set(STRATEGIES) - CANNOT_CAP_DOCS)
KEEPS_ORDER = ("concat", "next-fit", "pad")

seeds = st.integers(0, 2**64 - 1)


def segments_for(name, lengths, capacity):
    """What the planner would hand to the strategy."""
    if STRATEGIES[name].cuts_stream:
        return cut_stream(np.array(lengths, dtype=np.int64), capacity).length
    return int32(lengths)


# Invariants of every strategy.


@pytest.mark.parametrize("name", STRATEGIES)
@PROPERTY
@given(problem=problems(), seed=seeds)
def test_every_segment_once_and_no_pack_too_full(name, problem, seed):
    capacity = problem[1]
    lengths = segments_for(name, *problem)
    before = lengths.copy()
    check(name, lengths, capacity, STRATEGIES[name].function(lengths, capacity, seed=seed))
    assert np.array_equal(lengths, before)  # the plan keeps the segments: a strategy may not write on them


@pytest.mark.parametrize("name", CAN_CAP_DOCS)
@PROPERTY
@given(problem=problems(), max_docs=st.integers(1, 6), seed=seeds)
def test_max_docs_is_kept(name, problem, max_docs, seed):
    lengths = segments_for(name, *problem)
    result = STRATEGIES[name].function(lengths, problem[1], max_docs=max_docs, seed=seed)
    check(name, lengths, problem[1], result, max_docs)


@pytest.mark.parametrize("name", CAN_CAP_DOCS)
@PROPERTY
@given(problem=problems())
def test_a_limit_that_is_never_reached_changes_nothing(name, problem):
    lengths = segments_for(name, *problem)
    free = STRATEGIES[name].function(lengths, problem[1], seed=3)
    capped = STRATEGIES[name].function(lengths, problem[1], max_docs=len(lengths) + 1, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(free, capped, strict=True))


@pytest.mark.parametrize("name", CAN_CAP_DOCS)
def test_one_document_a_pack_is_the_tightest_limit(name):
    assert sorted(run(name, [1, 1, 2, 1, 2], 8, max_docs=1)) == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize("name", STRATEGIES)
@PROPERTY
@given(problem=problems(), seed=seeds)
def test_the_same_call_gives_the_same_packs(name, problem, seed):
    """Same input, same bytes: nothing may stay behind from the first call."""
    lengths = segments_for(name, *problem)
    first = STRATEGIES[name].function(lengths, problem[1], seed=seed)
    second = STRATEGIES[name].function(lengths.copy(), problem[1], seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_segments_no_packs(name):
    for capacity in (1, 2, 2048):
        packs = STRATEGIES[name].function(int32([]), capacity)
        assert (packs.order.tolist(), packs.pack_offsets.tolist()) == ([], [0])
        check(name, int32([]), capacity, packs)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("capacity", [1, 8, 65535, 65536, 2**20])
def test_full_segments_get_a_pack_each(name, capacity):
    """65535 is the last capacity whose lengths are sorted as 16 bits."""
    assert sorted(run(name, [capacity] * 5, capacity)) == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize("name", STRATEGIES)
def test_one_segment_one_pack(name):
    assert run(name, [3], 8) == [[0]]


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"pad"}))
def test_what_fits_in_one_pack_is_one_pack(name):
    """A strategy that packs nothing would pass every other invariant."""
    assert [sorted(pack) for pack in run(name, [1, 3, 2, 1, 1], 8)] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"best-fit", "shuffle-fit"}))
def test_strategies_without_chance_ignore_the_seed(name):
    lengths = segments_for(name, (random_uint64(200, 1) % np.uint64(32)).tolist(), 32)
    lengths = lengths[lengths > 0]
    results = [STRATEGIES[name].function(lengths, 32, seed=seed) for seed in range(5)]
    for packs in results[1:]:
        assert np.array_equal(packs.order, results[0].order)
        assert np.array_equal(packs.pack_offsets, results[0].pack_offsets)


@pytest.mark.parametrize("name", ["best-fit", "shuffle-fit"])
def test_the_seed_chooses_pack_mates(name):
    """One set of pack mates for every seed is no chance at all."""
    lengths = (random_uint64(300, 2) % np.uint64(20) + np.uint64(1)).tolist()
    mates = {tuple(sorted(tuple(sorted(pack)) for pack in run(name, lengths, 64, seed=seed))) for seed in range(8)}
    assert len(mates) == 8


@PROPERTY
@given(problem=problems(), some=seeds, other=seeds, max_docs=st.integers(0, 5))
def test_the_seed_changes_no_density_of_best_fit(problem, some, other, max_docs):
    lengths, capacity = problem
    first = run("best-fit", lengths, capacity, max_docs=max_docs, seed=some)
    second = run("best-fit", lengths, capacity, max_docs=max_docs, seed=other)
    assert filled(first, lengths) == filled(second, lengths)


@pytest.mark.parametrize("name", KEEPS_ORDER)
@PROPERTY
@given(problem=problems())
def test_the_order_of_the_input_is_kept(name, problem):
    """Curricula and streams: segments come out exactly as they went in."""
    lengths = segments_for(name, *problem)
    order = STRATEGIES[name].function(lengths, problem[1]).order
    assert order.tolist() == list(range(len(lengths)))


def test_order_keepers_are_strategies():
    assert set(KEEPS_ORDER) <= set(STRATEGIES)
    assert not any(STRATEGIES[name].shuffles_packs for name in (*KEEPS_ORDER, "first-fit"))


@PROPERTY
@given(problem=problems())
def test_first_fit_keeps_the_order_inside_a_pack_and_of_first_segments(problem):
    packs = run("first-fit", *problem)
    assert all(pack == sorted(pack) for pack in packs)
    firsts = [pack[0] for pack in packs]
    assert firsts == sorted(firsts)


# The tables.


def test_every_alias_leads_to_a_strategy_and_every_strategy_has_its_name():
    assert set(STRATEGY_ALIASES.values()) == set(STRATEGIES)
    assert all(STRATEGY_ALIASES[name] == name for name in STRATEGIES)
    assert set(STRATEGIES) > CANNOT_CAP_DOCS
    assert {name for name, strategy in STRATEGIES.items() if strategy.cuts_stream} == CANNOT_CAP_DOCS


def test_strategies_that_cannot_balance_are_those_whose_packs_are_not_shuffled():
    """pad keeps the order too, but nobody who pads counts on it: a pack is a document, whichever stands first."""
    kept = {name for name, strategy in STRATEGIES.items() if not strategy.shuffles_packs}
    assert kept - {"pad"} == choices.KEEPS_ORDER


def test_levels_of_effort_are_those_of_the_planner():
    """A level that config lets pass and the planner does not know would be a traceback."""
    assert tuple(EFFORTS) == choices.EFFORTS
    for name in STRATEGIES:  # each takes every level; for all but best-fit it changes nothing
        plans = [run(name, [3, 1, 2], 4 if name != "concat" else 6, effort=effort) for effort in choices.EFFORTS]
        assert plans[0] == plans[1] == plans[2]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_the_same_signature(name):
    """Without options: no limit, seed 0, normal effort."""
    parameters = inspect.signature(STRATEGIES[name].function).parameters
    assert list(parameters) == ["lengths", "capacity", "max_docs", "seed", "effort"]
    defaults = {option: parameters[option].default for option in ("max_docs", "seed", "effort")}
    assert defaults == {"max_docs": 0, "seed": 0, "effort": "normal"}


def test_get_strategy():
    for name, strategy in STRATEGIES.items():
        assert get_strategy(name) is strategy
    with pytest.raises(UnknownNameError, match="strategy 'best-fot' is not known; did you mean 'best-fit'"):
        get_strategy("best-fot")


# The examples of the docstrings.


def test_concat_by_hand():
    """3 1 | 4 | 2 2 | 1 with capacity 4."""
    order, pack_offsets, *_ = STRATEGIES["concat"].function(int32([3, 1, 4, 2, 2, 1]), 4)
    assert order.tolist() == [0, 1, 2, 3, 4, 5]
    assert pack_offsets.tolist() == [0, 2, 3, 5, 6]


def test_concat_ends_with_a_full_pack():
    assert run("concat", [3, 1, 4], 4) == [[0, 1], [2]]


@pytest.mark.parametrize("lengths", [[3, 2], [3, 3], [2, 3, 4], [4, 3, 2, 3]], ids=str)
def test_concat_refuses_segments_that_cross_the_end_of_a_pack(lengths):
    with pytest.raises(ValueError, match="cut at every multiple of capacity"):
        run("concat", lengths, 4)


def test_first_fit_by_hand():
    """3 4 2 1 1 with capacity 5 gives 3 2 | 4 1 | 1."""
    order, pack_offsets, *_ = STRATEGIES["first-fit"].function(int32([3, 4, 2, 1, 1]), 5)
    assert order.tolist() == [0, 2, 1, 3, 4]
    assert pack_offsets.tolist() == [0, 2, 4, 5]


def test_next_fit_by_hand():
    """3 2 4 1 1 with capacity 5 gives 3 2 | 4 1 | 1: pack_offsets 0 2 4 5."""
    order, pack_offsets, *_ = STRATEGIES["next-fit"].function(int32([3, 2, 4, 1, 1]), 5)
    assert order.tolist() == [0, 1, 2, 3, 4]
    assert pack_offsets.tolist() == [0, 2, 4, 5]


def test_pad_by_hand():
    order, pack_offsets, *_ = STRATEGIES["pad"].function(int32([3, 1, 2]), 5)
    assert order.tolist() == [0, 1, 2]
    assert pack_offsets.tolist() == [0, 1, 2, 3]


# Fast against slow.


def test_the_twins_by_hand():
    """A twin that is wrong in the same way as its fast one would hide the fault of both."""
    assert reference.best_fit_decreasing([6, 5, 5, 4, 4, 3, 2, 2, 1], 8) == [[0, 6], [1, 5], [2, 7, 8], [3, 4]]
    assert reference.first_fit([3, 4, 2, 1, 1], 5) == [[0, 2], [1, 3], [4]]
    assert reference.next_fit([3, 2, 4, 1, 1], 5) == [[0, 1], [2, 3], [4]]
    assert reference.best_fit_decreasing([1, 1, 1], 5, 2) == [[0, 1], [2]]
    assert reference.first_fit([1, 1, 1], 5, 2) == [[0, 1], [2]]
    assert reference.next_fit([1, 1, 1], 5, 2) == [[0, 1], [2]]


@TWIN
@given(problem=problems(), max_docs=st.integers(0, 5))
def test_first_fit_equals_its_twin(problem, max_docs):
    assert run("first-fit", *problem, max_docs=max_docs) == reference.first_fit(*problem, max_docs)


@TWIN
@given(problem=problems(), max_docs=st.integers(0, 5))
def test_next_fit_equals_its_twin(problem, max_docs):
    assert run("next-fit", *problem, max_docs=max_docs) == reference.next_fit(*problem, max_docs)


@PROPERTY
@given(problem=problems())
def test_concat_fills_every_pack_but_the_last(problem):
    lengths = segments_for("concat", *problem)
    packs = run("concat", lengths, problem[1])
    totals = [sum(lengths[pack].tolist()) for pack in packs]
    assert all(total == problem[1] for total in totals[:-1])
    assert len(packs) == -(-sum(problem[0]) // problem[1])
