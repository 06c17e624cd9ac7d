"""packcli.stream_packs: windows, hooks, what is dropped, keys, and going on in mid stream."""

import itertools
import json
import random

import numpy as np
import pytest

import packcli
from packcli import errors

MAX_LEN = 64


def samples(count=400, seed=0):
    lengths = random.Random(seed)
    return [{"input_ids": [at * 100 + token for token in range(lengths.randint(1, 50))]} for at in range(count)]


def windows_of(stream, size):
    """The windows of megatron-energon: tumbling, the last one shorter."""
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def test_windows_and_drops_are_those_of_energon():
    """Probe: buffer 5, 13 samples; select sees 0..4, 5..9, 10..12; what it does not return is gone; an empty group
    is no pack; a packer may give several packs for a group."""
    stream = [f"s{at}" for at in range(13)]
    seen = []

    def select(window):
        seen.append(list(window))
        return [window[:2], [], window[2:4]]

    def pack(group):
        yield "+".join(group)
        if len(group) == 2:
            yield "again"

    packer = packcli.stream_packs(iter(stream), MAX_LEN, buffer_size=5, select=select, pack=pack)
    packs = list(packer)
    assert seen == windows_of(stream, 5)
    expected = [group for window in windows_of(stream, 5) for group in (window[:2], window[2:4])]
    assert [each.value for each in packs if each.part == 0] == ["+".join(group) for group in expected]
    assert [each.value for each in packs if each.part == 1] == ["again"] * 5
    assert [each.sources for each in packs if each.part == 0] == [(0, 1), (2, 3), (5, 6), (7, 8), (10, 11), (12,)]
    assert packer.dropped == (4, 9)
    assert packer.num_dropped == 2


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("buffer_size", [1, 7, 50, 1000])
def test_the_default_hooks_lose_nothing(carry, buffer_size):
    stream = samples()
    packer = packcli.stream_packs(stream, MAX_LEN, buffer_size=buffer_size, carry=carry)
    packs = list(packer)
    assert sorted(at for each in packs for at in each.sources) == list(range(400))
    assert packer.dropped == ()
    for each in packs:
        row = each.value
        lengths = [len(stream[at]["input_ids"]) for at in each.sources]
        ids = [token for at in each.sources for token in stream[at]["input_ids"]]
        assert row["input_ids"].tolist() == ids + [0] * (MAX_LEN - len(ids))
        assert row["seq_lengths"].sum() == len(row["position_ids"]) == MAX_LEN
        assert row["seq_lengths"][: len(lengths)].tolist() == lengths
        firsts = np.cumsum([0, *lengths[:-1]])
        assert set(row["labels"][firsts]) == set(row["labels"][len(ids) :]) | {-100} == {-100}
        assert (row["labels"] != -100).sum() == len(ids) - len(lengths)
        assert (row["position_ids"][firsts] == 0).all()


def test_carrying_leaves_less_padding():
    """Of windows of 50, emptied each time, every one ends with packs half full."""
    counts = [len(list(packcli.stream_packs(samples(2000), MAX_LEN, buffer_size=50, carry=on))) for on in (False, True)]
    assert counts[1] < counts[0]


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("carry", [False, True])
def test_it_goes_on_anywhere(kind, carry):
    """The tail is the same after any number of packs, and the state is plain numbers."""
    moments = random.Random(1)

    def select(window):
        return [window[at : at + 3] for at in range(0, len(window) - 2, 3)]

    def pack(group):
        yield [sample["input_ids"][0] for sample in group]
        yield len(group)

    for hooks in ({}, {"select": select, "pack": pack}):
        settings = {"buffer_size": 20, "carry": carry, **hooks}
        packer = packcli.stream_packs(kind(samples(150)), MAX_LEN, **settings)
        whole = [(repr(each.value), each.index, each.part, each.sources) for each in packer]
        assert len(whole) > 40
        for _ in range(20):
            stop = moments.randrange(len(whole) + 1)
            first = packcli.stream_packs(kind(samples(150)), MAX_LEN, **settings)
            assert len(list(itertools.islice(first, stop))) == stop
            state = json.loads(json.dumps(first.state_dict()))
            second = packcli.stream_packs(kind(samples(150)), MAX_LEN, **settings)
            second.load_state_dict(state)
            tail = [(repr(each.value), each.index, each.part, each.sources) for each in second]
            assert tail == whole[stop:]
            assert second.dropped == packer.dropped


def test_a_pack_is_restored_from_its_key():
    stream = samples(60)
    packs = list(packcli.stream_packs(stream, MAX_LEN, buffer_size=20))
    for again in (stream, iter(stream)):
        packer = packcli.stream_packs(again, MAX_LEN, buffer_size=20)
        key = json.loads(json.dumps({"sources": packs[7].sources, "part": 0}))
        restored = packer.restore(key)
        assert {name: value.tolist() for name, value in restored.items()} == {
            name: value.tolist() for name, value in packs[7].value.items()
        }


@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize("carry", [False, True])
def test_workers_share_the_same_packs(num_workers, carry):
    """Taken in turns, as a data loader does, they give the order of one worker."""
    settings = {"buffer_size": 20, "carry": carry}
    alone = [each.sources for each in packcli.stream_packs(samples(), MAX_LEN, **settings)]
    shares = [
        [each.sources for each in packcli.stream_packs(samples(), MAX_LEN, workers=(at, num_workers), **settings)]
        for at in range(num_workers)
    ]
    turns = [each for turn in itertools.zip_longest(*shares) for each in turn if each is not None]
    assert turns == alone


def test_mistakes_are_named():
    with pytest.raises(errors.UsageError, match="at least one sample"):
        packcli.stream_packs([], 8, buffer_size=0)
    with pytest.raises(errors.UsageError, match="workers"):
        packcli.stream_packs([], 8, workers=(2, 2))
    with pytest.raises(errors.UsageError, match="9 tokens does not fit a pack of 8"):
        list(packcli.stream_packs([[1] * 9], 8))
    with pytest.raises(errors.UsageError, match="not in the window"):
        list(packcli.stream_packs([[1]], 8, select=lambda window: [[[2]]]))
    with pytest.raises(errors.UsageError, match="or one twice"):
        list(packcli.stream_packs([[1]], 8, select=lambda window: [window, window]))
    with pytest.raises(errors.UsageError, match="does not fit a pack of 3"):
        list(packcli.stream_packs([[1, 2], [3, 4]], 3, select=lambda window: [window]))
    with pytest.raises(errors.UsageError, match="the window is full"):
        list(packcli.stream_packs([[1]] * 9, 8, buffer_size=4, carry=True, select=lambda window: []))
    state = packcli.stream_packs([], 8, buffer_size=4).state_dict()
    with pytest.raises(errors.MismatchError, match="buffer_size=4"):
        packcli.stream_packs([], 8, buffer_size=5).load_state_dict(state)
    packer = packcli.stream_packs(iter([[1]]), 8, buffer_size=4)
    packer.load_state_dict({**state, "num_read": 4, "groups": [[3]]})
    with pytest.raises(errors.MismatchError, match="the same stream"):
        list(packer)
    assert list(packcli.stream_packs([], 8)) == []
    empty = packcli.stream_packs([[], [1]], 8)
    assert [each.sources for each in empty] == [(1,)]
    assert empty.dropped == (0,)
