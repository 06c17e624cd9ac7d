"""What must hold for every row and every document of a dataset: the other half of `assemble`, written without it.

Legend: P rows of one batch, N positions of the batch, S segments, L max_len. No loop over rows.

    rows        L positions (1..L in ragged rows); ids are in the vocabulary; padding holds pad_id
    labels      -100 on padding and on the first token of a segment; else the id (or -100, with a loss mask)
    positions   restart at 0 in every segment and in the padding; without isolation they run through the row
    lengths     sum to the positions of the row, and are those of the sources, padding last
    documents   their segments tile them from 0 up: no token twice, no hole; EOS ends them, BOS begins them
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.config.choices import IGNORE
from packcli.packing import Lists, PackBatch, Sources

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What rows are held to; from the manifest of their run."""

    max_len: int
    isolate: bool
    ragged: bool
    masked: bool
    """Whether labels may be -100 also where a token stands that is not the first of its segment."""
    pad_id: int
    vocab_size: int
    sources: range
    """Numbers that inputs have."""
    max_docs_per_pack: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that some rows of a batch break."""

    row: int
    """The first of them, counted in the batch."""
    num_rows: int
    what: str


@dataclass(frozen=True, slots=True)
class SourceSegments:
    """Segments as the column `sources` gives them, as parallel arrays over S."""

    source: Ints
    row: Ints
    start: Ints
    end: Ints
    first_id: NDArray[np.int32]
    """int32[S]: id of the first token."""
    last_id: NDArray[np.int32]

    @classmethod
    def joined(cls, segments: list[SourceSegments]) -> SourceSegments:
        """All of them, one after the other."""
        empty = [np.empty(0, dtype=np.int64)] * 4 + [np.empty(0, dtype=np.int32)] * 2
        return cls(
            *(
                np.concatenate([getattr(each, name) for each in segments] or [nothing])
                for name, nothing in zip(cls.__dataclass_fields__, empty, strict=True)
            )
        )

    @property
    def length(self) -> Ints:
        """Tokens of each, int64[S]."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at a batch gave."""

    broken: list[Broken]
    num_rows: int
    num_tokens: int | None
    """Real tokens; None where no column tells them from padding for certain."""
    segments: SourceSegments | None
    """None without the column `sources`, or when it is broken."""
    per_row: Ints
    """int64[P]: segments of each row; empty when segments is None."""


class _BrokenError(Exception):
    """Stops the look at a batch: what follows would make no sense."""


