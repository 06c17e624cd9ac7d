"""A packed directory as a `datasets.Dataset`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from packcli import storage
from packcli.config.choices import IGNORE
from packcli.dataset import (
    MERGED,
    TRAIN,
    labels_of,
    lists_of,
    padded,
    padded_positions,
    positions_of,
    read_head,
    read_manifest,
    segments_of,
    shift_column,
)
from packcli.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import datasets


ROW_TYPES = ("auto", "torch", "numpy", "list")
"""Types of the values of a row; `auto` is torch where torch is installed, else list."""

WIDE = ("input_ids", "labels", "position_ids")
"""Columns of max_len values a row."""


def load(
    directory: str | os.PathLike[str] | storage.RemotePath, *, row_type: str = "auto"
) -> datasets.Dataset | datasets.DatasetDict:
    """Maps a packed directory: a Dataset, or a DatasetDict when it has a validation split.

    Columns that a directory lacks (such as those of --columns compact) are made on the fly out of input_ids and
    seq_lengths, and short rows are padded, so every directory trains alike. The shards stay mapped.

    Args:
        directory: An output of packcli; of a remote one the shards are fetched into a temporary directory first.
        row_type: What rows hold: "torch" int64 tensors, "numpy" int64 arrays, "list" Python lists; "auto" is torch
            where it is installed (it is imported here, unless it already is), else list. Tensors and arrays come
            without the column `sources`.

    Raises:
        OutputError: not a finished output of packcli.
        UnknownNameError: no such row_type.
    """
    if row_type not in ROW_TYPES:
        raise unknown_name("row type", row_type, ROW_TYPES)
    import datasets

    root = storage.locate(directory)
    manifest = read_head(root)
    if row_type == "auto":
        row_type = "torch" if importlib.util.find_spec("torch") else "list"
    data = datasets.load_from_disk(str(root))
    if isinstance(data, datasets.DatasetDict):
        return datasets.DatasetDict(
            {
                split: _formatted(_renumbered(each, root, manifest, split, row_type), manifest, row_type)
                for split, each in data.items()
            }
        )
    return _formatted(_renumbered(data, root, manifest, TRAIN, row_type), manifest, row_type)


def _renumbered(
    data: datasets.Dataset, root: storage.Location, manifest: Mapping[str, Any], split: str, row_type: str
) -> datasets.Dataset:
    """The rows of a merged output, with `sources` numbered as in its manifest: a shard numbers them as its member."""
    if MERGED not in manifest or row_type != "list" or "sources" not in data.column_names:
        return data
    listed = read_manifest(root)["splits"].get(split, ())
    shards = [(each["num_rows"], each["first_source"]) for each in listed]
    if not any(first for _, first in shards):
        return data
    import datasets

    table = datasets.table.InMemoryTable(shift_column(data.data.column("sources"), shards))
    names = data.column_names
    return datasets.concatenate_datasets(
        [data.remove_columns("sources"), datasets.Dataset(table)], axis=1
    ).select_columns(names)


def _formatted(data: datasets.Dataset, manifest: Mapping[str, Any], row_type: str) -> datasets.Dataset:
    import datasets

    stored = data.column_names
    shown = [name for name in (*WIDE, "seq_lengths") if name in stored]
    can_derive = "seq_lengths" in stored
    if not can_derive or (set(WIDE) <= set(stored) and not manifest["config"].get("ragged")):
        return data if row_type == "list" else data.with_format(row_type, columns=shown)
    # A column that is to be made starts as a second name for a stored one, at no cost: trainers that look for columns
    # by name find it, and those that remove seq_lengths leave its values under the name position_ids.
    made = {}
    for name, origin in (("labels", "input_ids"), ("position_ids", "seq_lengths")):
        if name not in stored:
            made[name] = data.select_columns([origin]).rename_column(origin, name)
    config, tokenizer = manifest["config"], manifest["tokenizer"]
    derive = DeriveColumns(config["max_len"], tokenizer["pad_id"], config["isolate"], frozenset(made), row_type)
    names = [name for name in (*WIDE, "seq_lengths", "sources") if name in stored or name in made]
    whole = datasets.concatenate_datasets([data, *made.values()], axis=1).select_columns(names)
    columns = names if row_type == "list" else [name for name in names if name != "sources"]
    return whole.with_transform(derive, columns=columns)


@dataclass(frozen=True, slots=True)
class DeriveColumns:
    """Stored rows -> whole rows; picklable, for the workers of data loaders."""

    max_len: int
    pad_id: int
    isolate: bool
    made: frozenset[str]
    """Columns that are not stored: `labels` holds input_ids instead, and `position_ids` holds seq_lengths."""
    row_type: str

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Rows of any of the columns, as lists of lists -> the same columns, made and padded."""
        lengths = rows.get("seq_lengths")
        if lengths is None and "position_ids" in self.made:
            lengths = rows.get("position_ids")
        out = {name: values for name, values in rows.items() if name not in (*WIDE, "seq_lengths")}
        for name, values in rows.items():
            if name == "seq_lengths":
                tails = [self.max_len - sum(row) for row in values]
                out[name] = [
                    self._typed([*row, *([tail] if tail else [])]) for row, tail in zip(values, tails, strict=True)
                ]
            elif name in WIDE:
                out[name] = [self._typed(row) for row in self._matrix(name, values, lengths)]
        return out

    def _matrix(self, name: str, values: list[list[int]], lengths: list[list[int]] | None) -> NDArray[np.int32]:
        """A column of whole rows, int32[P, L].

        Args:
            name: Of the column.
            values: What is stored under the name.
            lengths: The column seq_lengths; None where it was removed.
        """
        column = lists_of(values)
        if name == "position_ids" and name not in self.made:
            return padded_positions(column, self.max_len, isolate=self.isolate)
        if name == "position_ids":
            segments = segments_of(column.values, np.diff(column.offsets), self.max_len)
            return positions_of(segments, self.max_len, isolate=self.isolate)
        matrix = padded(column, self.max_len, self.pad_id if name == "input_ids" else IGNORE)
        if name == "input_ids" or name not in self.made:
            return matrix
        if lengths is None and self.isolate:
            raise UsageError("labels are made from seq_lengths, which were removed", "keep seq_lengths or position_ids")
        # Padding is not stored where labels are not, so a row without isolation is one segment of all it stores.
        stored = lists_of([[len(row)] for row in values] if lengths is None else lengths)
        segments = segments_of(stored.values, np.diff(stored.offsets), self.max_len)
        return labels_of(matrix, segments, isolate=self.isolate)

    def _typed(self, row: list[int] | NDArray[np.int32]) -> Any:
        """A row as row_type: int64, as models take it, or a list."""
        if self.row_type == "list":
            return row if isinstance(row, list) else row.tolist()
        array = np.asarray(row, dtype=np.int64)
        if self.row_type == "numpy":
            return array
        import torch

        return torch.from_numpy(array)
