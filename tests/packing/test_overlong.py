"""Overlong policies: without these tests the end of a long document could vanish, double, or stay too long."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.config.choices import OVERLONG
from packcli.packing import OverlongDocumentError, kept_lengths, split_documents
from packcli.packing.overlong import cut_stream

PROPERTY = settings(deadline=None, derandomize=True, max_examples=200)
document_lengths = st.lists(st.integers(0, 30), max_size=12)
capacities = st.integers(1, 12)


def array(lengths):
    return np.array(lengths, dtype=np.int64)


def rows(segments):
    """(document, start, length) of each segment."""
    return list(zip(segments.doc.tolist(), segments.start.tolist(), segments.length.tolist(), strict=True))


def slow_split(lengths, max_len):
    return [
        (doc, start, min(max_len, length - start))
        for doc, length in enumerate(lengths)
        for start in range(0, length, max_len)
    ]


def slow_cut(lengths, max_len):
    """One token at a time, a new segment wherever a document or a pack begins."""
    stream = [(doc, position) for doc, length in enumerate(lengths) for position in range(length)]
    segments = []
    for index, (doc, position) in enumerate(stream):
        if position == 0 or index % max_len == 0:
            segments.append([doc, position, 0])
        segments[-1][2] += 1
    return [tuple(segment) for segment in segments]


# The example of the module's docstring: L = 4, documents of 3, 9 and 4 tokens.


@pytest.mark.parametrize(
    ("policy", "kept", "segments"),
    [
        ("split", [3, 9, 4], [(0, 0, 3), (1, 0, 4), (1, 4, 4), (1, 8, 1), (2, 0, 4)]),
        ("truncate", [3, 4, 4], [(0, 0, 3), (1, 0, 4), (2, 0, 4)]),
        ("drop", [3, 0, 4], [(0, 0, 3), (2, 0, 4)]),
    ],
)
def test_policies_by_hand(policy, kept, segments):
    lengths = array([3, 9, 4])
    found = kept_lengths(lengths, 4, policy)
    assert found.tolist() == kept
    assert rows(split_documents(found, 4)) == segments
    assert lengths.tolist() == [3, 9, 4]  # the report still needs them


def test_policy_error_names_the_first_document_that_is_too_long():
    with pytest.raises(OverlongDocumentError, match="document 1 has 9 tokens") as caught:
        kept_lengths(array([3, 9, 4, 10]), 4, "error")
    assert (caught.value.document, caught.value.length) == (1, 9)


def test_policy_error_lets_documents_of_exactly_max_len_pass():
    assert kept_lengths(array([3, 4, 0]), 4, "error").tolist() == [3, 4, 0]


def test_an_overlong_document_error_survives_the_way_from_a_worker():
    again = pickle.loads(pickle.dumps(OverlongDocumentError(3, 9)))
    assert (again.document, again.length, str(again)) == (3, 9, "document 3 has 9 tokens")


def test_cut_stream_by_hand():
    """The example of the docstring: 3 1 | 4 | 4 | 4, document 1 gives 1, 4 and 4 tokens."""
    segments = cut_stream(array([3, 9, 4]), 4)
    assert rows(segments) == [(0, 0, 3), (1, 0, 1), (1, 1, 4), (1, 5, 4), (2, 0, 4)]


def test_empty_documents_give_no_segment_and_move_no_other():
    """A shift by one here gives every later token to the wrong document."""
    assert rows(cut_stream(array([0, 0, 3, 0, 2, 0]), 4)) == [(2, 0, 3), (4, 0, 1), (4, 1, 1)]
    assert rows(split_documents(array([0, 0, 5, 0, 2, 0]), 4)) == [(2, 0, 4), (2, 4, 1), (4, 0, 2)]


@pytest.mark.parametrize("cut", [split_documents, cut_stream])
@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]], ids=str)
def test_no_tokens_no_segments(cut, lengths):
    segments = cut(array(lengths), 4)
    assert len(segments) == 0
    assert (segments.doc.dtype, segments.start.dtype, segments.length.dtype) == (np.int64, np.int64, np.int32)


@pytest.mark.parametrize("cut", [split_documents, cut_stream])
def test_positions_past_two_to_the_31_do_not_wrap(cut):
    """A unit of one huge document: starts are counted in int64."""
    segments = cut(array([2**33 + 1]), 2**24)
    assert len(segments) == 2**9 + 1
    assert (segments.start[-1], segments.length[-1]) == (2**33, 1)
    assert segments.length.sum(dtype=np.int64) == 2**33 + 1


@PROPERTY
@given(lengths=document_lengths, max_len=capacities)
def test_split_documents_equals_its_slow_twin(lengths, max_len):
    segments = split_documents(array(lengths), max_len)
    assert rows(segments) == slow_split(lengths, max_len)
    assert (segments.doc.dtype, segments.start.dtype, segments.length.dtype) == (np.int64, np.int64, np.int32)


@PROPERTY
@given(lengths=document_lengths, max_len=capacities)
def test_cut_stream_equals_its_slow_twin(lengths, max_len):
    segments = cut_stream(array(lengths), max_len)
    assert rows(segments) == slow_cut(lengths, max_len)
    assert (segments.doc.dtype, segments.start.dtype, segments.length.dtype) == (np.int64, np.int64, np.int32)


@pytest.mark.parametrize("policy", OVERLONG)
@PROPERTY
@given(lengths=document_lengths, max_len=capacities)
def test_what_each_policy_keeps(policy, lengths, max_len):
    """A new policy must say here what it keeps."""
    keeps = {
        "split": lambda length: length,
        "truncate": lambda length: min(length, max_len),
        "drop": lambda length: 0 if length > max_len else length,
        "error": lambda length: length,
    }
    too_long = [doc for doc, length in enumerate(lengths) if length > max_len]
    if policy == "error" and too_long:
        with pytest.raises(OverlongDocumentError) as caught:
            kept_lengths(array(lengths), max_len, policy)
        assert (caught.value.document, caught.value.length) == (too_long[0], lengths[too_long[0]])
    else:
        kept = kept_lengths(array(lengths), max_len, policy)
        assert kept.tolist() == [keeps[policy](length) for length in lengths]
        assert kept.dtype == np.int64


def test_whole_documents_take_no_memory_but_their_lengths():
    """100 M documents must fit: where every segment is a document, doc and start are not stored, lengths not copied."""
    lengths = np.array([3, 4, 1], dtype=np.int32)
    segments = split_documents(kept_lengths(lengths, 4, "split"), 4)
    assert segments.places is None
    assert segments.length is lengths
    assert rows(segments) == [(0, 0, 3), (1, 0, 4), (2, 0, 1)]
    assert (segments.doc.dtype, segments.start.dtype) == (np.int64, np.int64)
    for others in ([3, 5, 1], [3, 0, 1]):  # one is cut, one is empty
        assert split_documents(array(others), 4).places is not None


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@PROPERTY
@given(lengths=document_lengths, max_len=capacities)
def test_lengths_of_either_width_give_the_same_segments(dtype, lengths, max_len):
    assert rows(split_documents(np.array(lengths, dtype=dtype), max_len)) == slow_split(lengths, max_len)
    assert rows(cut_stream(np.array(lengths, dtype=dtype), max_len)) == slow_cut(lengths, max_len)
    assert kept_lengths(np.array(lengths, dtype=dtype), max_len, "truncate").dtype == dtype


def test_a_stream_of_int32_lengths_past_two_to_the_31_does_not_wrap():
    """The lengths are small, their sum is not."""
    lengths = np.full(2**8 + 1, 2**24, dtype=np.int32)
    for segments in (cut_stream(lengths, 2**24), split_documents(lengths, 2**23)):
        assert segments.length.sum(dtype=np.int64) == 2**32 + 2**24
        assert segments.start.min() >= 0
        assert segments.doc[-1] == 2**8