class _Look:
    """One batch under the rules."""

    def __init__(self, batch: PackBatch, rules: Rules) -> None:
        self.batch, self.rules = batch, rules
        self.broken: list[Broken] = []
        self.ids = batch.input_ids.values
        self.rows = batch.input_ids.offsets.astype(np.int64)  # int64[P+1]
        self.widths = np.diff(self.rows)

    def of_rows(self, bad: NDArray[np.bool_], what: str, *, stop: bool = False) -> None:
        """Notes rows, bool[P], that break a rule."""
        if bad.any():
            self.broken.append(Broken(int(np.argmax(bad)), int(np.count_nonzero(bad)), what))
            if stop:
                raise _BrokenError

    def of_positions(self, bad: Ints, what: str) -> None:
        """Notes the rows of positions that break a rule."""
        if len(bad):
            rows = np.searchsorted(self.rows, bad, side="right") - 1
            self.broken.append(Broken(int(rows.min()), len(np.unique(rows)), what))

    def of_lists(self, column: Lists | Sources, bad: NDArray[np.bool_], what: str, *, stop: bool = False) -> None:
        """Notes the rows of elements of a list column, bool over the elements, that break a rule."""
        if bad.any():
            rows = np.searchsorted(column.offsets, np.flatnonzero(bad), side="right") - 1
            self.broken.append(Broken(int(rows.min()), len(np.unique(rows)), what))
            if stop:
                raise _BrokenError

    def shape(self) -> None:
        limit, widths = self.rules.max_len, self.widths
        if self.rules.ragged:
            self.of_rows((widths < 1) | (widths > limit), f"input_ids has not 1 to {limit} positions", stop=True)
        else:
            self.of_rows(widths != limit, f"input_ids has not {limit} positions", stop=True)
        for name in ("labels", "position_ids"):
            column = getattr(self.batch, name)
            if column is not None:
                self.of_rows(np.diff(column.offsets) != widths, f"{name} is not as long as input_ids", stop=True)
        if len(self.ids) and int(self.ids.view(np.uint32).max()) >= self.rules.vocab_size:
            bad = np.flatnonzero(self.ids.view(np.uint32) >= self.rules.vocab_size)
            self.of_positions(bad, f"an id is not in 0..{self.rules.vocab_size - 1}")

    def seq_lengths(self) -> Ints | None:
        """Lengths of all runs, int64, padding included."""
        column = self.batch.seq_lengths
        if column is None:
            return None
        runs = column.values.astype(np.int64)
        self.of_lists(column, runs < 1, "an entry of seq_lengths is below 1", stop=True)
        sums = np.diff(_from_zero(runs)[column.offsets])
        self.of_rows(sums != self.widths, "seq_lengths do not sum to the positions of the row", stop=True)
        return runs

    def sources(self) -> tuple[Ints, Ints] | None:
        """Segments of each row and real tokens of each row, int64[P] each."""
        column, rules = self.batch.sources, self.rules
        if column is None:
            return None
        counts = np.diff(column.offsets).astype(np.int64)
        self.of_rows(counts < 1, "sources is empty", stop=True)
        spans = column.end.astype(np.int64) - column.start
        self.of_lists(column, (spans < 1) | (column.start < 0), "a source begins below 0 or has no token", stop=True)
        first, last = rules.sources.start, rules.sources.stop - 1
        known = (column.source >= first) & (column.source <= last)
        self.of_lists(column, ~known, f"a source is not in {first}..{last}")
        self.of_lists(column, column.row < 0, "a row number of a source is below 0")
        if rules.max_docs_per_pack:
            self.of_rows(counts > rules.max_docs_per_pack, f"more than {rules.max_docs_per_pack} segments in a pack")
        real = np.diff(_from_zero(spans)[column.offsets])
        bad = real != self.widths if rules.ragged else real > self.widths
        self.of_rows(bad, "sources hold more or fewer tokens than the row", stop=True)
        return counts, real

    def lengths_are_those_of_sources(self, runs: Ints, counts: Ints, real: Ints) -> None:
        lengths, sources = self.batch.seq_lengths, self.batch.sources
        if lengths is None or sources is None:
            return
        what = "seq_lengths are not those of sources"
        has_tail = real < self.widths
        expected = counts if self.rules.isolate else np.ones_like(counts)
        self.of_rows(np.diff(lengths.offsets) != expected + has_tail, what, stop=True)
        tails = lengths.offsets[1:][has_tail] - 1
        if self.rules.isolate:
            spans = sources.end.astype(np.int64) - sources.start
            row_of = np.repeat(np.arange(len(counts)), counts)
            bad = np.zeros(len(counts), dtype=np.bool_)
            bad[row_of[np.delete(runs, tails) != spans]] = True
        else:
            bad = runs[lengths.offsets[:-1]] != real
        self.of_rows(bad, what, stop=True)

    def positions(self, starts: Ints) -> None:
        """Looks at position_ids; `starts` are those of all runs, padding included."""
        column = self.batch.position_ids
        if column is None:
            return
        starts = starts if self.rules.isolate else self.rows[:-1]
        what = "position_ids do not restart where a document begins, or do not count by one"
        self.of_positions(starts[column.values[starts] != 0], what)
        by_one = np.diff(column.values) == 1
        by_one[starts[1:] - 1] = True
        if not by_one.all():
            self.of_positions(np.flatnonzero(~by_one) + 1, what)

    def labels(self, starts: Ints | None, padding: Ints) -> None:
        """Looks at labels; `starts` are the first positions of segments (None: unknown), `padding` all of padding."""
        column = self.batch.labels
        if column is None:
            return
        labels = column.values
        right = labels == self.ids
        if self.rules.masked or starts is None:
            right |= labels == IGNORE
        if self.rules.isolate and starts is not None:
            self.of_positions(starts[labels[starts] != IGNORE], "the label of the first token of a segment is not -100")
            right[starts] = True
        self.of_positions(padding[labels[padding] != IGNORE], "the label of padding is not -100")
        right[padding] = True
        if not right.all():
            self.of_positions(np.flatnonzero(~right), "a label is neither its id nor masked")

    def guess_padding(self, starts: Ints) -> Ints:
        """Where no source tells: the last run of a row is padding when it holds nothing but pad ids and -100."""
        labels = self.batch.labels
        if labels is None:
            return self.widths
        ends = np.append(starts[1:], len(self.ids))
        last = np.searchsorted(starts, self.rows[1:], side="left") - 1
        blank = _from_zero(((self.ids == self.rules.pad_id) & (labels.values == IGNORE)).astype(np.int64))
        all_blank = blank[ends[last]] - blank[starts[last]] == ends[last] - starts[last]
        return np.where(all_blank, starts[last], self.rows[1:]) - self.rows[:-1]


