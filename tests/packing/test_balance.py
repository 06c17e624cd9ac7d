"""Balance: without these tests ranks would wait for the one with the dearest rows, or a pack could be lost."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.config.choices import KEEPS_ORDER
from packcli.packing import balance_plan, make_plan
from packcli.packing.strategies import STRATEGIES, group_costs
from packcli.packing.strategies.balance import GROUP, balanced_order
from packcli.seeds import random_uint64

PROPERTY = settings(deadline=None, derandomize=True, max_examples=100)
CAN_BALANCE = sorted(set(STRATEGIES) - KEEPS_ORDER)

seeds = st.integers(0, 2**64 - 1)
costs_of_packs = st.lists(st.integers(1, 2**24) | st.integers(1, 5) | st.just(2**48), max_size=60)


def int64(values):
    return np.array(values, dtype=np.int64)


def packs_of(plan):
    return [plan.order[a:b].tolist() for a, b in itertools.pairwise(plan.pack_offsets.tolist())]


def slow_groups(costs, group):
    """Longest processing time first: each pack, dearest first, to the cheapest group with a place. Costs of groups."""
    groups = [[] for _ in range(len(costs) // group)]
    for cost in sorted(costs, reverse=True):
        min((each for each in groups if len(each) < group), key=sum).append(cost)
    return sorted(map(sum, groups))


def test_groups_of_a_rank_are_eight():
    assert GROUP == 8
    assert group_costs(int64(range(20))).tolist() == [28, 92]  # 0 .. 7 and 8 .. 15; four are left over
    assert group_costs(int64([5] * 7)).tolist() == []
    assert group_costs(int64([])).tolist() == []


@PROPERTY
@given(costs=costs_of_packs, seed=seeds)
def test_every_pack_has_one_place(costs, seed):
    before = int64(costs)
    order = balanced_order(before, seed)
    assert sorted(order.tolist()) == list(range(len(costs)))
    assert order.dtype == np.int64
    assert before.tolist() == costs


@PROPERTY
@given(groups=st.integers(1, 6), seed=seeds, data=st.data())
def test_groups_cost_what_those_of_the_twin_cost(groups, seed, data):
    """Without packs left over, chance decides among equals only."""
    size = groups * GROUP
    costs = data.draw(st.lists(st.integers(1, 1000) | st.integers(1, 4), min_size=size, max_size=size))
    found = group_costs(int64(costs)[balanced_order(int64(costs), seed)])
    assert sorted(found.tolist()) == slow_groups(costs, GROUP)


def test_two_groups_by_hand():
    """One pack of 70 beside fifteen of 10: the dear one gets the seven that fill its group; nothing can be nearer."""
    for seed in range(5):
        costs = int64([10] * 15 + [70])
        assert sorted(group_costs(costs[balanced_order(costs, seed)]).tolist()) == [80, 140]
    # 8 7 | 6 5 | ... alternate: two groups of sixteen packs 1 .. 16 are 68 each.
    costs = int64(range(1, 17))
    for seed in range(5):
        assert group_costs(costs[balanced_order(costs, seed)]).tolist() == [68, 68]


@PROPERTY
@given(costs=costs_of_packs, seed=seeds)
def test_what_is_left_over_comes_last_and_is_a_random_choice(costs, seed):
    """The dearest packs, all left over, would be the dearest rows of the run, at its very end."""
    order = balanced_order(int64(costs), seed)
    left = len(costs) % GROUP
    whole = order[: len(costs) - left]
    found = sorted(group_costs(int64(costs)[order]).tolist())
    assert found == slow_groups(int64(costs)[whole].tolist(), GROUP)


def test_each_pack_is_left_over_now_and_then():
    costs = int64(range(100, 111))  # three of eleven
    left = {pack for seed in range(60) for pack in balanced_order(costs, seed)[8:].tolist()}
    assert left == set(range(11))


def test_the_seed_decides_the_order():
    """Rows sorted by cost would be a curriculum: groups, and packs inside a group, come in a random order."""
    costs = (random_uint64(400, 4) % np.uint64(1000)).astype(np.int64)
    orders = [balanced_order(costs, seed) for seed in range(6)]
    assert len({tuple(order.tolist()) for order in orders}) == 6
    assert balanced_order(costs, 3).tolist() == orders[3].tolist()
    for order in orders:
        ordered = costs[order]
        first_of_group = ordered.reshape(-1, GROUP)[:, 0]
        assert abs(np.corrcoef(np.arange(len(first_of_group)), first_of_group)[0, 1]) < 0.5
        assert abs(np.corrcoef(np.tile(np.arange(GROUP), len(ordered) // GROUP), ordered)[0, 1]) < 0.2
        dearest = np.flatnonzero(costs[order] >= np.sort(costs)[-50])  # one in every group, wherever
        assert len(set((dearest // GROUP).tolist())) == 50
        assert len(set((dearest % GROUP).tolist())) > 3


def test_groups_are_nearly_equal_where_a_random_order_is_not():
    """What it is for. Costs differ tenfold, as those of full packs do: the sum of squares of one or of many."""
    costs = (2.0 ** (random_uint64(803, 4).astype(np.float64) / 2.0**64 * 4) * 1000).astype(np.int64)
    shuffled, balanced = group_costs(costs), group_costs(costs[balanced_order(costs, 1)])
    assert len(balanced) == 100
    assert shuffled.max() / shuffled.mean() > 1.3
    assert balanced.max() / balanced.mean() < 1.01
    assert balanced.min() / balanced.mean() > 0.99


# Plans.


@pytest.mark.parametrize("name", CAN_BALANCE)
@PROPERTY
@given(lengths=st.lists(st.integers(0, 40), max_size=60), max_len=st.integers(1, 20), seed=st.integers(0, 2**63 - 1))
def test_a_balanced_plan_holds_the_same_packs(name, lengths, max_len, seed):
    """Only their order changes: no density, no pack mates."""
    plain = make_plan(lengths, max_len, strategy=name, seed=seed)
    plan = make_plan(lengths, max_len, strategy=name, seed=seed, balance=True)
    assert sorted(packs_of(plan)) == sorted(packs_of(plain))
    assert (plan.lower_bound, plan.found_by, plan.max_len) == (plain.lower_bound, plain.found_by, plain.max_len)
    assert plan.order.dtype == plain.order.dtype
    again = balance_plan(plain, seed)
    assert packs_of(again) == packs_of(plan)  # the pipeline balances a plan that it has measured first
    costs = [sum(plan.segments.length[pack].astype(np.int64) ** 2) for pack in packs_of(plan)]
    assert costs == plan.pack_costs.tolist()
    whole = plan.num_packs // GROUP * GROUP
    assert sorted(group_costs(plan.pack_costs).tolist()) == slow_groups(costs[:whole], GROUP)


@pytest.mark.parametrize("name", CAN_BALANCE)
def test_balance_of_a_real_plan(name):
    """A pack of one long document costs ten times one of many short ones; no single one costs more than a group."""
    draws = random_uint64(6000, 6).astype(np.float64) / 2.0**64
    lengths = np.clip(-400 * np.log(1 - draws), 1, 2048).astype(np.int64)
    if name == "pad":
        lengths = np.minimum(lengths, 800)[:1500]
    plain, plan = (group_costs(make_plan(lengths, 2048, strategy=name, balance=on).pack_costs) for on in (False, True))
    assert plan.sum() == pytest.approx(plain.sum(), rel=0.02)  # but for what is left over
    assert plan.max() / plan.mean() < 1.05
    assert plan.max() / plan.mean() < plain.max() / plain.mean() - 0.1


@pytest.mark.parametrize("count", [0, 1, 7])
def test_fewer_packs_than_a_group_are_only_shuffled(count):
    plan = make_plan([5] * count, 5, balance=True)
    assert sorted(packs_of(plan)) == [[pack] for pack in range(count)]
