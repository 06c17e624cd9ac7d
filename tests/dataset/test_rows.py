"""Packed rows as matrices: the drawing of dataset.rows, from every set of columns that can tell documents apart."""

import itertools

import numpy as np
import pytest

from packcli import errors
from packcli.dataset.rows import join_batches, make_rows
from packcli.packing import Lists, PackBatch, Sources

L, PAD = 8, 1
DOCS = [[[10, 11, 12], [20, 21]], [[30, 31, 32, 33, 34, 35, 36, 37]], [[40]]]


def lists(rows):
    offsets = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int32)
    return Lists(np.array([value for row in rows for value in row], dtype=np.int32), offsets)


def column(name, ragged):
    """What a shard stores."""
    real = [sum(map(len, row)) for row in DOCS]
    tails = [0 if ragged else L - used for used in real]
    if name == "input_ids":
        return lists([[*sum(row, []), *[PAD] * tail] for row, tail in zip(DOCS, tails, strict=True)])
    if name == "labels":
        kept = [sum(([-100, *doc[1:]] for doc in row), []) for row in DOCS]
        return lists([[*row, *[-100] * tail] for row, tail in zip(kept, tails, strict=True)])
    if name == "position_ids":
        inner = [sum((list(range(len(doc))) for doc in row), []) for row in DOCS]
        return lists([[*row, *range(tail)] for row, tail in zip(inner, tails, strict=True)])
    if name == "seq_lengths":
        return lists([[*map(len, row), *([tail] if tail else [])] for row, tail in zip(DOCS, tails, strict=True)])
    lengths = [len(doc) for row in DOCS for doc in row]
    numbers = np.arange(len(lengths))
    offsets = np.append(0, np.cumsum([len(row) for row in DOCS])).astype(np.int32)
    ends = np.array(lengths, dtype=np.int32)
    return Sources(numbers.astype(np.int32), numbers, np.zeros_like(ends), ends, offsets)


def rows(names, *, ragged=False, isolate=True, needs_segments=True):
    given = {name: column(name, ragged) if name in names else None for name in ("labels", *BOUNDS)}
    batch = PackBatch(len(DOCS), column("input_ids", ragged), **given)
    return make_rows(batch, max_len=L, pad_id=PAD, isolate=isolate, ragged=ragged, needs_segments=needs_segments)


BOUNDS = ("position_ids", "seq_lengths", "sources")
SETS = [set(names) for size in (1, 2, 3) for names in itertools.combinations(BOUNDS, size)]


@pytest.mark.parametrize("names", SETS, ids=lambda names: "+".join(sorted(names)))
@pytest.mark.parametrize(("ragged", "labels"), [(False, True), (True, False), (True, True)])
def test_every_set_of_columns_gives_the_same(names, ragged, labels):
    found = rows(names | ({"labels"} if labels else set()), ragged=ragged)
    assert found.input_ids.tolist() == [
        [10, 11, 12, 20, 21, 1, 1, 1],
        [30, 31, 32, 33, 34, 35, 36, 37],
        [40, 1, 1, 1, 1, 1, 1, 1],
    ]
    assert found.labels.tolist() == [
        [-100, 11, 12, -100, 21, -100, -100, -100],
        [-100, 31, 32, 33, 34, 35, 36, 37],
        [-100] * 8,
    ]
    assert found.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2], list(range(8)), [0, 0, 1, 2, 3, 4, 5, 6]]
    assert found.segment_ids.tolist() == [[1, 1, 1, 2, 2, 0, 0, 0], [1] * 8, [1, 0, 0, 0, 0, 0, 0, 0]]
    assert found.targets.tolist() == [
        [11, 12, -100, 21, -100, -100, -100, -100],
        [31, 32, 33, 34, 35, 36, 37, -100],
        [-100] * 8,
    ]
    assert [each.tolist() for each in found.seq_lengths] == [[3, 2, 3, 8, 1, 7], [0, 3, 4, 6]]


def test_the_classic_stream_is_one_run_a_row():
    found = rows({"sources"}, isolate=False, ragged=True)
    assert found.labels[0].tolist() == [10, 11, 12, 20, 21, -100, -100, -100]
    assert found.position_ids[0].tolist() == list(range(8))
    assert found.segment_ids[0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert found.targets[0].tolist() == [11, 12, 20, 21, -100, -100, -100, -100]
    assert found.segments.length.tolist() == [3, 2, 8, 1]
    assert rows(set(), isolate=False, ragged=True).num_real.tolist() == [5, 8, 1]


def test_rows_without_boundaries_are_refused():
    with pytest.raises(errors.UsageError, match="no column tells where documents end"):
        rows({"labels"})
    assert rows({"labels"}, needs_segments=False).segments.length.tolist() == [5, 8, 1]


def test_batches_of_a_shard_are_joined():
    """Documents of a shard are put together from all of its batches."""
    batch = PackBatch(len(DOCS), *(column(name, True) for name in ("input_ids", "labels", *BOUNDS)))
    joined = join_batches([batch, batch])
    given = {"max_len": L, "pad_id": PAD, "isolate": True, "ragged": True}
    one, both = make_rows(batch, **given), make_rows(joined, **given)
    for name in ("input_ids", "labels", "position_ids", "segment_ids"):
        assert getattr(both, name).tolist() == getattr(one, name).tolist() * 2
    assert both.sources.end.tolist() == one.sources.end.tolist() * 2
    assert join_batches([batch]) is batch