def check_rows(batch: PackBatch, rules: Rules) -> Checked:
    """Looks at every row of a batch.

    Args:
        batch: Columns that are lists with growing offsets from 0; nothing else of them is taken for granted.
        rules: What they are held to.
    """
    look = _Look(batch, rules)
    none = np.empty(0, dtype=np.int64)
    try:
        look.shape()
        runs = look.seq_lengths()
        sizes = look.sources()
        if sizes is not None:
            counts, real = sizes
            if runs is not None:
                look.lengths_are_those_of_sources(runs, counts, real)
            starts = _segment_starts(look.rows, batch.sources, counts)  # of segments
            run_starts: Ints | None = np.union1d(starts, (look.rows[:-1] + real)[real < look.widths])
        else:
            counts = starts = none
            run_starts = _run_starts(look, runs)
            real = look.guess_padding(run_starts) if run_starts is not None else look.widths
            if run_starts is not None:
                starts = np.setdiff1d(run_starts, (look.rows[:-1] + real)[real < look.widths])
        padding = _ranges(look.rows[:-1] + real, look.widths - real)
        if run_starts is not None:
            look.positions(run_starts)
        look.labels(starts if run_starts is not None else None, padding)
        look.of_positions(padding[look.ids[padding] != rules.pad_id], f"padding is not the pad id {rules.pad_id}")
    except _BrokenError:
        return Checked(look.broken, batch.num_rows, None, None, none)
    segments = None
    if batch.sources is not None:
        begin = batch.sources.start.astype(np.int64)
        length = batch.sources.end - begin
        ids = look.ids
        segments = SourceSegments(
            batch.sources.source.astype(np.int64),
            batch.sources.row,
            begin,
            begin + length,
            ids[starts],
            ids[starts + length - 1],
        )
    is_certain = segments is not None or rules.ragged
    return Checked(look.broken, batch.num_rows, int(real.sum()) if is_certain else None, segments, counts)


def _run_starts(look: _Look, runs: Ints | None) -> Ints | None:
    """First positions of all runs, without the column `sources`; None when no column tells."""
    if runs is not None:
        return _from_zero(runs)[:-1]
    if look.rules.isolate and look.batch.position_ids is not None:
        return np.union1d(np.flatnonzero(look.batch.position_ids.values == 0), look.rows[:-1])
    return None


def _segment_starts(rows: Ints, sources: Sources | None, counts: Ints) -> Ints:
    if sources is None:
        raise AssertionError("there are counts, so there are sources")
    spans = sources.end.astype(np.int64) - sources.start
    ends = _from_zero(spans)
    in_row = ends[:-1] - np.repeat(ends[sources.offsets[:-1]], counts)
    return np.repeat(rows[:-1], counts) + in_row


def _from_zero(counts: Ints) -> Ints:
    out = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=out[1:])
    return out


def _ranges(begin: Ints, length: Ints) -> Ints:
    """begin[0], begin[0]+1, ... for every range, one after the other."""
    begin, length = begin[length > 0], length[length > 0]
    ends = np.cumsum(length)
    return np.repeat(begin - (ends - length), length) + np.arange(int(ends[-1]) if len(ends) else 0)


@dataclass(frozen=True, slots=True)
class DocumentTable:
    """The documents that some segments make, as parallel arrays, sorted by source and row."""

    source: Ints
    row: Ints
    length: Ints
    """Tokens packed of each."""
    num_segments: Ints


def check_documents(
    segments: SourceSegments, *, bos_id: int | None, eos_id: int | None, cut_at: int | None, copies: Ints | None = None
) -> tuple[DocumentTable, Iterator[str]]:
    """Looks at the documents of one part.

    Args:
        segments: All segments of the part, from all splits.
        bos_id: What every document begins with, or None.
        eos_id: What every document ends with, or None.
        copies: int64[S], which copy of its document a segment belongs to; None: there is one of each.
        cut_at: Documents of this many tokens may have been truncated: they need no EOS. None when none is.

    Returns:
        The documents, and what is wrong, one line a kind with an example.
    """
    copy = np.zeros(len(segments.row), dtype=np.int64) if copies is None else copies
    order = np.lexsort((segments.start, copy, segments.row, segments.source))
    copy = copy[order]
    source, row, start, end = (getattr(segments, name)[order] for name in ("source", "row", "start", "end"))
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (source[1:] != source[:-1]) | (row[1:] != row[:-1]) | (copy[1:] != copy[:-1])
    before = np.concatenate((np.zeros(1, dtype=np.int64), end[:-1])) if len(end) else end
    before = np.where(first, 0, before)
    heads = np.flatnonzero(first)
    tails = (np.append(heads[1:], len(order)) - 1)[: len(heads)]
    length = end[tails]
    table = DocumentTable(source[heads], row[heads], length, np.diff(np.append(heads, len(order))))

    def wrong() -> Iterator[str]:
        def name(at: int) -> str:
            return f"source {source[at]} row {row[at]}"

        for bad, what in ((start < before, "is there twice"), (start > before, "is missing")):
            if bad.any():
                at = int(np.argmax(bad))
                low, high = sorted((int(start[at]), int(before[at])))
                yield f"{name(at)}: token {low} to {high - 1} {what} ({bad.sum()} such places)"
        if bos_id is not None:
            bad = segments.first_id[order][heads] != bos_id
            if bad.any():
                yield f"{name(int(heads[np.argmax(bad)]))} does not begin with BOS ({bad.sum()} such documents)"
        if eos_id is not None:
            bad = segments.last_id[order][tails] != eos_id
            if cut_at is not None:
                bad &= length != cut_at
            if bad.any():
                yield f"{name(int(tails[np.argmax(bad)]))} does not end with EOS ({bad.sum()} such documents)"

    return table, wrong()
