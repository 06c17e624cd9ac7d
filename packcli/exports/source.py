"""A packed directory as exports read it: shards as matrices of rows, or as whole documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packcli.assemble import IGNORE, Lists, Sources
from packcli.errors import StorageError, UsageError
from packcli.manifest import read_manifest
from packcli.repeats import number_copies
from packcli.report import read_report
from packcli.rows import Rows, make_rows
from packcli.shards import open_arrow
from packcli.stats import Stats
from packcli.stores import Location


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents of one shard, in the order of the input."""

    ids: NDArray[np.int32]
    """int32[T]."""
    labels: NDArray[np.int32]
    """int32[T], not shifted; -100 on the first token of each document and on tokens without loss."""
    offsets: NDArray[np.int64]
    """int64[D+1]."""
    place: tuple[NDArray[np.int32], NDArray[np.int64]] | None
    """Source and row of each document, where they are known."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64[D]."""
        return np.diff(self.offsets)

    @property
    def has_mask(self) -> bool:
        """Whether a token besides the first one of a document carries no loss."""
        return int((self.labels == IGNORE).sum()) > len(self.offsets) - 1


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


_LISTS = ("input_ids", "labels", "position_ids", "seq_lengths")


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
