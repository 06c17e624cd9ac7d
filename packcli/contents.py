"""The rows of a packed directory: read back, found, and taken apart into segments and padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.assemble import IGNORE, Lists, PackBatch
from packcli.errors import StorageError, UsageError, unknown_name
from packcli.fingerprints import config_of
from packcli.job import run_schema
from packcli.manifest import read_manifest
from packcli.shards import read_shard
from packcli.stores import Location
from packcli.tokenizing import TokenizerSpec


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment of a row, or its padding."""

    begin: int
    end: int
    """Positions begin..end-1 of the row."""
    is_padding: bool
    source: int | None
    """Index of the input file; None when the row does not say."""
    row: int | None
    start: int | None
    """First token, counted inside the document."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pack as it is stored; what its columns do not hold is derived."""

    split: str
    index: int
    """Row of the split, from 0."""
    file: str
    ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    positions: NDArray[np.int32]
    pieces: tuple[Piece, ...]

    @property
    def num_loss(self) -> int:
        """Labels that are not -100."""
        return int(np.count_nonzero(self.labels != IGNORE))


class Contents:
    """The rows of a finished output.

    Args:
        root: The directory.

    Raises:
        OutputError: not a finished output.
    """

    def __init__(self, root: Location) -> None:
        self.root = root
        self.manifest: dict[str, Any] = read_manifest(root)
        self.config = config_of(self.manifest)
        self.tokenizer = TokenizerSpec(**self.manifest["tokenizer"], path="", allow_special=self.config.allow_special)
        self._schema = run_schema(self.config, self.tokenizer)

    @property
    def splits(self) -> dict[str, int]:
        """Rows by split."""
        found = {split: sum(each["num_rows"] for each in shards) for split, shards in self.manifest["splits"].items()}
        return {split: count for split, count in found.items() if count}

    def shards(self, split: str) -> Iterator[tuple[str, Iterator[PackBatch]]]:
        """The shards of a split and their record batches, in row order."""
        for shard in self.manifest["splits"].get(split, ()):
            yield shard["file"], self._read(shard)

    def batches(self, split: str) -> Iterator[tuple[str, int, PackBatch]]:
        """Record batches of a split: the shard, the row of the split that the batch starts with, and its rows."""
        first = 0
        for file, batches in self.shards(split):
            for batch in batches:
                yield file, first, batch
                first += batch.num_rows

    def _read(self, shard: Mapping[str, Any]) -> Iterator[PackBatch]:
        try:
            yield from read_shard(self.root / shard["file"], self._schema, shard.get("first_source", 0))
        except StorageError as error:
            raise StorageError(
                f"{self.root / shard['file']}: {error.message}", "packcli pack --overwrite makes it anew"
            ) from None

    def row(self, split: str, index: int) -> Row:
        """Row `index` of a split; a negative one counts from the end. Raises UsageError when there is none."""
        if split not in self.splits:
            raise unknown_name("split", split, self.splits)
        total = self.splits[split]
        if not -total <= index < total:
            raise UsageError(f"--row {index}: {split} has rows 0..{total - 1}")
        wanted = index % total
        first = 0
        for shard in self.manifest["splits"][split]:
            if wanted >= first + shard["num_rows"]:
                first += shard["num_rows"]
                continue
            for batch in self._read(shard):
                if wanted < first + batch.num_rows:
                    return self.take(split, shard["file"], first, batch, wanted - first)
                first += batch.num_rows
            break
        raise StorageError(f"{self.root}: {split} holds fewer rows than the manifest says")

    def take(self, split: str, file: str, first: int, batch: PackBatch, number: int) -> Row:
        """Row `number` of a batch that starts with row `first` of its split."""
        ids = _of_row(batch.input_ids, number)
        pieces = self._pieces(batch, number, ids)
        positions = batch.position_ids
        return Row(
            split,
            first + number,
            file,
            ids,
            self._labels(batch, number, ids, pieces),
            self._positions(pieces) if positions is None else _of_row(positions, number),
            pieces,
        )

    def _pieces(self, batch: PackBatch, number: int, ids: NDArray[np.int32]) -> tuple[Piece, ...]:
        if batch.sources is not None:
            found = batch.sources
            begin, end = int(found.offsets[number]), int(found.offsets[number + 1])
            ends = np.cumsum(found.end[begin:end] - found.start[begin:end]).tolist()
            pieces = [
                Piece(ends[place] - int(found.end[each] - found.start[each]), ends[place], False, *_origin(found, each))
                for place, each in enumerate(range(begin, end))
            ]
        else:
            runs = [len(ids)] if batch.seq_lengths is None else _of_row(batch.seq_lengths, number).tolist()
            ends = np.cumsum(runs).tolist()
            num_real = self._num_real(batch, number, ids)
            pieces = [
                Piece(end - run, min(end, num_real), False, None, None, None)
                for run, end in zip(runs, ends, strict=True)
                if end - run < num_real
            ]
        used = pieces[-1].end if pieces else 0
        if used < len(ids):
            pieces.append(Piece(used, len(ids), True, None, None, None))
        return tuple(pieces)

    def _num_real(self, batch: PackBatch, number: int, ids: NDArray[np.int32]) -> int:
        """Where the padding begins, from the ids and labels: the tail that is pad ids without a label."""
        if self.config.ragged:
            return len(ids)
        is_pad = ids == self.tokenizer.pad_id
        if batch.labels is not None:
            is_pad &= _of_row(batch.labels, number) == IGNORE
        others = np.flatnonzero(~is_pad)
        num_real = int(others[-1]) + 1 if len(others) else 0
        if batch.seq_lengths is not None:  # a pad token that ends a document is real: padding is a run of its own
            ends = np.cumsum(_of_row(batch.seq_lengths, number))
            num_real = int(ends[np.searchsorted(ends, num_real)]) if num_real else 0
        return num_real

    def _labels(
        self, batch: PackBatch, number: int, ids: NDArray[np.int32], pieces: tuple[Piece, ...]
    ) -> NDArray[np.int32]:
        if batch.labels is not None:
            return _of_row(batch.labels, number)
        labels: NDArray[np.int32] = ids.copy()
        for piece in pieces:
            if piece.is_padding:
                labels[piece.begin :] = IGNORE
            elif self.config.isolate:
                labels[piece.begin] = IGNORE
        return labels

    def _positions(self, pieces: tuple[Piece, ...]) -> NDArray[np.int32]:
        if self.config.isolate:
            runs = [np.arange(piece.end - piece.begin, dtype=np.int32) for piece in pieces]
            return np.concatenate(runs) if runs else np.empty(0, dtype=np.int32)
        return np.arange(pieces[-1].end if pieces else 0, dtype=np.int32)


def _of_row(column: Lists, number: int) -> NDArray[np.int32]:
    return column.values[column.offsets[number] : column.offsets[number + 1]]


def _origin(sources: Any, segment: int) -> tuple[int, int, int]:
    return int(sources.source[segment]), int(sources.row[segment]), int(sources.start[segment])
