"""The lean of shuffle-fit: without these tests pack mates would be of unlike lengths, or that would cost more packs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.packing.strategies.shuffle_fit.bias import (
    AIM,
    CHEAP,
    LEANS,
    NEAR,
    PARTS,
    TOO_FAR,
    Trial,
    find_lean,
    leaning_order,
    mate_correlation,
)

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)


def int32(lengths):
    return np.array(lengths, dtype=np.int32)


def ordered(lengths, lean):
    lengths = int32(lengths)
    return lengths[leaning_order(lengths, 30, lean)].tolist()


def test_the_examples_of_the_module():
    assert ordered([3, 9, 1, 7, 2, 8], 0) == [3, 9, 1, 7, 2, 8]
    assert ordered([3, 9, 1, 7, 2, 8], PARTS // 2) == [9, 3, 7, 8, 1, 2]
    assert ordered([3, 9, 1, 7, 2, 8], PARTS) == [9, 8, 7, 3, 2, 1]


@PROPERTY
@given(lengths=LENGTHS, lean=st.integers(0, PARTS))
def test_a_place_in_line_is_the_mean_of_two(lengths, lean):
    """Any other order would make the trials useless: the correlation must rise with the lean."""

    def place(index):
        longer = sum(length > lengths[index] for length in lengths)
        alike = lengths.count(lengths[index])
        by_length = longer + alike - alike // 2
        return ((PARTS - lean) * index + lean * by_length) * 0xFFFF // (PARTS * len(lengths))

    found = leaning_order(int32(lengths), 30, lean).tolist()
    assert found == (sorted(range(len(lengths)), key=place) if lean else list(range(len(lengths))))


def test_mate_correlation_by_hand():
    """Mates of 1 2 | 3 3 have lengths 2 1 3 3; who is alone has none."""
    expected = np.corrcoef([1, 2, 3, 3], [2, 1, 3, 3])[0, 1]
    assert mate_correlation(int32([1, 2, 3, 3]), np.array([0, 0, 1, 1]), 6) == pytest.approx(expected, abs=1e-3)
    with_one_alone = mate_correlation(int32([6, 3, 2, 3, 1]), np.array([2, 1, 0, 1, 0]), 6)
    assert with_one_alone == pytest.approx(expected, abs=1e-3)
    assert mate_correlation(int32([2, 2, 2]), np.array([0, 0, 1]), 6) == 0.0
    assert mate_correlation(int32([2, 3]), np.array([0, 1]), 6) == 0.0


@PROPERTY
@given(
    lengths=st.lists(st.integers(1, 4000), min_size=60, max_size=300),
    num_packs=st.integers(5, 40),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1, 1 << 15]),
)
def test_mate_correlation_equals_numpy(lengths, num_packs, seed, scale):
    """In integers, so that another machine does not choose another lean; also with a capacity of 2^31."""
    lengths = np.array(lengths, dtype=np.int64) * scale
    pack_of = np.random.default_rng(seed).permutation(np.arange(len(lengths)) % num_packs)
    mates = [np.delete(lengths, each)[np.delete(pack_of == pack_of[each], each)] for each in range(len(lengths))]
    pairs = [(length, found.mean()) for length, found in zip(lengths, mates, strict=True) if len(found)]
    own, mean = np.array(pairs).T
    capacity = int(np.bincount(pack_of, weights=lengths).max())
    expected = 0.0 if np.ptp(own) == 0 or np.ptp(mean) == 0 else np.corrcoef(own, mean)[0, 1]
    assert mate_correlation(lengths.astype(np.int32), pack_of, capacity) == pytest.approx(expected, abs=0.05)


def found(correlation, packs=lambda lean: 1000):
    """The lean, and which ones were tried."""
    tried = []

    def attempt(lean):
        tried.append(lean)
        return Trial(correlation(lean), round(packs(lean)))

    return find_lean(attempt), tried


def rising(bottom, top, bend, lean):
    return bottom + (top - bottom) * (lean / PARTS) ** bend


@PROPERTY
@given(bottom=st.floats(-1, -TOO_FAR - 0.001), top=st.floats(0.2, 1), bend=st.floats(0.5, 2))
def test_the_lean_is_where_the_correlation_is_near_zero(bottom, top, bend):
    """With few trials."""

    def correlation(lean):
        return rising(bottom, top, bend, lean)

    lean, tried = found(correlation)
    assert len(tried) == len(set(tried)) <= 1 + len(LEANS) + 3
    if any(correlation(trial) >= AIM - NEAR for trial in tried):  # the top of the ladder may be too low
        assert lean > 0
    assert lean == 0 or abs(correlation(lean)) < 0.05


def test_nothing_is_gained_where_the_order_may_be_random():
    assert found(lambda lean: 0.001 - TOO_FAR) == (0, [0])


def test_nothing_is_gained_where_no_lean_is_enough():
    """Lengths of 20 and 1,800: any pack that holds both is unlike, so half way would cost packs for nothing."""
    assert found(lambda lean: -0.9 + lean / 2000) == (0, [0, *LEANS])


@pytest.mark.parametrize(("price", "leans"), [(0.8 * CHEAP, True), (1.2 * CHEAP, False)])
def test_a_lean_is_cheap_or_the_order_stays_random(price, leans):
    """Uniform lengths: a lean would take 9 % more packs."""
    lean, _ = found(lambda lean: rising(-0.6, 0.6, 1, lean), lambda lean: 100_000 * (1 + price * lean / 512))
    assert (lean > 0) is leans
