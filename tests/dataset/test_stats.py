"""Stats: without these tests the report could lose tokens between units, or say what is not so."""

import copy
import dataclasses
import json
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.dataset import Stats, bucketed, histogram, quantiles
from packcli.dataset.derived import QUANTILES, derived
from packcli.dataset.stats import HISTOGRAMS
from packcli.packing.plan import lower_bound

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)

counts = st.integers(0, 10**15)
histograms = st.dictionaries(st.integers(0, 2**24), st.integers(1, 10**12), max_size=4)
COUNTERS = [field.name for field in dataclasses.fields(Stats) if field.type == "int"]
MAXIMA = ["max_group_cost", "max_group_cost_unbalanced"]
MAX_LEN = 8


@st.composite
def totals(draw):
    """Any Stats; every field is filled, so that a new one is tested too."""
    fields = {name: draw(counts) for name in COUNTERS} | {name: draw(histograms) for name in HISTOGRAMS}
    tally = st.dictionaries(st.sampled_from(["num_documents", "num_tokens_in"]), counts)
    fields["by_source"] = draw(st.dictionaries(st.integers(0, 3), tally, max_size=3))
    planners = st.sampled_from(["pad", "best-fit: decreasing", "best-fit: columns"])
    fields["plans_by_planner"] = draw(st.dictionaries(planners, st.integers(1, 9)))
    fields["tokens_by_role"] = draw(st.dictionaries(st.sampled_from(["user", "assistant"]), counts))
    fields["rejected_by_cause"] = draw(st.dictionaries(st.sampled_from(["null", "not-json"]), counts))
    fields["by_split"] = draw(st.dictionaries(st.sampled_from(["train", "validation"]), tally))
    return Stats(**fields)


def good():
    """Hand-made: 10 rows, 7 documents: one empty, one overlong, one truncated; 23 tokens in 3 packs of 8."""
    return Stats(
        num_parts=1,
        num_rows_read=10,
        num_rows_rejected=3,
        rejected_by_cause={"null": 1, "not-json": 2},
        num_documents=7,
        num_documents_packed=5,
        num_documents_empty=1,
        num_documents_overlong=1,
        num_documents_truncated=1,
        num_documents_split=1,
        num_tokens_in=40,
        num_tokens_special=6,
        num_tokens_packed=23,
        num_tokens_truncated=3,
        num_tokens_overlong=20,
        num_tokens_loss=17,
        num_tokens_padding=1,
        num_segments=6,
        num_packs=3,
        num_rows_unpacked=6,
        sum_lower_bound=3,
        sum_squared_segments=97,
        num_groups=4,
        sum_group_cost=80,
        max_group_cost=25,
        max_group_cost_unbalanced=41,
        documents_by_length={3: 2, 4: 2, 11: 1, 20: 1},
        segments_by_length={3: 3, 4: 2, 6: 1},
        packs_by_documents={2: 3},
        plans_by_planner={"best-fit: decreasing": 1},
        by_source={0: {"num_documents": 7, "num_tokens_in": 40}},
        by_split={"train": {"num_documents": 5, "num_packs": 3, "num_tokens_packed": 23}},
    )


def test_every_field_is_a_counter_a_histogram_or_a_table():
    """A field of another kind would need its own way to add up and to be stored."""
    named = [*COUNTERS, *HISTOGRAMS, "by_source", "tokens_by_role", "layouts", "by_split", "plans_by_planner"]
    named.append("rejected_by_cause")
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(Stats))
    assert len(COUNTERS) > 15
    assert [name for name in COUNTERS if name.startswith("max_")] == MAXIMA


# Sums.


def test_a_sum_by_hand():
    one = Stats(
        max_group_cost=7,
        max_group_cost_unbalanced=8,
        plans_by_planner={"pad": 1, "concat": 2},
        num_packs=2,
        packs_by_documents={1: 1, 2: 1},
        by_source={0: {"num_documents": 3}},
        by_split={"train": {"a": 1}},
    )
    other = Stats(
        max_group_cost=5,
        max_group_cost_unbalanced=9,
        plans_by_planner={"pad": 3},
        num_packs=3,
        packs_by_documents={2: 3},
        by_source={0: {"num_documents": 1}, 1: {"num_documents": 4}},
    )
    both = one + other
    assert both.num_packs == 5
    assert both.packs_by_documents == {1: 1, 2: 4}
    assert both.by_source == {0: {"num_documents": 4}, 1: {"num_documents": 4}}
    assert both.by_split == {"train": {"a": 1}}
    assert both.num_documents == 0
    assert (both.max_group_cost, both.max_group_cost_unbalanced) == (7, 9)  # of maxima, the maximum
    assert both.plans_by_planner == {"pad": 4, "concat": 2}


