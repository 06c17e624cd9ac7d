"""Plans: without these tests a plan could lose a document, promise a false minimum, or change between releases."""

import dataclasses
import hashlib

import numpy as np
import pytest
from fewest_packs import fewest_packs
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.config.choices import CANNOT_CAP_DOCS, OVERLONG, STRATEGY_ALIASES
from packcli.errors import UnknownNameError, UsageError
from packcli.packing import OverlongDocumentError, Plan, Segments, kept_lengths, make_plan
from packcli.packing import plan as packing_plan
from packcli.packing.plan import PlanError, _reorder, check_plan, lower_bound
from packcli.packing.strategies import STRATEGIES
from packcli.seeds import permutation, random_uint64

PROPERTY = settings(deadline=None, derandomize=True, max_examples=30)
CAN_CAP_DOCS = sorted(set(STRATEGIES) - CANNOT_CAP_DOCS)
SHUFFLED = sorted(name for name, strategy in STRATEGIES.items() if strategy.shuffles_packs)

document_lengths = st.lists(st.integers(0, 12) | st.integers(0, 60), max_size=30)
capacities = st.integers(1, 20)
seeds = st.integers(0, 2**63 - 1)


def packs_of(plan):
    return [plan.order[a:b].tolist() for a, b in zip(plan.pack_offsets[:-1], plan.pack_offsets[1:], strict=True)]


def same(one, other):
    """Whether two plans are equal in every array and figure."""
    arrays = [(p.order, p.pack_offsets, p.segments.doc, p.segments.start, p.segments.length) for p in (one, other)]
    figures = [(p.max_len, p.lower_bound, p.found_by, p.max_docs_per_pack) for p in (one, other)]
    return figures[0] == figures[1] and all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(*arrays, strict=True)
    )


def checked_plan(lengths, max_len, **options):
    plan = make_plan(lengths, max_len, **options)
    check_plan(plan, kept_lengths(np.array(lengths, dtype=np.int64), max_len, options.get("overlong", "split")))
    return plan


# By hand.


def test_a_plan_by_hand():
    """Documents 3, 9 and 4 with max_len 4: 3 | 4 4 1 | 4, next-fit puts the 1 alone, for 4 does not fit beside it."""
    plan = checked_plan([3, 9, 4], 4, strategy="next-fit")
    assert plan.segments.doc.tolist() == [0, 1, 1, 1, 2]
    assert plan.segments.start.tolist() == [0, 0, 4, 8, 0]
    assert plan.segments.length.tolist() == [3, 4, 4, 1, 4]
    assert packs_of(plan) == [[0], [1], [2], [3], [4]]
    assert (plan.num_packs, plan.num_tokens, plan.max_len) == (5, 16, 4)
    assert plan.pack_tokens.tolist() == [3, 4, 4, 1, 4]
    assert plan.docs_per_pack.tolist() == [1, 1, 1, 1, 1]
    assert plan.utilisation == 16 / 20
    assert plan.pack_costs.tolist() == [9, 16, 16, 1, 16]
    assert (plan.lower_bound, plan.found_by) == (4, "next-fit")


def test_concat_by_hand():
    """The same documents as a stream: 3 1 | 4 | 4 | 4, nothing is padded."""
    plan = checked_plan([3, 9, 4], 4, strategy="concat")
    assert packs_of(plan) == [[0, 1], [2], [3], [4]]
    assert plan.pack_tokens.tolist() == [4, 4, 4, 4]
    assert plan.docs_per_pack.tolist() == [2, 1, 1, 1]
    assert plan.pack_costs.tolist() == [10, 16, 16, 16]
    assert plan.utilisation == 1.0


def test_best_fit_reaches_the_bound_by_hand():
    plan = checked_plan([3, 9, 4], 4)
    assert plan.num_packs == plan.lower_bound == 4
    assert plan.found_by == "best-fit: decreasing"
    assert sorted(map(sorted, packs_of(plan))) == [[0, 3], [1], [2], [4]]


def test_boundaries_of_a_pack_by_hand():
    """Documents of 3 and 2 tokens share a row of 6; trainers take them as cu_seqlens or as segment ids."""
    plan = checked_plan([3, 2, 6], 6, strategy="next-fit")
    assert plan.cu_seqlens(0).tolist() == [0, 3, 5]
    assert plan.segment_ids(0).tolist() == [1, 1, 1, 2, 2, 0]
    assert plan.cu_seqlens(1).tolist() == [0, 6]
    assert plan.segment_ids(1).tolist() == [1] * 6
    assert plan.cu_seqlens(0).dtype == plan.segment_ids(0).dtype == np.int32


