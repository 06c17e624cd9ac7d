"""TokenBatch and TokenBuffer: without these tests a token could be lost, moved or counted wrong before it is packed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.config.choices import MAX_TOKEN_ID
from packcli.packing import TokenBatch, TokenBuffer


def flat(docs):
    """Documents as lists -> (ids, offsets), as an engine gives them."""
    ids = np.array([token for doc in docs for token in doc], dtype=np.uint32)
    offsets = np.cumsum([0, *map(len, docs)]).astype(np.int64)
    return ids, offsets


def documents(batch):
    """TokenBatch -> documents as lists."""
    return [batch.ids[a:b].tolist() for a, b in zip(batch.offsets[:-1], batch.offsets[1:], strict=True)]


def test_a_batch_of_three_documents_one_empty():
    batch = TokenBatch(*flat([[7, 8, 9], [], [5]]))
    assert len(batch) == 3
    assert batch.lengths.tolist() == [3, 0, 1]
    assert batch.lengths.dtype == np.int64


@pytest.mark.parametrize(
    ("special", "expected"),
    [
        ({}, [[7, 8, 9], [], [5]]),
        ({"eos": 2}, [[7, 8, 9, 2], [2], [5, 2]]),
        ({"bos": 1}, [[1, 7, 8, 9], [1], [1, 5]]),
        ({"bos": 1, "eos": 2}, [[1, 7, 8, 9, 2], [1, 2], [1, 5, 2]]),
        ({"bos": 0, "eos": 0}, [[0, 7, 8, 9, 0], [0, 0], [0, 5, 0]]),  # one token for both; and 0 is a token
    ],
    ids=str,
)
def test_bos_and_eos_by_hand(special, expected):
    buffer = TokenBuffer(**special)
    buffer.append(*flat([[7, 8, 9], []]))
    buffer.append(*flat([[5]]))
    assert buffer.num_tokens == sum(map(len, expected))
    assert buffer.num_special == 3 * len(special)
    batch = buffer.finish()
    assert documents(batch) == expected
    assert batch.ids.dtype == np.uint32
    assert batch.offsets.dtype == np.int64


def test_a_buffer_that_saw_nothing_is_a_batch_of_no_documents():
    for calls in range(3):
        buffer = TokenBuffer(bos=1, eos=2)
        for _ in range(calls):
            buffer.append(*flat([]))
        batch = buffer.finish()
        assert len(batch) == buffer.num_tokens == buffer.num_special == 0
        assert batch.ids.tolist() == []
        assert batch.offsets.tolist() == [0]
        assert batch.lengths.dtype == np.int64


def test_the_largest_id_comes_back():
    """The shards hold int32: the largest id that fits must not turn negative on the way."""
    buffer = TokenBuffer(eos=MAX_TOKEN_ID)
    buffer.append(*flat([[MAX_TOKEN_ID]]))
    batch = buffer.finish()
    assert batch.ids.view(np.int32).tolist() == [2**31 - 1, 2**31 - 1]


def test_growing_keeps_what_is_there():
    """The array is enlarged in place: 200 calls from room for 16 tokens, so it moves many times."""
    buffer = TokenBuffer(eos=0, capacity=1)
    expected = []
    for call in range(200):
        doc = list(range(call, 2 * call))
        buffer.append(*flat([doc]))
        expected.append([*doc, 0])
    assert documents(buffer.finish()) == expected


def test_the_callers_arrays_stay_as_they_are():
    """An engine may use its arrays again for the next call; the buffer must hold its own copy."""
    ids, offsets = flat([[7, 8], [9]])
    buffer = TokenBuffer(eos=2)
    buffer.append(ids, offsets)
    assert ids.tolist() == [7, 8, 9]
    assert offsets.tolist() == [0, 2, 3]
    ids[:] = 0
    offsets[:] = 0
    assert documents(buffer.finish()) == [[7, 8, 2], [9, 2]]


tokens = st.integers(0, MAX_TOKEN_ID)
calls = st.lists(st.lists(st.lists(tokens, max_size=6), max_size=5), max_size=5)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(calls=calls, bos=st.none() | tokens, eos=st.none() | tokens, capacity=st.sampled_from([0, 1, 64]))
def test_the_buffer_equals_plain_lists(calls, bos, eos, capacity):
    buffer = TokenBuffer(bos=bos, eos=eos, capacity=capacity)
    before, after = [] if bos is None else [bos], [] if eos is None else [eos]
    expected = []
    for docs in calls:
        buffer.append(*flat(docs))
        expected += [before + doc + after for doc in docs]
        assert buffer.num_tokens == sum(map(len, expected))
        assert buffer.num_special == len(expected) * len(before + after)
    batch = buffer.finish()
    assert documents(batch) == expected
    assert len(batch) == len(expected)
    assert len(batch.ids) == batch.offsets[-1]
    assert batch.lengths.tolist() == list(map(len, expected))
