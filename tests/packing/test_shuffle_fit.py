"""shuffle-fit: held to slow twins, dense, and without a correlation between the lengths of pack mates."""

import importlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_problems import check, full, int32, problems, run, slow_decreasing

from packcli.packing.strategies import STRATEGIES, reference
from packcli.packing.strategies.patterns import Packs, binding_limit
from packcli.packing.strategies.shuffle_fit.fit import (
    FEW_PER_PACK,
    FILLER_SHARE,
    FILLERS_PER_OPEN,
    LUMPS_PER_PACK,
    MUCH_OPEN,
    ROUNDS,
    _lump_ends,
    _tightest,
)
from packcli.seeds import derive, permutation, random_uint64

shuffle_fit = importlib.import_module(
    "packcli.packing.strategies.shuffle_fit.fit"
)  # the package has the function by that name

PROPERTY = settings(deadline=None, derandomize=True, max_examples=30)
TWIN = settings(PROPERTY, max_examples=100)
seeds = st.integers(0, 2**64 - 1)


@st.composite
def short_problems(draw):
    """Ten documents and more fill a pack."""
    capacity = draw(st.integers(20, 40))
    return draw(st.lists(st.integers(1, 4), min_size=10, max_size=60)), capacity


def slow_tightest(items, rooms):
    """Longest first, each into the smallest room left that is enough; of equal rooms the last."""
    found, free = [-1] * len(items), set(range(len(rooms)))
    for item in sorted(range(len(items)), key=lambda each: -items[each]):
        fitting = [room for room in free if rooms[room] >= items[item]]
        if fitting:
            found[item] = min(fitting, key=lambda room: (rooms[room], -room))
            free.remove(found[item])
    return found


def test_tightest_by_hand():
    """The example of the docstring: items 5 3 3 and rooms 6 4 2; the second 3 finds only the 2."""
    assert slow_tightest([5, 3, 3], [6, 4, 2]) == [0, 1, -1]
    assert _tightest(np.array([5, 3, 3]), np.array([6, 4, 2]), 8).tolist() == [0, 1, -1]
    assert _tightest(np.array([], dtype=np.int64), np.array([3]), 8).tolist() == []
    assert _tightest(np.array([3]), np.array([], dtype=np.int64), 8).tolist() == [-1]


@settings(TWIN, max_examples=300)
@given(
    items=st.lists(st.integers(1, 12), max_size=15),
    rooms=st.lists(st.integers(0, 12), max_size=15),
    scale=st.sampled_from([1, 2**12, 2**20]),
)
def test_tightest_equals_its_twin(items, rooms, scale):
    """A wrong match is a pack over capacity, or room left open. Keys over 2^16 take a second pass of the sort."""
    found = _tightest(np.array(items, dtype=np.int64) * scale, np.array(rooms, dtype=np.int64) * scale, 12 * scale)
    assert found.tolist() == slow_tightest(items, rooms)


def slow_in_turn(in_line, capacity, max_docs):
    """The packs of next fit before the filler, as lists of places; None where it would leave much open."""
    if sum(in_line) * FEW_PER_PACK > len(in_line) * capacity:
        return None
    packs = reference.next_fit(in_line, capacity)
    whole = packs[:-1]
    tokens = sum(in_line[place] for pack in whole for place in pack)
    open_share = 1.0 - tokens / (len(whole) * capacity) if whole else 0.0
    if open_share > MUCH_OPEN:
        return None
    packs = reference.next_fit(in_line, capacity, max_docs)
    return packs[: int(len(packs) * (1.0 - FILLERS_PER_OPEN[0] * open_share))]