@pytest.mark.parametrize("pack", [-1, 2, 100])
@pytest.mark.parametrize("method", ["cu_seqlens", "segment_ids"])
def test_a_pack_that_is_not_there_is_an_index_error(method, pack):
    """A negative one would be read as another pack, and give garbage."""
    with pytest.raises(IndexError, match=f"pack {pack} of a plan of 2"):
        getattr(make_plan([3, 2, 6], 6, strategy="next-fit"), method)(pack)


@pytest.mark.parametrize("name", STRATEGIES)
@PROPERTY
@given(lengths=document_lengths, max_len=capacities)
def test_boundaries_agree_with_the_packs(name, lengths, max_len):
    plan = make_plan(lengths, max_len, strategy=name)
    for number, pack in enumerate(packs_of(plan)):
        inside = plan.segments.length[pack].tolist()
        assert plan.cu_seqlens(number).tolist() == np.cumsum([0, *inside]).tolist()
        ids = [place + 1 for place, length in enumerate(inside) for _ in range(length)]
        assert plan.segment_ids(number).tolist() == ids + [0] * (max_len - len(ids))
        assert plan.pack_costs[number] == sum(length**2 for length in inside)


def test_costs_of_long_segments_do_not_wrap():
    """2^24 squared is 2^48; lengths are int32."""
    assert make_plan([2**24, 2**24], 2**24).pack_costs.tolist() == [2**48, 2**48]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_no_tokens_no_packs(name, lengths):
    plan = checked_plan(lengths, 8, strategy=name)
    assert (plan.num_packs, plan.num_tokens, plan.utilisation, plan.lower_bound) == (0, 0, 0.0, 0)
    assert plan.pack_costs.tolist() == []
    assert plan.pack_tokens.tolist() == plan.docs_per_pack.tolist() == []


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("max_len", [1, 2, 7])
def test_full_documents_get_a_pack_each(name, max_len):
    plan = checked_plan([max_len] * 6, max_len, strategy=name)
    assert plan.num_packs == plan.lower_bound == 6
    assert plan.utilisation == 1.0


# Every strategy, every policy.


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("overlong", sorted(set(OVERLONG) - {"error"}))
@PROPERTY
@given(lengths=document_lengths, max_len=capacities, seed=seeds)
def test_every_plan_passes_every_check(name, overlong, lengths, max_len, seed):
    plan = checked_plan(lengths, max_len, strategy=name, overlong=overlong, seed=seed)
    assert plan.num_packs == len(packs_of(plan))
    assert plan.pack_tokens.tolist() == [sum(plan.segments.length[pack].tolist()) for pack in packs_of(plan)]
    assert plan.docs_per_pack.tolist() == list(map(len, packs_of(plan)))
    assert plan.num_tokens == plan.pack_tokens.sum()
    assert 0.0 <= plan.utilisation <= 1.0
    assert plan.lower_bound >= lower_bound(plan.segments.length, max_len)  # a portfolio may prove more, never less
    assert plan.found_by.split(": ")[0] == name


@pytest.mark.parametrize("name", CAN_CAP_DOCS)
@PROPERTY
@given(lengths=document_lengths, max_len=capacities, max_docs=st.integers(1, 5))
def test_max_docs_per_pack_is_kept(name, lengths, max_len, max_docs):
    plan = checked_plan(lengths, max_len, strategy=name, max_docs_per_pack=max_docs)
    assert plan.max_docs_per_pack == max_docs
    assert max(plan.docs_per_pack, default=0) <= max_docs


@pytest.mark.parametrize("name", STRATEGIES)
@PROPERTY
@given(lengths=document_lengths, max_len=capacities, seed=seeds)
def test_the_same_call_gives_the_same_plan(name, lengths, max_len, seed):
    """From a list or an array of any integers: same input, same bytes."""
    first = make_plan(lengths, max_len, strategy=name, seed=seed)
    assert same(first, make_plan(np.array(lengths, dtype=np.uint16), max_len, strategy=name, seed=seed))
    assert same(first, make_plan(tuple(lengths), np.int64(max_len), strategy=name, seed=np.int64(seed)))