@PROPERTY
@given(a=totals(), b=totals(), c=totals())
def test_units_may_be_added_in_any_order(a, b, c):
    """Workers finish in any order; the report may not depend on it."""
    before = copy.deepcopy((a, b, c))
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Stats() == Stats() + a == a
    assert (a, b, c) == before


@PROPERTY
@given(a=totals(), b=totals())
def test_a_sum_loses_nothing(a, b):
    both = a + b
    for name in COUNTERS:
        add = max if name in MAXIMA else sum
        assert getattr(both, name) == add((getattr(a, name), getattr(b, name)))
    assert both.plans_by_planner == dict(Counter(a.plans_by_planner) + Counter(b.plans_by_planner))
    for name in HISTOGRAMS:
        assert getattr(both, name) == dict(Counter(getattr(a, name)) + Counter(getattr(b, name)))
    for name in ("by_source", "by_split"):
        left, right, found = (getattr(each, name) for each in (a, b, both))
        assert set(found) == set(left) | set(right)
        for key, tally in found.items():
            parts = (left.get(key, {}), right.get(key, {}))
            assert set(tally) == set(parts[0]) | set(parts[1])
            assert all(value == sum(part.get(what, 0) for part in parts) for what, value in tally.items())


def test_adding_to_a_sum_changes_no_earlier_one():
    """Totals of finished units are added again after a resume."""
    first = Stats() + good()
    second = first + good()
    second.by_source[0]["num_documents"] += 1
    second.documents_by_length[3] += 1
    second.plans_by_planner["best-fit: decreasing"] += 1
    assert first == good()


# Storage.


@PROPERTY
@given(stats=totals())
def test_json_round_trip(stats):
    """A sidecar is read again on resume: what it loses, the report of a resumed run lacks."""
    data = json.loads(json.dumps(stats.as_dict()))
    again = Stats.from_dict(data)
    assert again == stats
    assert json.dumps(again.as_dict()) == json.dumps(stats.as_dict())
    assert again + stats == stats + stats


def test_as_dict_is_sorted():
    """Same totals, same bytes, whatever the order in which units were added."""
    stats = Stats(documents_by_length={7: 1, 2: 3}, by_source={10: {"n": 1}, 2: {"n": 2}})
    found = stats.as_dict()
    assert found["documents_by_length"] == [[2, 3], [7, 1]]
    assert list(found["by_source"].items()) == [("2", {"n": 2}), ("10", {"n": 1})]
    assert list(found) == [field.name for field in dataclasses.fields(Stats)]


# Conservation.


def test_good_sums_pass():
    good().check(MAX_LEN)
    Stats().check(MAX_LEN)
    (good() + good() + Stats()).check(MAX_LEN)
    assert good().num_tokens_dropped == 23


BROKEN_BY = {
    "num_tokens_in": "tokens in",
    "num_tokens_special": "tokens in",
    "num_tokens_packed": "tokens in",
    "num_tokens_truncated": "tokens in",
    "num_tokens_overlong": "tokens in",
    "num_packs": "packs",
    "num_tokens_padding": "packs",
    "num_documents": "documents",
    "num_documents_packed": "documents",
    "num_documents_empty": "documents",
    "num_documents_overlong": "documents",
    "num_rows_read": "rows read",
    "num_rows_rejected": "rows read",
}


@pytest.mark.parametrize("name", BROKEN_BY)
@pytest.mark.parametrize("step", [1, -1])
def test_one_token_pack_or_document_too_many_is_found(name, step):
    stats = good()
    setattr(stats, name, getattr(stats, name) + step)
    with pytest.raises(AssertionError, match=f"^{BROKEN_BY[name]}"):
        stats.check(MAX_LEN)
    with pytest.raises(AssertionError, match=f"^{BROKEN_BY[name]}"):
        (good() + stats).check(MAX_LEN)  # and again on the sum


def test_a_cause_too_many_is_found():
    stats = good()
    stats.rejected_by_cause["null"] += 1
    with pytest.raises(AssertionError, match="rejected != the sum of its causes"):
        stats.check(MAX_LEN)


