"""Chance: the order of packs is part of the bytes, so the stream of numbers may never change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.seeds import derive, hash16, permutation, random_uint64, sample_rows

PROPERTY = settings(deadline=None, derandomize=True, max_examples=30)
seeds = st.integers(0, 2**64 - 1)


def test_splitmix64_is_the_published_one():
    """The first outputs for seed 1234567 of the reference C code by Vigna."""
    assert random_uint64(5, 1234567).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert random_uint64(1, 0).tolist() == [0xE220A8397B1DCDAF]
    assert random_uint64(0, 3).tolist() == []
    assert random_uint64(3, 1).dtype == np.uint64


def test_permutations_never_change():
    assert permutation(10, 1234567).tolist() == [1, 3, 7, 0, 5, 8, 2, 6, 9, 4]
    assert permutation(0, 1).tolist() == []
    assert permutation(1, 1).tolist() == [0]
    assert permutation(3, 1).dtype == np.int64


@PROPERTY
@given(count=st.integers(0, 300), seed=seeds, same=st.booleans())
def test_permutations_are_stable_sorts_of_the_upper_bits(count, seed, same):
    """Equal keys, which no test will meet by chance, stay in order."""
    keys = random_uint64(count, seed) // np.uint64(2**62 if same else 1)
    if same:
        keys <<= np.uint64(62)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("packcli.seeds.random_uint64", lambda count, seed: keys.copy())
        found = permutation(count, seed)
    assert found.tolist() == sorted(range(count), key=lambda each: int(keys[each]) >> 32)


def test_mixed_seeds_never_change():
    assert derive() == 0
    assert derive(0) == 0xE220A8397B1DCDAF  # one step of SplitMix64 from 0
    assert derive(1, 2) == 13608149317741381227
    assert derive(2, 1) == 16171810823986729605
    assert derive(1, 2, 3) == 7702586659592502839


def test_hashes_never_change():
    """They decide which segments of one length share a pack."""
    assert hash16(4, 1234567, 3).tolist() == (random_uint64(4, derive(1234567, 3)) >> np.uint64(48)).tolist()
    assert hash16(4, 1234567, 3).tolist() == [34975, 5293, 5130, 3178]
    assert hash16(0, 1, 2).dtype == np.uint16


@PROPERTY
@given(count=st.integers(0, 300), seed=seeds)
def test_a_permutation_is_sorted_by_32_random_bits(count, seed):
    keys = random_uint64(count, seed) >> np.uint64(32)
    assert permutation(count, seed).tolist() == np.argsort(keys, kind="stable").tolist()


@PROPERTY
@given(count=st.integers(0, 200), seed=st.integers(-(2**70), 2**70))
def test_a_permutation_holds_everything_once(count, seed):
    found = permutation(count, seed)
    assert sorted(found.tolist()) == list(range(count))
    assert found.tolist() == permutation(count, seed % 2**64).tolist()


@PROPERTY
@given(count=st.integers(0, 50), more=st.integers(0, 50), seed=seeds)
def test_more_numbers_begin_with_the_fewer(count, more, seed):
    assert random_uint64(count + more, seed)[:count].tolist() == random_uint64(count, seed).tolist()


@PROPERTY
@given(parts=st.lists(st.integers(0, 5), min_size=1, max_size=4), where=st.integers(0, 3), step=st.integers(1, 9))
def test_mix_differs_when_any_part_does(parts, where, step):
    """Two units with one seed would shuffle alike."""
    other = list(parts)
    other[where % len(parts)] += step
    assert derive(*parts) != derive(*other)
    assert derive(*parts) != derive(*parts, 0)
    assert 0 <= derive(*parts) < 2**64


def test_the_sample_of_rows_never_changes():
    """`stats --sample` would measure other rows than it did, and its intervals could not be compared."""
    rows = np.arange(12)
    golden = 0x9E3779B97F4A7C15  # what SplitMix64 adds to its state before each number
    numbers = [int(random_uint64(1, (row - 1) * golden)[0]) for row in range(12)]
    assert sample_rows(rows, 0, 0.5).tolist() == [number < 2**63 for number in numbers]
    assert not sample_rows(rows, 3, 0.0).any()
    assert sample_rows(rows, 3, 1.0).all()
    many = np.arange(100_000)
    assert abs(sample_rows(many, 7, 0.1).mean() - 0.1) < 0.005
    assert (sample_rows(many, 7, 0.1) <= sample_rows(many, 7, 0.2)).all(), "a larger sample holds the smaller one"