@pytest.mark.parametrize(("alias", "name"), STRATEGY_ALIASES.items())
def test_an_alias_plans_like_its_strategy(alias, name):
    lengths = [5, 3, 9, 1, 2, 7, 4, 4]
    assert same(make_plan(lengths, 9, strategy=alias), make_plan(lengths, 9, strategy=name))


def test_best_fit_is_the_default():
    lengths = [5, 3, 9, 1, 2, 7, 4, 4]
    assert same(make_plan(lengths, 9), make_plan(lengths, 9, strategy="best-fit", overlong="split", seed=0))


@pytest.mark.parametrize("name", SHUFFLED)
def test_packs_of_shuffled_strategies_come_in_another_order_for_each_seed(name):
    """A plan sorted by length would be a curriculum that nobody asked for."""
    lengths = random_uint64(300, 2) % np.uint64(20)
    plans = [make_plan(lengths, 64, strategy=name, seed=seed) for seed in range(6)]
    assert len({tuple(plan.order.tolist()) for plan in plans}) == 6
    firsts = plans[0].segments.length[plans[0].order[plans[0].pack_offsets[:-1]]]
    assert abs(np.corrcoef(np.arange(len(firsts)), firsts)[0, 1]) < 0.5
    if name == "best-fit":
        assert len({plan.num_packs for plan in plans}) == 1


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - set(SHUFFLED)))
def test_plans_without_chance_ignore_the_seed(name):
    lengths = random_uint64(300, 2) % np.uint64(20)
    plans = [make_plan(lengths, 64, strategy=name, seed=seed) for seed in range(4)]
    assert all(same(plan, plans[0]) for plan in plans[1:])


@pytest.mark.parametrize("name", ["concat", "next-fit", "pad"])
@PROPERTY
@given(lengths=document_lengths, max_len=capacities)
def test_stream_strategies_keep_the_order_of_documents(name, lengths, max_len):
    plan = make_plan(lengths, max_len, strategy=name)
    assert plan.order.tolist() == list(range(len(plan.segments)))


