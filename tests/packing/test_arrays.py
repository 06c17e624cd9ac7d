"""Where lists lie in an array: everything that packs and reads counts on it."""

import numpy as np
import pytest

from packcli.packing import offsets, ranges


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_offsets_begin_with_zero_and_end_with_the_sum(kind):
    found = offsets(np.array([3, 0, 2], dtype=kind))
    assert found.tolist() == [0, 3, 3, 5]
    assert found.dtype == np.int64
    assert offsets(np.array([], dtype=kind)).tolist() == [0]
    assert offsets(np.array([True, False, True])).tolist() == [0, 1, 1, 2]


def test_offsets_do_not_overflow():
    assert offsets(np.full(4, 2**31 - 1, dtype=np.int32))[-1] == 4 * (2**31 - 1)


def test_ranges_follow_one_another():
    assert ranges(np.array([7, 0, 2]), np.array([3, 0, 2])).tolist() == [7, 8, 9, 2, 3]
    assert ranges(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist() == []