def test_another_max_len_is_found():
    with pytest.raises(AssertionError, match="packs \\* max_len"):
        good().check(MAX_LEN + 1)


# Histograms and quantiles.


def test_histogram_by_hand():
    assert histogram(np.array([3, 1, 3, 3])) == {1: 1, 3: 3}
    assert histogram(np.array([], dtype=np.int64)) == {}


@PROPERTY
@given(values=st.lists(st.integers(0, 50)))
def test_histogram_equals_a_counter(values):
    found = histogram(np.array(values, dtype=np.int64))
    assert found == Counter(values)
    assert list(found) == sorted(found)
    assert all(type(each) is int for pair in found.items() for each in pair)  # NumPy's do not go into JSON


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0, 0), (1, 1), (1023, 1023), (1024, 1024), (1025, 1024), (2047, 2046), (2048, 2048), (2051, 2048), (2052, 2052)],
)
def test_bucketed_by_hand(value, bucket):
    assert bucketed(np.array([value])).tolist() == [bucket]


@settings(PROPERTY, max_examples=200)
@given(values=st.lists(st.integers(0, 2**52) | st.integers(0, 5000), max_size=20))
def test_bucketed_keeps_ten_bits(values):
    found = bucketed(np.array(values, dtype=np.int64))
    assert found.dtype == np.int64
    shifts = [max(value.bit_length() - 10, 0) for value in values]
    assert found.tolist() == [value >> shift << shift for value, shift in zip(values, shifts, strict=True)]
    assert all(0 <= value - low <= value * 0.002 for value, low in zip(values, found.tolist(), strict=True))


def test_histograms_stay_small():
    """Every length up to 16 Mi: a sidecar must not hold a row for each."""
    assert len(np.unique(bucketed(np.arange(2**20)))) <= 1024 + 10 * 512


def test_quantiles_by_hand():
    """Nearest rank: of 1..100 the median is the 50th, p1 the first."""
    assert quantiles(dict.fromkeys(range(1, 101), 1)) == {
        "p0": 1,
        "p1": 1,
        "p5": 5,
        "p25": 25,
        "p50": 50,
        "p75": 75,
        "p95": 95,
        "p99": 99,
        "p100": 100,
    }
    assert quantiles({4: 1, 9: 1})["p50"] == 4
    assert set(quantiles({7: 10**12}).values()) == {7}
    assert quantiles({}) == {}


@settings(PROPERTY, max_examples=150)
@given(counts=st.dictionaries(st.integers(0, 100), st.integers(1, 60), min_size=1, max_size=10))
def test_quantiles_equal_the_sorted_list(counts):
    """The twin writes every value out and takes the rank with exact fractions."""
    values = sorted(Counter(counts).elements())
    expected = {}
    for quantile in QUANTILES:
        exact = Fraction(str(quantile))
        expected[f"p{quantile * 100:g}"] = values[max(1, math.ceil(exact * len(values))) - 1]
    found = quantiles(counts)
    assert found == expected
    assert list(found.values()) == sorted(found.values())
    assert all(type(value) is int for value in found.values())


# What people read.


def test_derived_by_hand():
    found = derived(good(), MAX_LEN)
    assert found.pop("layouts")["packed"]["num_positions"] == 24
    assert found == {
        "utilisation": 0.958333,  # 23 / 24
        "padding_ratio": 0.041667,  # 1 / 24
        "padding_ratio_unpacked": 0.520833,  # 25 / 48: six rows of 8 without packing
        "num_packs_above_lower_bound": 0,
        "num_packs_for_windows": 0,
        "drop_ratio": 0.5,  # 23 / 46
        "loss_ratio": 0.73913,  # 17 / 23
        "split_ratio": 0.2,  # 1 / 5
        "group_cost_max_ratio": 1.25,  # 25 / (80 / 4)
        "group_cost_max_ratio_unbalanced": 2.05,  # 41 / (80 / 4)
        "attention_ratio": 0.505208,  # 97 / 192
        "mean_documents_per_pack": 2.0,
        "mean_document_length": 6.571429,  # 46 / 7
        "document_length": quantiles(good().documents_by_length),
        "segment_length": quantiles(good().segments_by_length),
        "documents_per_pack": quantiles(good().packs_by_documents),
    }