@PROPERTY
@given(lengths=document_lengths, max_len=capacities)
def test_concat_is_never_beaten_on_packs(lengths, max_len):
    fewest = make_plan(lengths, max_len, strategy="concat").num_packs
    assert fewest == -(-sum(lengths) // max_len)
    assert all(make_plan(lengths, max_len, strategy=name).num_packs >= fewest for name in STRATEGIES)


@settings(PROPERTY, max_examples=100)
@given(counts=st.lists(st.integers(1, 4), max_size=8), seed=seeds, at_once=st.integers(1, 9))
def test_shuffling_packs_keeps_every_pack_whole(counts, seed, at_once):
    """Packs are moved some at a time, since an index takes memory: a seam may not show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_plan, "REORDERED", at_once)
        shuffled_packs_are_whole(counts, seed)


def shuffled_packs_are_whole(counts, seed):
    pack_offsets = np.cumsum([0, *counts])
    order = permutation(pack_offsets[-1], 5)
    packs = permutation(len(counts), seed)
    segments = Segments(np.ones(len(order), dtype=np.int32), None)
    plan = Plan(9, segments, order, pack_offsets, lower_bound=1, found_by="test")
    reordered = _reorder(plan, packs)
    moved, moved_offsets = reordered.order, reordered.pack_offsets
    for name in {field.name for field in dataclasses.fields(plan)} - {"order", "pack_offsets"}:
        assert getattr(reordered, name) is getattr(plan, name)
    before = [order[a:b].tolist() for a, b in zip(pack_offsets[:-1], pack_offsets[1:], strict=True)]
    after = [moved[a:b].tolist() for a, b in zip(moved_offsets[:-1], moved_offsets[1:], strict=True)]
    assert after == [before[pack] for pack in packs.tolist()]


# Refusals.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strategy": "bestfit"}, "strategy 'bestfit' is not known; did you mean 'best-fit'"),
        ({"overlong": "trunc"}, "overlong policy 'trunc' is not known; did you mean 'truncate'"),
        ({"strategy": "concat", "max_docs_per_pack": 2}, "strategy 'concat' cannot keep max_docs_per_pack"),
        ({"strategy": "wrapped", "max_docs_per_pack": 2}, "strategy 'concat' cannot keep max_docs_per_pack"),
        ({"effort": "maxx"}, "effort 'maxx' is not known; did you mean 'max'"),
        ({"strategy": "concat", "balance": True}, "strategy 'concat' keeps the order of the input"),
        ({"strategy": "ff", "balance": True}, "strategy 'first-fit' keeps the order of the input"),
        ({"strategy": "sequential", "balance": True}, "strategy 'next-fit' keeps the order of the input"),
        ({"max_docs_per_pack": -1}, "max_docs_per_pack at least 0"),
        ({"max_len": 0}, "max_len must be at least 1"),
        ({"max_len": -4}, "max_len must be at least 1"),
        ({"lengths": [3, -1]}, "integers that are not negative"),
        ({"lengths": [[3, 1]]}, "a flat list"),
        ({"lengths": 3}, "a flat list"),
        ({"lengths": [3.7, 1.2]}, "integers that are not negative"),
        ({"lengths": [True, False]}, "integers that are not negative"),
        ({"lengths": ["3"]}, "integers that are not negative"),
    ],
    ids=str,
)
def test_make_plan_refuses(wrong, message):
    """packcli.plan is public: a typo must not plan something else in silence."""
    with pytest.raises(UsageError, match=message) as caught:
        make_plan(**{"lengths": [3, 9, 4], "max_len": 4, **wrong})
    assert isinstance(caught.value, UnknownNameError) == ("is not known" in message)


@pytest.mark.parametrize("name", STRATEGIES)
def test_policy_error_reaches_the_caller(name):
    with pytest.raises(OverlongDocumentError, match="document 1 has 9 tokens"):
        make_plan([3, 9, 4], 4, strategy=name, overlong="error")
    assert checked_plan([3, 4, 4], 4, strategy=name, overlong="error").num_tokens == 11


# check_plan: each of its checks fires. Segments 3 | 4 4 1 | 4 of documents 3, 9 and 4, a pack each.


def replaced(**changes):
    """The plan by hand with some of its arrays changed."""
    plan = make_plan([3, 9, 4], 4, strategy="pad")
    doc, start, length = (
        np.array(changes.pop(name, getattr(plan.segments, name))) for name in ("doc", "start", "length")
    )
    segments = Segments(length, (doc, start))
    arrays = {name: np.array(value) if isinstance(value, list) else value for name, value in changes.items()}
    return dataclasses.replace(plan, segments=segments, **arrays)


BROKEN_PLANS = {
    "a segment stands twice": ({"order": [0, 1, 2, 3, 3]}, "a segment is missing or stands twice"),
    "a segment is missing": ({"order": [0, 1, 2, 3]}, "a segment is missing or stands twice"),
    "offsets end early": ({"pack_offsets": [0, 1, 2, 3, 4]}, "pack_offsets do not cover the segments"),
    "offsets begin late": ({"pack_offsets": [1, 2, 3, 4, 5]}, "pack_offsets do not cover the segments"),
    "an empty pack": ({"pack_offsets": [0, 1, 1, 2, 3, 4, 5]}, "a pack is empty"),
    "offsets go back": ({"pack_offsets": [0, 2, 1, 3, 4, 5]}, "a pack is empty"),
    "an empty segment": ({"length": [3, 4, 4, 0, 4]}, "a segment is empty"),
    "a full pack and more": ({"pack_offsets": [0, 2, 3, 4, 5]}, "a pack is over max_len"),
    "a segment over max_len": ({"length": [3, 5, 4, 1, 4]}, "a pack is over max_len"),
    "too many documents": (
        {"order": [0, 3, 1, 2, 4], "pack_offsets": [0, 2, 3, 4, 5], "max_docs_per_pack": 1},
        "a pack is over max_docs_per_pack",
    ),
    "documents out of order": ({"doc": [0, 1, 1, 2, 1]}, "segments are not in the documents' order"),
    "a gap": ({"start": [0, 0, 4, 9, 0]}, "segments leave a gap or overlap"),
    "an overlap": ({"start": [0, 0, 3, 7, 0]}, "segments leave a gap or overlap"),
    "a document begun late": ({"start": [0, 0, 4, 8, 1]}, "segments leave a gap or overlap"),
    "the first document begun late": ({"start": [1, 0, 4, 8, 0]}, "the first segment does not start a document"),
    "a token too few": ({"length": [3, 4, 4, 1, 3]}, "segments do not cover the documents"),
    "a document that is not there": ({"doc": [0, 1, 1, 1, 3]}, "segments do not cover the documents"),
}


@pytest.mark.parametrize("case", BROKEN_PLANS)
def test_check_plan_finds(case):
    changes, message = BROKEN_PLANS[case]
    kept = np.array([3, 9, 4])
    check_plan(replaced(), kept)
    with pytest.raises(PlanError, match=message):
        check_plan(replaced(**changes), kept)


def test_check_plan_finds_a_document_that_has_no_segment():
    with pytest.raises(PlanError, match="segments do not cover the documents"):
        check_plan(replaced(), np.array([3, 9, 4, 1]))


def test_check_plan_finds_a_bound_above_the_plan():
    check_plan(replaced(lower_bound=5), np.array([3, 9, 4]))
    with pytest.raises(PlanError, match="the bound is wrong"):
        check_plan(replaced(lower_bound=6), np.array([3, 9, 4]))


# The lower bound.


@pytest.mark.parametrize(
    ("lengths", "max_len", "max_docs", "bound"),
    [
        ([], 10, 0, 0),
        ([1], 10, 0, 1),
        ([5, 5, 5], 10, 0, 2),  # tokens alone: 15 / 10
        ([6, 6, 6], 10, 0, 3),  # no two fit together
        ([6, 6, 5, 5, 5], 10, 0, 4),  # the fives do not fit beside the sixes
        ([7, 7, 4, 4, 4], 10, 0, 4),  # nor do the fours beside the sevens; threshold 4
        ([9, 9, 3, 3, 3, 3], 12, 0, 3),  # the threes fit beside the nines; then two are left
        ([1, 1, 1, 1, 1], 10, 2, 3),  # two a pack at most
        ([6, 6, 6], 10, 2, 3),
        ([6, 6, 6], 11, 0, 3),  # an odd capacity: over half of it is 6
        ([5, 5, 5], 11, 0, 2),
    ],
)
def test_lower_bound_by_hand(lengths, max_len, max_docs, bound):
    assert lower_bound(np.array(lengths, dtype=np.int32), max_len, max_docs) == bound


def slow_bound(lengths, max_len):
    """Martello and Toth 1990, section 8.3, as it is printed."""
    best = 0
    for a in range(max_len // 2 + 1):
        alone = [length for length in lengths if length > max_len - a]
        halves = [length for length in lengths if max_len - a >= length > max_len / 2]
        small = [length for length in lengths if max_len / 2 >= length >= a]
        room = len(halves) * max_len - sum(halves)
        best = max(best, len(alone) + len(halves) + max(0, -(-(sum(small) - room) // max_len)))
    return best


def test_fewest_packs_by_hand():
    assert fewest_packs([5, 4, 3, 3, 3, 2], 10, 0) == 2
    assert fewest_packs([5, 4, 3, 3, 3, 2], 10, 2) == 3
    assert fewest_packs([6, 6, 6], 10, 0) == 3
    assert fewest_packs([], 10, 0) == 0


@st.composite
def small_problems(draw):
    max_len = draw(st.integers(1, 16))
    return draw(st.lists(st.integers(1, max_len), max_size=7)), max_len


@settings(PROPERTY, max_examples=300)
@given(problem=small_problems(), max_docs=st.integers(0, 4))
def test_no_packing_beats_the_lower_bound(problem, max_docs):
    """The report says "n packs above the proven minimum": it must be one."""
    lengths, max_len = problem
    bound = lower_bound(np.array(lengths, dtype=np.int32), max_len, max_docs)
    fewest = fewest_packs(lengths, max_len, max_docs)
    assert -(-sum(lengths) // max_len) <= bound <= fewest
    assert make_plan(lengths, max_len, max_docs_per_pack=max_docs).num_packs >= fewest


@settings(PROPERTY, max_examples=200)
@given(lengths=st.lists(st.integers(1, 40), max_size=30), more=st.integers(0, 20))
def test_lower_bound_equals_its_slow_twin(lengths, more):
    """A weaker bound would call a perfect plan imperfect."""
    max_len = max(lengths, default=1) + more
    assert lower_bound(np.array(lengths, dtype=np.int32), max_len) == slow_bound(lengths, max_len)


# Golden plans. The order of packs is part of the bytes: a change here is a new FORMAT_VERSION.

LENGTHS = [7, 3, 19, 1, 0, 12, 5, 33, 8, 8, 2, 16, 4, 9, 1, 6, 11, 3, 14, 2, 7, 5, 21, 10, 1, 13, 8, 4, 6, 2, 15, 3]

GOLDEN = {  # segments, pack by pack: order and pack_offsets in one
    "concat": (
        "0 1 2 | 3 4 5 | 6 7 8 | 9 | 10 | 11 12 | 13 14 | 15 16 17 18 | 19 20 | 21 22 23 | 24 25 26 27 | 28 | "
        "29 30 31 | 32 33 | 34 35 36 37 | 38 39 | 40"
    ),
    "best-fit": (
        "12 9 | 20 21 | 7 | 28 19 | 11 0 16 | 33 27 | 15 22 | 8 | 18 23 | 5 30 | 24 | 29 10 | 14 34 1 3 32 4 "
        "| 26 31 | 13 | 2 | 17 25 6"
    ),
    "shuffle-fit": (
        "2 | 28 | 20 | 4 22 10 | 23 25 19 34 | 14 | 8 | 13 | 11 29 | 7 | 24 | 16 26 1 9 27 | 15 30 21 | 17 | "
        "33 | 18 6 | 31 3 0 | 12 5 32"
    ),
    "first-fit": (
        "0 1 3 4 9 16 | 2 | 5 12 21 | 6 10 19 | 7 | 8 | 11 14 27 32 | 13 | 15 17 | 18 23 | 20 | 22 25 30 | 24 "
        "| 26 31 | 28 34 | 29 | 33"
    ),
    "next-fit": (
        "0 1 | 2 | 3 4 5 | 6 | 7 | 8 | 9 10 | 11 12 | 13 | 14 15 16 | 17 | 18 19 | 20 21 | 22 23 | 24 | 25 26 "
        "27 | 28 | 29 30 | 31 32 | 33 | 34"
    ),
    "pad": (
        "0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15 | 16 | 17 | 18 | 19 | 20 | 21 | "
        "22 | 23 | 24 | 25 | 26 | 27 | 28 | 29 | 30 | 31 | 32 | 33 | 34"
    ),
}

GOLDEN_DIGESTS = {
    "concat": (2206, "d1dfef5c4ea5b62a19cc6149da1e1f07509390651183ac9a0a323a03ec5eb5fc"),
    "best-fit": (2206, "6a1fd76732e7752b46fa4e2ea00ea50a59362dd058cbb5e5c6c394dc9eff1060"),
    "shuffle-fit": (2216, "cd5e63bac839931c9adb9df67e70997b652cdccf754da2711b8c681b8e917d06"),
    "first-fit": (2233, "6d40c27465e664674072d229060b054193c6144b67102d97d0e42e41efece96a"),
    "next-fit": (3006, "09c7efededa8ea17c6b55b117b16de73338b0cf22de5f580a8a20b699dc0726b"),
    "pad": (3976, "8863d6f5da9e52c398454a1bca19d42cd03ee68971273dc1de122998d2b51294"),
}

GOLDEN_LIMITED = (
    "3 32 | 12 16 | 6 14 | 33 27 | 7 | 5 30 | 34 1 | 28 19 | 4 9 | 15 22 | 8 | 26 31 | 17 25 | 24 | 29 10 "
    "| 20 21 | 11 0 | 13 | 2 | 18 23"
)


def written(plan):
    """A plan as text: '0 1 | 2' is order 0 1 2 and pack_offsets 0 2 3."""
    return " | ".join(" ".join(map(str, pack)) for pack in packs_of(plan))


@pytest.mark.parametrize("name", STRATEGIES)
def test_golden_plan(name):
    plan = checked_plan(LENGTHS, 16, strategy=name, seed=7)
    assert written(plan) == GOLDEN[name]
    assert plan.order.dtype in (np.int32, np.int64)
    assert plan.pack_offsets.dtype == np.int64


@pytest.mark.parametrize("name", STRATEGIES)
def test_golden_plan_of_3000_documents(name):
    lengths = random_uint64(3000, 11) % np.uint64(3000)
    plan = checked_plan(lengths, 2048, strategy=name, seed=5)
    data = plan.order.astype("<i8").tobytes() + plan.pack_offsets.astype("<i8").tobytes()
    assert (plan.num_packs, hashlib.sha256(data).hexdigest()) == GOLDEN_DIGESTS[name]


def test_golden_plan_with_a_limit():
    plan = checked_plan(LENGTHS, 16, strategy="best-fit", seed=7, max_docs_per_pack=2)
    assert written(plan) == GOLDEN_LIMITED
