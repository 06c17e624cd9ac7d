"""A finished output, read back: its manifest, its shards as rows, one row, and whole documents."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.config.choices import IGNORE
from packcli.dataset.documents import WholeDocuments, whole_documents
from packcli.dataset.fingerprint import config_of
from packcli.dataset.manifest import Manifest, ShardEntry, read_manifest, tokenizer_of
from packcli.dataset.members import MIX
from packcli.dataset.paths import sidecar_file
from packcli.dataset.report import read_report
from packcli.dataset.rows import Rows, join_batches, make_rows
from packcli.dataset.schema import run_schema
from packcli.dataset.shards import read_shard
from packcli.dataset.sidecar import Sidecar, read_sidecar
from packcli.dataset.stats import Stats
from packcli.errors import StorageError, UsageError, printable, unknown_name
from packcli.packing import PackBatch
from packcli.storage import Location, file_sha256

PACK_AGAIN = "packcli verify says what is damaged; packcli pack --overwrite makes the output anew"


@dataclass(frozen=True, slots=True)
class RowSegment:
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
    """One pack as it is stored, without padding where that is not stored; columns that it lacks are derived."""

    split: str
    index: int
    """Row of the split, from 0."""
    file: str
    ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    positions: NDArray[np.int32]
    segments: tuple[RowSegment, ...]

    @property
    def num_loss(self) -> int:
        """Labels that are not -100."""
        return int(np.count_nonzero(self.labels != IGNORE))


class PackedDataset:
    """A finished output of packcli.

    Args:
        root: The directory.
        manifest: Its manifest, where that was read already.

    Raises:
        OutputError: not a finished output, or its manifest is damaged.
    """

    def __init__(self, root: Location, manifest: Manifest | None = None) -> None:
        self.root = root
        self.manifest = read_manifest(root) if manifest is None else manifest
        self.config = config_of(self.manifest)
        """Without what is resolved in the manifest, such as the tokenizer's name."""
        self.tokenizer = tokenizer_of(self.manifest)
        self.schema = run_schema(self.config, self.tokenizer)

    @functools.cached_property
    def stats(self) -> Stats:
        """The counts of the report; raises OutputError when it is damaged."""
        return read_report(self.root).stats

    @functools.cached_property
    def sidecars(self) -> list[Sidecar]:
        """What every part gave; raises StorageError when a sidecar is lost or damaged."""
        return [self._sidecar(sidecar_file(each["unit"], each["part"])) for each in self.manifest["parts"]]

    def _sidecar(self, name: str) -> Sidecar:
        sidecar = read_sidecar(self.root / name)
        if sidecar is None:
            raise StorageError(f"{self.root / name}: missing or damaged", PACK_AGAIN)
        return sidecar

    @property
    def splits(self) -> dict[str, list[ShardEntry]]:
        """The shards of each split that has rows, in row order."""
        return self.manifest["splits"]

    @functools.cached_property
    def num_rows(self) -> dict[str, int]:
        """Rows by split, of the splits that have rows."""
        counts = {split: sum(each["num_rows"] for each in shards) for split, shards in self.splits.items()}
        return {split: count for split, count in counts.items() if count}

    def check_sha256(self, shard: ShardEntry) -> None:
        """Raises StorageError when a shard is not what was written."""
        path = self.root / shard["file"]
        try:
            sha256, _ = file_sha256(path)
        except OSError as error:
            raise StorageError(f"{path}: missing, or it cannot be read: {error.strerror}", PACK_AGAIN) from None
        if sha256 != shard["sha256"]:
            raise StorageError(
                f"{path} has changed: sha256 is {sha256[:12]}, was {printable(shard['sha256'][:12])}", PACK_AGAIN
            )

    def read(self, shard: ShardEntry) -> Iterator[PackBatch]:
        """The record batches of a shard, as they are stored; raises StorageError when it is damaged."""
        path = self.root / shard["file"]
        try:
            yield from read_shard(path, self.schema, shard["first_source"])
        except StorageError as error:
            raise StorageError(f"{path}: {error.message}", PACK_AGAIN) from None

    def shards(self, split: str) -> Iterator[tuple[str, Iterator[PackBatch]]]:
        """The shards of a split and their record batches, in row order."""
        for shard in self.splits.get(split, ()):
            yield shard["file"], self.read(shard)

    def batches(self, split: str) -> Iterator[tuple[str, int, PackBatch]]:
        """Record batches of a split: the shard, the row of the split that the batch starts with, and its rows."""
        first = 0
        for file, batches in self.shards(split):
            for batch in batches:
                yield file, first, batch
                first += batch.num_rows

    def rows(self, shard: ShardEntry) -> Iterator[Rows]:
        """The rows of a shard, some hundred at a time.

        Raises:
            StorageError: it is damaged.
            UsageError: no column tells where documents end.
        """
        for batch in self.read(shard):
            if batch.num_rows:
                yield self.rows_of(batch)

    def rows_of(self, batch: PackBatch, *, needs_segments: bool = True) -> Rows:
        """The rows of a batch with every column; see make_rows."""
        return make_rows(
            batch,
            max_len=self.config.max_len,
            pad_id=self.tokenizer.pad_id,
            isolate=self.config.isolate,
            ragged=self.config.ragged,
            needs_segments=needs_segments,
        )

    def documents(self, shard: ShardEntry) -> WholeDocuments:
        """The documents of a shard, put together from their segments; raises as `rows`."""
        rows = self.rows_of(join_batches(list(self.read(shard))))
        try:
            return whole_documents(rows, copies=MIX in self.manifest)
        except StorageError as error:
            raise StorageError(f"{self.root / shard['file']}: {error.message}", PACK_AGAIN) from None

    def refuse_lost_documents(self) -> None:
        """Raises UsageError when the documents cannot be put together again."""
        if "sources" not in self.config.columns and (self.stats.num_documents_split or not self.config.isolate):
            raise UsageError(
                f"{self.root} does not say which segments make a document: it has no column sources",
                "pack with sources among --columns, such as --columns all",
            )

    def row(self, split: str, index: int) -> Row:
        """Row `index` of a split; a negative one counts from the end. Raises UsageError when there is none."""
        if split not in self.num_rows:
            raise unknown_name("split", split, self.num_rows)
        total = self.num_rows[split]
        if not -total <= index < total:
            raise UsageError(f"--row {index}: {split} has rows 0..{total - 1}")
        wanted = index % total
        first = 0
        for shard in self.splits[split]:
            if wanted >= first + shard["num_rows"]:
                first += shard["num_rows"]
                continue
            for batch in self.read(shard):
                if wanted < first + batch.num_rows:
                    return next(self.pick(split, shard["file"], first, batch, [wanted - first]))
                first += batch.num_rows
            break
        raise StorageError(f"{self.root}: {split} holds fewer rows than the manifest says", PACK_AGAIN)

    def pick(
        self, split: str, file: str, first: int, batch: PackBatch, numbers: Iterable[int] | None = None
    ) -> Iterator[Row]:
        """Rows of a batch that starts with row `first` of its split: all, or some by their number in the batch."""
        rows = self.rows_of(batch, needs_segments=False)
        for number in range(batch.num_rows) if numbers is None else numbers:
            yield self._row(split, first + number, file, rows, number)

    def _row(self, split: str, index: int, file: str, rows: Rows, number: int) -> Row:
        """Row `number` of some rows."""
        num_real = int(rows.num_real[number])
        width = num_real if self.config.ragged else rows.max_len
        return Row(
            split,
            index,
            file,
            rows.input_ids[number, :width],
            rows.labels[number, :width],
            rows.position_ids[number, :width],
            tuple(_segments(rows, number, num_real, width)),
        )


def _segments(rows: Rows, number: int, num_real: int, width: int) -> Iterator[RowSegment]:
    """The segments of a row, and its padding where that is stored."""
    segments, sources = rows.segments, rows.sources
    for at in range(int(segments.offsets[number]), int(segments.offsets[number + 1])):
        begin = int(segments.begin[at]) - number * rows.max_len
        origin: tuple[int | None, int | None, int | None] = (None, None, None)
        if sources is not None:
            origin = (int(sources.source[at]), int(sources.row[at]), int(sources.start[at]))
        yield RowSegment(begin, begin + int(segments.length[at]), False, *origin)
    if num_real < width:
        yield RowSegment(num_real, width, True, None, None, None)
