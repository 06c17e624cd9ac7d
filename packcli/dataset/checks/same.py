"""Two outputs side by side: the same rows, and where not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from packcli.dataset.checks.files import Problem, check_files
from packcli.dataset.paths import splits_of
from packcli.dataset.reader import PackedDataset
from packcli.dataset.schema import run_schema
from packcli.dataset.shards import read_shard
from packcli.packing import Lists, PackBatch, Sources
from packcli.storage import Location

SHOWN = 20
"""Rows that are named one by one."""


def check_same(one: Location, other: Location) -> list[Problem]:
    """Compares two sound outputs: by the sha256 of their shards, else row by row, in the columns that both have."""
    left, right = (_packed(each) for each in (one, other))
    problems: list[Problem] = []
    columns = [name for name in left.config.written_columns if name in right.config.written_columns]
    if left.config.written_columns != right.config.written_columns:
        odd = sorted(set(left.config.written_columns) ^ set(right.config.written_columns))
        problems.append(Problem("", f"only one of the two has the columns {', '.join(odd)}; the others were compared"))
    names = sorted({*splits_of(left.config), *splits_of(right.config)})
    for split in names:
        hashes = [
            [(each["sha256"], each["first_source"]) for each in packed.manifest["splits"].get(split, [])]
            for packed in (left, right)
        ]
        if hashes[0] != hashes[1]:
            problems += _compare(split, _rows(one, left, split), _rows(other, right, split), columns)
    return problems


def _packed(root: Location) -> PackedDataset:
    packed, _ = check_files(root)
    if packed is None:
        raise AssertionError("only sound outputs are compared")
    return packed


def _rows(root: Location, packed: PackedDataset, split: str) -> Iterator[tuple[PackBatch, int]]:
    """Every row of a split: its batch, and its number in the batch."""
    schema = run_schema(packed.config, packed.tokenizer)
    for sidecar in packed.sidecars:
        if split in sidecar.shards:
            info = sidecar.shards[split]
            for batch in read_shard(root / info.file, schema, info.first_source):
                for row in range(batch.num_rows):
                    yield batch, row


def _compare(
    split: str, left: Iterator[tuple[PackBatch, int]], right: Iterator[tuple[PackBatch, int]], columns: list[str]
) -> list[Problem]:
    problems: list[Problem] = []
    num_different = num_left = num_right = 0
    for number, (one, other) in enumerate(itertools.zip_longest(left, right)):
        num_left += one is not None
        num_right += other is not None
        if one is None or other is None:
            continue
        different = [
            name for name in columns if not _equal(getattr(one[0], name), one[1], getattr(other[0], name), other[1])
        ]
        if different:
            num_different += 1
            if num_different <= SHOWN:
                problems.append(Problem("", f"{split} row {number} differs in {', '.join(different)}"))
    if num_different > SHOWN:
        problems.append(Problem("", f"{split}: {num_different:,} rows differ in all"))
    if num_left != num_right:
        problems.append(Problem("", f"{split} has {num_left:,} rows here and {num_right:,} there"))
    return problems


def _equal(one: Lists | Sources, row: int, other: Lists | Sources, other_row: int) -> bool:
    return all(
        np.array_equal(left, right) for left, right in zip(_values(one, row), _values(other, other_row), strict=True)
    )


def _values(column: Lists | Sources, row: int) -> list[Any]:
    begin, end = int(column.offsets[row]), int(column.offsets[row + 1])
    arrays = (column.values,) if isinstance(column, Lists) else (column.source, column.row, column.start, column.end)
    return [array[begin:end] for array in arrays]