def slow_block(laid, capacity, max_docs):
    """Best fit in rounds, of lumps."""
    lumps = slow_lumps(laid, 0 if max_docs else capacity // LUMPS_PER_PACK)
    size = [sum(laid[place] for place in lump) for lump in lumps]
    packs = []
    for part in range(ROUNDS):
        first, last = (len(lumps) * edge // ROUNDS for edge in (part, part + 1))
        room = [capacity - sum(laid[place] for place in pack) for pack in packs]
        can_take = [
            pack
            for pack in range(len(packs))
            if room[pack] >= min(size) and not (max_docs and len(packs[pack]) >= max_docs)
        ]
        found = slow_tightest(size[first:last], [room[pack] for pack in can_take])
        for lump, where in zip(lumps[first:last], found, strict=True):
            if where >= 0:
                packs[can_take[where]] += lump
            else:
                packs.append(list(lump))
    return packs


def slow_lumps(laid, size):
    """Documents whose tokens all lie between the same two multiples of the size, one behind the other."""
    lumps, cells, begin = [], [], 0
    for place, length in enumerate(laid):
        cell = {token // size for token in range(begin, begin + length)} if size else {begin}
        if lumps and len(cell) == 1 and cell == cells[-1]:
            lumps[-1].append(place)
        else:
            lumps.append([place])
        cells.append(cell)
        begin += length
    return lumps


def test_lumps_by_hand():
    """The example of the docstring: what a rule cuts stands alone."""
    assert slow_lumps([1, 1, 3, 1, 1], 4) == [[0, 1], [2], [3, 4]]
    assert _lump_ends(int32([1, 1, 3, 1, 1]), 4).tolist() == [2, 3, 5]
    assert _lump_ends(int32([1, 1, 3, 1, 1]), 0).tolist() == [1, 2, 3, 4, 5]
    assert _lump_ends(int32([]), 4).tolist() == []


@PROPERTY
@given(lengths=st.lists(st.integers(1, 12), max_size=40), size=st.integers(1, 15))
def test_lumps_equal_their_twin(lengths, size):
    """A lump over its size could be over the capacity."""
    lumps = slow_lumps(lengths, size)
    assert _lump_ends(int32(lengths), size).tolist() == np.cumsum(list(map(len, lumps))).tolist()
    assert all(len(lump) == 1 or sum(lengths[place] for place in lump) <= size for lump in lumps)


def is_filled_up(packs, laid, in_line, capacity, max_docs):
    """The packs begin with what was laid, exactly; the rest stands in them by best-fit decreasing."""
    assert [pack[: len(first)] for pack, first in zip(packs, laid, strict=False)] == laid
    begun = sorted(laid, key=lambda pack: (len(pack) if max_docs else 0, sum(in_line[place] for place in pack)))
    assert full(packs, in_line) == full(slow_decreasing(in_line, capacity, max_docs, begun), in_line)


@settings(TWIN, max_examples=200)
@given(
    problem=problems() | short_problems(), max_docs=st.integers(0, 5), seed=seeds, block=st.sampled_from([8, 1 << 18])
)
def test_shuffle_fit_lays_documents_like_its_twin(problem, max_docs, seed, block):
    """By next fit, or block after block by best fit."""
    lengths, capacity = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle_fit, "BLOCK", block)
        packs = run("shuffle-fit", lengths, capacity, max_docs=max_docs, seed=seed)
    max_docs = binding_limit(np.bincount(lengths, minlength=capacity + 1), capacity, max_docs)
    shuffled = permutation(len(lengths), derive(seed, 1))
    place_of = np.argsort(shuffled).tolist()
    packs = [[place_of[segment] for segment in pack] for pack in packs]
    in_line = [lengths[segment] for segment in shuffled]
    in_turn = slow_in_turn(in_line, capacity, max_docs)
    if in_turn is not None:
        is_filled_up(packs, in_turn, in_line, capacity, max_docs)
        return
    num_blocks = max(1, round(len(in_line) / block))
    edges = [len(in_line) * each // num_blocks for each in range(num_blocks + 1)]
    for first, last in itertools.pairwise(edges):
        here = [[place - first for place in pack] for pack in packs if first <= pack[0] < last]
        in_block = in_line[first:last]
        laid = slow_block(in_block[: int(len(in_block) * (1.0 - FILLER_SHARE))], capacity, max_docs)
        is_filled_up(here, laid, in_block, capacity, max_docs)


def mate_correlation(packs, lengths):
    """Correlation of the length of a segment with the mean length of its pack mates."""
    total = np.add.reduceat(lengths[packs.order].astype(np.int64), packs.pack_offsets[:-1])
    count = np.diff(packs.pack_offsets)
    own = lengths[packs.order].astype(np.float64)
    mates = (np.repeat(total, count) - own) / np.maximum(np.repeat(count, count) - 1, 1)
    has_mates = np.repeat(count > 1, count)
    assert has_mates.sum() > len(lengths) / 2
    return float(np.corrcoef(own[has_mates], mates[has_mates])[0, 1])


def test_mate_correlation_by_hand():
    """Mates of 1 2 | 3 3 have lengths 2 1 3 3."""
    packs = Packs(np.array([0, 1, 2, 3]), np.array([0, 2, 4]))
    assert mate_correlation(packs, int32([1, 2, 3, 3])) == pytest.approx(np.corrcoef([1, 2, 3, 3], [2, 1, 3, 3])[0, 1])


def exponential(count, mean, seed, capacity):
    """Lengths in 1..capacity, as those of documents."""
    uniform = random_uint64(count, seed).astype(np.float64) / 2.0**64
    return np.clip(-mean * np.log(1 - uniform), 1, capacity).astype(np.int32)


@pytest.mark.parametrize("max_docs", [0, 14])
def test_shuffle_fit_mixes_long_and_short(max_docs):
    """The reason to have it: best-fit puts alike with alike."""
    lengths = exponential(10_000, 120, 4, 2048)
    best = mate_correlation(STRATEGIES["best-fit"].function(lengths, 2048, max_docs=max_docs), lengths)
    found = [
        STRATEGIES["shuffle-fit"].function(lengths, 2048, max_docs=max_docs, seed=seed, effort="fast")
        for seed in range(5)
    ]
    shuffled = np.mean([mate_correlation(packs, lengths) for packs in found])
    utilisation = [lengths.sum() / 2048 / (len(packs.pack_offsets) - 1) for packs in found]
    if max_docs:  # the limit binds: it is what keeps packs part-filled
        assert all(np.diff(packs.pack_offsets).max() == max_docs for packs in found)
        return
    assert best > 0.5
    assert abs(shuffled) < 0.05
    assert min(utilisation) > 0.99


def uniform(count, seed):
    return (random_uint64(count, seed) % np.uint64(2048)).astype(np.int32) + np.int32(1)


@pytest.mark.parametrize(
    ("lengths", "density", "effort"),
    [(exponential(10_000, 1200, 5, 2048), 0.99, "normal"), (uniform(10_000, 5), 0.98, "fast")],
)
def test_shuffle_fit_is_dense_on_long_documents(lengths, density, effort):
    """A pack holds two documents: next fit would leave a fourth of it open."""
    packs = STRATEGIES["shuffle-fit"].function(lengths, 2048, seed=3, effort=effort)
    check("shuffle-fit", lengths, 2048, packs)
    assert lengths.sum() / 2048 / (len(packs.pack_offsets) - 1) > density
    assert lengths.sum() / 2048 / (len(STRATEGIES["next-fit"].function(lengths, 2048).pack_offsets) - 1) < 0.8


def lognormal(count, median, seed):
    """Box and Muller's normal deviates, of sigma 1."""
    first, second = random_uint64(2 * count, seed).astype(np.float64).reshape(2, count) / 2.0**64
    normal = np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)
    return np.clip(median * np.exp(normal), 1, 2048).astype(np.int32)


def bimodal(count, seed):
    """70 % around 200, 30 % around 1,500."""
    choice = random_uint64(count, seed) % np.uint64(10) < 7
    spread = lognormal(count, 1000, seed + 1) / 1000
    return np.clip(np.where(choice, 200, 1500) * spread**0.15, 1, 2048).astype(np.int32)


@pytest.mark.parametrize(
    ("lengths", "density", "at_random", "leans"),
    [
        (lognormal(20_000, 330, 6), 0.994, -0.25, True),
        (lognormal(20_000, 600, 6), 0.995, -0.5, True),
        (uniform(20_000, 6), 0.98, -0.8, False),
        (bimodal(20_000, 6), 0.94, -0.65, False),
    ],
)
def test_shuffle_fit_leaves_lengths_of_mates_uncorrelated_where_that_is_cheap(lengths, density, at_random, leans):
    """Two to four documents a pack: at random a long one always stands with short ones. Of uniform lengths, or of two
    kinds of documents, a lean would cost more than 1 % of the packs: they stay in a random order."""

    def correlations(effort):
        for seed in range(3):
            packs = STRATEGIES["shuffle-fit"].function(lengths, 2048, seed=seed, effort=effort)
            check("shuffle-fit", lengths, 2048, packs)
            assert lengths.sum() / 2048 / (len(packs.pack_offsets) - 1) > density
            assert bool(packs.found_by) is (leans and effort == "normal")
            yield mate_correlation(packs, lengths)

    assert max(correlations("fast")) < at_random
    normal = list(correlations("normal"))
    assert max(map(abs, normal)) < 0.05 if leans else max(normal) < at_random


def test_shuffle_fit_takes_less_filler_where_mates_would_be_alike():
    """A few thousand documents, a dozen a pack: the filler is what makes them alike."""
    lengths = (140 * (lognormal(7_000, 500, 2) / 500) ** 0.45).astype(np.int32)
    plans = {
        effort: [STRATEGIES["shuffle-fit"].function(lengths, 2048, seed=seed, effort=effort) for seed in range(12)]
        for effort in ("normal", "fast")
    }
    found = {effort: [mate_correlation(packs, lengths) for packs in plans[effort]] for effort in plans}
    assert max(found["normal"]) < 0.05 < max(found["fast"])
    same = sum(np.array_equal(*(packs.order for packs in pair)) for pair in zip(*plans.values(), strict=True))
    assert 0 < same < 12  # where they are not alike the filler stays
