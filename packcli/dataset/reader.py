"""The rows of a packed directory: read back, found, and taken apart into segments and padding.

A packed directory as exports read it: shards as matrices of rows, or as whole documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packcli.config.choices import IGNORE
from packcli.dataset.documents import Documents, number_copies
from packcli.dataset.fingerprint import config_of
from packcli.dataset.manifest import read_manifest
from packcli.dataset.report import read_report
from packcli.dataset.rows import Rows, make_rows
from packcli.dataset.schema import run_schema
from packcli.dataset.shards import open_arrow, read_shard
from packcli.dataset.stats import Stats
from packcli.errors import StorageError, UsageError, unknown_name
from packcli.packing import Lists, PackBatch, Sources
from packcli.storage import Location
from packcli.tokenization import TokenizerSpec

_LISTS = ("input_ids", "labels", "position_ids", "seq_lengths")


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


class Packed:
    """A finished output of packcli."""

    def __init__(self, root: Location) -> None:
        self.root = root
        self.manifest: dict[str, Any] = read_manifest(root)
        self.stats: Stats = read_report(root).stats
        config, tokenizer = self.manifest["config"], self.manifest["tokenizer"]
        self.max_len: int = config["max_len"]
        self.isolate: bool = config["isolate"]
        self.columns: tuple[str, ...] = tuple(config["columns"])
        self.pad_id: int = tokenizer["pad_id"]
        self.eos_id: int | None = tokenizer["eos_id"]
        self.vocab_size: int = tokenizer["vocab_size"]
        self.splits: dict[str, list[str]] = {
            split: [shard["file"] for shard in shards] for split, shards in self.manifest["splits"].items()
        }
        self._first_source: dict[str, list[int]] = {
            split: [shard.get("first_source", 0) for shard in shards]
            for split, shards in self.manifest["splits"].items()
        }
        self.shard_sha256 = [shard["sha256"] for shards in self.manifest["splits"].values() for shard in shards]

    def batches(self, split: str, index: int) -> Iterator[Rows]:
        """The rows of a shard, some hundred at a time."""
        with self._open(split, index) as reader:
            described = json.loads(reader.schema.metadata[b"packcli"])
            for batch in reader:
                if batch.num_rows:
                    yield self._rows(batch, described["ragged"], self._first_source[split][index])

    def whole(self, split: str, index: int) -> Rows:
        """All rows of a shard."""
        with self._open(split, index) as reader:
            described = json.loads(reader.schema.metadata[b"packcli"])
            table = reader.read_all().combine_chunks()
        return self._rows(table.to_batches()[0], described["ragged"], self._first_source[split][index])

    def _open(self, split: str, index: int) -> Any:
        path = self.root / self.splits[split][index]
        try:
            return pa.ipc.open_stream(open_arrow(path))
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"{path}: missing or damaged: {error}", "pack again with --overwrite") from None

    def _rows(self, batch: pa.RecordBatch, ragged: bool, first_source: int) -> Rows:
        columns = {name: batch.column(name) for name in batch.schema.names}
        lists = {name: _lists(columns[name]) if name in columns else None for name in _LISTS}
        ids = lists.pop("input_ids")
        if ids is None:
            raise AssertionError("a shard without input_ids")
        sources = _sources(columns["sources"], first_source) if "sources" in columns else None
        return make_rows(
            ids,
            sources=sources,
            max_len=self.max_len,
            pad_id=self.pad_id,
            isolate=self.isolate,
            ragged=ragged,
            **lists,
        )

    def refuse_lost_documents(self) -> None:
        """Raises UsageError when the documents cannot be put together again."""
        if "sources" not in self.columns and (self.stats.num_documents_split or not self.isolate):
            raise UsageError(
                f"{self.root} does not say which pieces make a document: it has no column sources",
                "pack with sources among --columns, such as --columns all",
            )

    def documents(self, split: str, index: int) -> Documents:
        """The documents of a shard, put together from their pieces.

        A shard holds all pieces of its documents. The first token of a later piece had to be masked, since nothing
        in its row could predict it; in a document that carries loss everywhere else it gets its label back.
        """
        rows = self.whole(split, index)
        pieces, sources = rows.pieces, rows.sources
        flat_ids, flat_labels = rows.input_ids.reshape(-1), rows.labels.reshape(-1)
        if sources is None:
            at = pieces.positions()
            offsets = _ends(pieces.length)
            labels = flat_labels[at]
            labels[offsets[:-1]] = IGNORE
            return Documents(flat_ids[at], labels, offsets, None)
        copy = np.zeros(len(sources.row), dtype=np.int64)
        if "mix" in self.manifest:
            copy = number_copies(sources.source, sources.row, sources.start, sources.end)
        order = np.lexsort((sources.start, copy, sources.row, sources.source))
        source, row, start, end = (getattr(sources, name)[order] for name in ("source", "row", "start", "end"))
        copy = copy[order]
        is_first = np.ones(len(order), dtype=np.bool_)
        is_first[1:] = (source[1:] != source[:-1]) | (row[1:] != row[:-1]) | (copy[1:] != copy[:-1])
        if (start[is_first] != 0).any() or (start[1:] != end[:-1])[~is_first[1:]].any():
            raise StorageError(f"{self.root / self.splits[split][index]}: a document lacks a piece", "pack it again")
        length = pieces.length[order]
        begin = pieces.begin[order]
        ends = np.cumsum(length)
        at = np.repeat(begin - (ends - length), length)
        at += np.arange(len(at))
        ids, labels = flat_ids[at], flat_labels[at]
        offsets = _ends(np.add.reduceat(length, np.flatnonzero(is_first)) if len(length) else length)
        piece_begin = ends - length
        continued = piece_begin[~is_first]
        doc_of_piece = np.cumsum(is_first) - 1
        masked = labels == IGNORE
        masked[piece_begin] = False
        has_mask = np.zeros(len(offsets) - 1, dtype=np.bool_)
        has_mask[np.searchsorted(offsets, np.flatnonzero(masked), side="right") - 1] = True
        restored = continued[~has_mask[doc_of_piece[~is_first]]]
        labels[restored] = ids[restored]
        labels[offsets[:-1]] = IGNORE
        return Documents(ids, labels, offsets, (source[is_first], row[is_first]))


def _lists(column: pa.ListArray) -> Lists:
    offsets = column.offsets.to_numpy()
    return Lists(column.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0])


def _sources(column: pa.ListArray, first_source: int) -> Sources:
    offsets = column.offsets.to_numpy()
    values = column.values
    fields = {
        name: values.field(name).to_numpy()[offsets[0] : offsets[-1]] for name in ("source", "row", "start", "end")
    }
    if first_source:
        fields["source"] = fields["source"] + np.int32(first_source)
    return Sources(offsets=offsets - offsets[0], **fields)


def _ends(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
