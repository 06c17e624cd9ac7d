"""packcli.pack_sequences and concatenate_and_pack: every token once, in rows of the kind that went in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import packcli
from packcli import errors
from packcli.packing.strategies import STRATEGIES

DOCUMENTED = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11, 12]]
PACKED = [[1, 2, 3, 4, 5, 0, 0, 0], [6, 7, 8, 9, 10, 11, 12, 0]]


class Tensor:
    """What this code may know of a tensor of torch; make integration-torch uses real ones."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def cpu(self):
        return self.values

    def new_tensor(self, values):
        return Tensor(values)


def test_the_documented_example():
    assert packcli.pack_sequences(DOCUMENTED, max_length=8, pad_token_id=0) == PACKED
    assert packcli.pack_sequences(DOCUMENTED[:3], 8, 0) == [PACKED[0], [6, 7, 8, 9, 0, 0, 0, 0]]
    arrays = packcli.pack_sequences([np.array(each, dtype=np.int16) for each in DOCUMENTED], 8, 0)
    assert arrays.dtype == np.int16
    assert arrays.tolist() == PACKED
    tensors = packcli.pack_sequences([Tensor(each) for each in DOCUMENTED], 8, 0)
    assert isinstance(tensors, Tensor)
    assert tensors.values.tolist() == PACKED


def test_the_documented_labels_and_masks():
    found = packcli.concatenate_and_pack(
        [[1, 2, 3], [4, 5, 6]], [[-100, 2, 3], [-100, -100, 6]], [[1, 1, 1], [1, 1, 1]], max_length=8, pad_token_id=0
    )
    assert found == (
        [[1, 2, 3, 4, 5, 6, 0, 0]],
        [[-100, 2, 3, -100, -100, 6, -100, -100]],
        [[1, 1, 1, 1, 1, 1, 0, 0]],
    )


@pytest.mark.parametrize("long", [7, 8, 9, 17])
def test_long_sequences_neither_panic_nor_vanish(long):
    """Where fast-axolotl panics (over max_length - 2), cuts, or writes a row of padding."""
    sequences = [[1, 2], list(range(10, 10 + long)), [3]]
    rows, boundaries = packcli.pack_sequences(sequences, 8, 0, return_boundaries=True)
    assert sum(len(row) - row.count(0) for row in rows) == long + 3
    pieces = [rows[each.row][each.start : each.end] for each in boundaries if each.sequence == 1]
    assert [token for piece in pieces for token in piece] == sequences[1]
    assert packcli.pack_sequences(sequences, 8, 0, overlong="drop") == (
        [[1, 2, 3, 0, 0, 0, 0, 0]] if long > 8 else packcli.pack_sequences(sequences, 8, 0)
    )


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=12), max_size=12),
    st.integers(2, 9),
    st.sampled_from(sorted(STRATEGIES)),
)
def test_boundaries_say_where_every_token_went(sequences, max_length, strategy):
    rows, boundaries = packcli.pack_sequences(sequences, max_length, 0, strategy=strategy, return_boundaries=True)
    seen = np.zeros((len(rows), max_length), dtype=int)
    found = [[None] * len(each) for each in sequences]
    for row, start, end, sequence, offset in boundaries:
        seen[row, start:end] += 1
        found[sequence][offset : offset + end - start] = rows[row][start:end]
    assert found == sequences
    assert seen.max(initial=0) <= 1
    assert not (np.array(rows).reshape(seen.shape) * (seen == 0)).any()
    labels = [[10 * token for token in each] for each in sequences]
    masks = [[1] * len(each) for each in sequences]
    again, packed_labels, packed_masks = packcli.concatenate_and_pack(
        sequences, labels, masks, max_length, 0, strategy=strategy
    )
    assert again == rows
    assert packed_labels == [[10 * token if token else -100 for token in row] for row in rows]
    assert packed_masks == seen.tolist()


def test_mistakes_are_named():
    for wrong, message in (([[1.5]], r"sequences\[0\]"), ([[1], [[2]]], r"sequences\[1\]")):
        with pytest.raises(errors.UsageError, match=message):
            packcli.pack_sequences(wrong, 8, 0)
    with pytest.raises(errors.UsageError, match="labels and input_ids differ in length: at sequence 1"):
        packcli.concatenate_and_pack([[1], [2, 3]], [[1], [2]], [[1], [1, 1]], 8, 0)
    with pytest.raises(errors.UsageError, match="1 against 2 sequences"):
        packcli.concatenate_and_pack([[1], [2]], [[1], [2]], [[1]], 8, 0)
    assert packcli.pack_sequences([], 8, 0) == []