def test_nothing_packed_divides_by_nothing():
    found = derived(Stats(), MAX_LEN)
    json.dumps(found)
    layouts = found.pop("layouts")
    assert all(value == 0 for layout in layouts.values() for value in layout.values())
    assert all(value in (0, {}) for value in found.values())


@PROPERTY
@given(packs=st.lists(st.lists(st.integers(1, MAX_LEN), min_size=1, max_size=4).filter(lambda p: sum(p) <= MAX_LEN)))
def test_ratios_lie_between_0_and_1(packs):
    lengths = np.array([length for pack in packs for length in pack], dtype=np.int64)
    stats = Stats(
        num_rows_read=len(lengths),
        num_documents=len(lengths),
        num_documents_packed=len(lengths),
        num_tokens_in=int(lengths.sum()),
        num_tokens_packed=int(lengths.sum()),
        num_tokens_padding=len(packs) * MAX_LEN - int(lengths.sum()),
        num_tokens_loss=int(lengths.sum()) - len(lengths),
        num_segments=len(lengths),
        num_rows_unpacked=len(lengths),
        num_packs=len(packs),
        sum_squared_segments=int((lengths**2).sum()),
    )
    stats.check(MAX_LEN)
    found = derived(stats, MAX_LEN)
    names = [name for name in found if name.endswith("_ratio") or name == "utilisation"]
    ratios = [found[name] for name in names if name != "group_cost_max_ratio"]  # a maximum is over its mean
    assert len(ratios) == 6
    assert all(0.0 <= ratio <= 1.0 for ratio in ratios)
    if packs:
        assert found["utilisation"] + found["padding_ratio"] == pytest.approx(1, abs=2e-6)


def parts_of(*parts, max_len):
    """Totals of parts that were planned each on its own, with the bound of each."""
    total = Stats()
    for lengths in parts:
        total += Stats(
            num_parts=1,
            num_segments=len(lengths),
            num_tokens_packed=sum(lengths),
            sum_lower_bound=lower_bound(np.array(lengths, dtype=np.int32), max_len),
            segments_by_length=histogram(bucketed(np.array(lengths, dtype=np.int64))),
        )
    return total


@pytest.mark.parametrize(
    ("parts", "max_docs", "packs"),
    [
        ([[5, 5, 5]], 0, 0),  # one part is the whole
        ([[5], [5]], 0, 1),  # a pack each; together they fill one
        ([[5], [5], [5], [5]], 0, 2),
        ([[6], [6]], 0, 0),  # they would not share one either
        ([[6, 4], [6, 4]], 0, 0),
        ([[6], [4], [6], [4]], 0, 2),
        ([[1], [1], [1], [1]], 0, 3),
        ([[1], [1], [1], [1]], 2, 2),  # two a pack at most: the whole needs two
        ([], 0, 0),
    ],
    ids=str,
)
def test_the_price_of_windows_by_hand(parts, max_docs, packs):
    """What the parts need together, over what the whole needs: the reader decides by it on --unit-bytes."""
    assert derived(parts_of(*parts, max_len=10), 10, max_docs)["num_packs_for_windows"] == packs


@PROPERTY
@given(parts=st.lists(st.lists(st.integers(1, 3000), min_size=1, max_size=6), max_size=4))
def test_windows_never_cost_less_than_nothing(parts):
    """Long segments are counted as shorter ones; the bound of the tokens makes up for it."""
    max_len = 3000
    total = parts_of(*parts, max_len=max_len)
    found = derived(total, max_len)["num_packs_for_windows"]
    whole = lower_bound(np.array([length for part in parts for length in part], dtype=np.int32), max_len)
    assert max(total.sum_lower_bound - whole, 0) <= found <= max(total.sum_lower_bound - 1, 0)
    if len(parts) <= 1:
        assert found == 0


def test_one_part_has_no_price_of_windows():
    """Its own bound may be better than that of the report, which sees the histogram only."""
    alone = Stats(num_parts=1, num_tokens_packed=10, sum_lower_bound=3, segments_by_length={5: 2})
    assert derived(alone, 10)["num_packs_for_windows"] == 0


def test_group_cost_ratios_by_hand():
    """Groups of 10, 10 and 40: the most expensive costs twice the mean."""
    stats = Stats(num_groups=3, sum_group_cost=60, max_group_cost=40, max_group_cost_unbalanced=60)
    found = derived(stats, MAX_LEN)
    assert (found["group_cost_max_ratio"], found["group_cost_max_ratio_unbalanced"]) == (2.0, 3.0)
