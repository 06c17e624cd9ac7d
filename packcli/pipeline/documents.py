"""The documents of a part: its rows are read and tokenized, and it is noted where each document comes from."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from packcli import readers, tokenization
from packcli.config import PackConfig
from packcli.dataset import NO_LIMIT, VALIDATION, Limit, Stats
from packcli.errors import BadRowError
from packcli.packing import LengthBuffer, Origin, TokenBuffer
from packcli.pipeline.events import Progress
from packcli.pipeline.job import Recipe
from packcli.tokenization import DocumentEncoder, RecordMarker, find_overlong, overlong_row

Extractor = Callable[[readers.Chunk], tuple[list[Any], NDArray[np.int64]]]
"""Chunk -> the texts, or the rows of parts, of its documents, and the number of each row."""


class PartDocuments:
    """The documents of one part: tokens, where they come from, and to which split they go.

    Args:
        recipe: What turns records into documents.
        engine: The engine of tokenization.
        spot_check: Compares some of its work with the reference.
        bad_rows: Takes rows that cannot be used.
        tokens: Where the tokens go; None makes a TokenBuffer.
    """

    def __init__(
        self,
        recipe: Recipe,
        engine: tokenization.Engine,
        spot_check: tokenization.SpotCheck,
        bad_rows: readers.BadRows,
        tokens: TokenBuffer | None = None,
    ) -> None:
        self._engine, self._spot_check = engine, spot_check
        self._config = recipe.config
        self._bad_rows = bad_rows
        self._eos = recipe.tokenizer.eos_id
        self._num_extra = (recipe.tokenizer.bos_id is not None) + (recipe.tokenizer.eos_id is not None)
        if tokens is None:
            # Larger than most units need: pages of memory that are never written to cost nothing.
            capacity = recipe.config.unit_bytes // 3
            tokens = TokenBuffer(
                bos=recipe.tokenizer.bos_id, eos=recipe.tokenizer.eos_id, capacity=capacity, masked=recipe.config.masked
            )
        self.tokens = tokens
        self.stats = Stats()
        self.num_read = 0
        """Rows that hold a document, whether it was taken or not."""
        self._sources: list[NDArray[np.int32]] = []
        self._rows: list[NDArray[np.int64]] = []
        self._validation: list[bool] = []
        self.empty: list[tuple[int, NDArray[np.int64]]] = []
        """Source and rows of documents without text."""

    def add(self, chunk: readers.RawChunk, texts: list[str], rows: NDArray[np.int64]) -> int:
        """Tokenizes the texts of a chunk; returns how many there were, empty ones included."""
        source, num_read = chunk.source, len(texts)
        if not all(texts):
            full = [index for index, text in enumerate(texts) if text]
            self.empty.append((source, np.delete(rows, full)))
            texts, rows = [texts[index] for index in full], rows[full]
        stats = self.stats
        before = self.tokens.num_tokens - self.tokens.num_special
        overlong: set[int] = set()
        for first in range(0, len(texts), tokenization.BATCH_DOCUMENTS):
            batch = texts[first : first + tokenization.BATCH_DOCUMENTS]
            ids, offsets = self._engine.encode(batch)
            if self._config.overlong == "error" and (refused := self._refuse_overlong(chunk, rows[first:], offsets)):
                overlong.update(first + at for at in refused)
                batch = [text for at, text in enumerate(batch) if at not in refused]
                if not batch:
                    continue
                ids, offsets = self._engine.encode(batch)
            self._spot_check.look(batch, ids, offsets)
            if self._eos is not None:
                stats.num_eos_in_documents += int(np.count_nonzero(ids == self._eos))
            self.tokens.append(ids, offsets.astype(np.int64, copy=False))
        if overlong:
            num_read -= len(overlong)
            texts = [text for at, text in enumerate(texts) if at not in overlong]
            rows = np.delete(rows, sorted(overlong))
        if self._config.val_fraction:
            self._validation += _to_validation([text.encode() for text in texts], self._config)
        self._record(source, rows, num_read, self.tokens.num_tokens - self.tokens.num_special - before)
        return num_read

    def _refuse_overlong(
        self, chunk: readers.RawChunk, rows: NDArray[np.int64], offsets: NDArray[np.integer]
    ) -> dict[int, int]:
        """Documents of a batch that the policy `error` refuses -> their length, special tokens included."""
        lengths = find_overlong(offsets.astype(np.int64) + self._num_extra * np.arange(len(offsets)), self._config)
        for at, length in lengths.items():
            self._refuse(chunk, int(rows[at]), overlong_row("", length, self._config))
        return lengths

    def _refuse(self, chunk: readers.RawChunk, row: int, error: BadRowError) -> None:
        self._bad_rows.add(chunk, row, error.cause, error.what, hint=error.hint)

    def _record(self, source: int, rows: NDArray[np.int64], num_read: int, num_tokens: int) -> None:
        """Notes where the documents of `rows` come from; num_read rows were read for them."""
        stats = self.stats
        self._sources.append(np.full(len(rows), source, dtype=np.int32))
        self._rows.append(rows)
        stats.num_documents += num_read
        stats.num_documents_empty += num_read - len(rows)
        stats.num_tokens_in += num_tokens
        counts = stats.by_source.setdefault(source, {"num_documents": 0, "num_tokens_in": 0})
        counts["num_documents"] += num_read
        counts["num_tokens_in"] += num_tokens

    def origin(self) -> Origin:
        """Where each document comes from."""
        if not self._rows:
            return Origin(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64))
        return Origin(np.concatenate(self._sources), np.concatenate(self._rows))

    def of_split(self, split: str, num_documents: int) -> NDArray[np.int64]:
        """Indices of the documents of a split."""
        if not self._config.val_fraction:
            return np.arange(num_documents)
        return np.flatnonzero(np.array(self._validation, dtype=np.bool_) == (split == VALIDATION))


class MaskedPartDocuments(PartDocuments):
    """The documents of one part, with a loss mask."""

    def __init__(
        self,
        recipe: Recipe,
        engine: tokenization.Engine,
        spot_check: tokenization.SpotCheck,
        bad_rows: readers.BadRows,
        tokens: TokenBuffer | None = None,
    ) -> None:
        super().__init__(recipe, engine, spot_check, bad_rows, tokens)
        self._sources_of_run = recipe.sources
        self._make = DocumentEncoder(
            RecordMarker(recipe.config, recipe.fields, recipe.tokenizer, recipe.template), engine, spot_check
        )

    def add(self, chunk: readers.RawChunk, texts: list[Any], rows: NDArray[np.int64]) -> int:
        """Makes documents of the rows of a chunk; returns how many there were."""
        source = chunk.source

        def place(index: int) -> str:
            return readers.place_of(self._sources_of_run, source, int(rows[index]))

        def reject(index: int, error: BadRowError) -> None:
            self._refuse(chunk, int(rows[index]), error)

        collecting = gc.isenabled()
        gc.disable()  # it would visit the messages of all rows again and again
        try:
            batch = self._make(texts, place, reject)
        finally:
            if collecting:
                gc.enable()
        stats, num_tokens = self.stats, 0
        for encoded in batch.encoded:
            num_tokens += len(encoded.ids)
            self.tokens.append_masked(encoded.ids, encoded.offsets, encoded.loss, 0)
            for role, count in encoded.by_role.items():
                stats.tokens_by_role[role] = stats.tokens_by_role.get(role, 0) + count
        self.tokens.num_special += batch.num_special
        stats.num_documents_literals += batch.num_literals
        stats.num_prompts_cut += batch.num_cut_prompts
        stats.num_tokens_padding_in += batch.num_tokens_padding
        self._bad_rows.num_repaired += batch.num_repaired
        if self._config.val_fraction:
            self._validation += _to_validation(batch.keys, self._config)
        num_documents = len(rows) - len(batch.rejected)
        if len(batch.kept) < num_documents:
            self.empty.append((source, np.delete(rows, batch.kept + batch.rejected)))
        self._record(source, rows[batch.kept], num_documents, num_tokens - batch.num_special)
        return len(texts)


def _to_validation(keys: list[bytes], config: PackConfig) -> list[bool]:
    import xxhash

    limit = int(config.val_fraction * 2**64)
    digest, seed = xxhash.xxh3_64_intdigest, config.seed
    return [digest(key, seed) < limit for key in keys]


def make_extractor(
    fields: readers.Fields, sources: Sequence[readers.Source], bad_rows: readers.BadRows | None = None
) -> Extractor:
    """Chunk -> the texts, or the rows of parts, of its documents, and the number of each row."""
    return (readers.TextExtractor if fields.format == "text" else readers.RowExtractor)(fields, sources, bad_rows)


class HasChunks(Protocol):
    """What read_documents reads: a part of a unit, or rows that were picked."""

    def chunks(self) -> Iterator[readers.Chunk]:
        """The chunks, in order."""


def read_documents(
    recipe: Recipe,
    part: HasChunks,
    *,
    bad_rows: readers.BadRows,
    into: TokenBuffer | None = None,
    progress: readers.ReadProgress | None = None,
    emit: Callable[[Progress], None] = lambda event: None,
    limit: Limit = NO_LIMIT,
    take: Callable[[NDArray[np.int64], int], NDArray[np.bool_]] | None = None,
) -> PartDocuments:
    """Reads and tokenizes the rows of a part.

    Args:
        recipe: What turns its records into documents.
        part: The part.
        bad_rows: Takes rows that cannot be used.
        into: Where the tokens go; None makes a TokenBuffer. A LengthBuffer keeps no ids, so those of plain text are
            not compared with the reference.
        progress: What the part keeps up to date while it is read.
        emit: Takes Progress events.
        limit: How many rows may be skipped.
        take: (rows, source) -> bool[D], which of these rows are tokenized; None: all.
    """
    engine, spot_check = recipe.load_encoder()
    if isinstance(into, LengthBuffer) and not recipe.config.masked:
        spot_check = _NoSpotCheck(recipe.tokenizer, engine)
    extract = make_extractor(recipe.fields, recipe.sources, bad_rows)
    make = MaskedPartDocuments if recipe.config.masked else PartDocuments
    documents = make(recipe, engine, spot_check, bad_rows, into)
    progress = progress or readers.ReadProgress()
    bytes_before = progress.file_bytes
    for chunk in part.chunks():
        records, rows = extract(chunk)
        documents.num_read += len(records)
        num_left_out = 0
        if take is not None:
            taken = np.flatnonzero(take(rows, chunk.source))
            num_left_out = len(records) - len(taken)
            records, rows = [records[index] for index in taken.tolist()], rows[taken]
        num_documents = documents.add(readers.raw_of(chunk), records, rows)
        bad_rows.flush()
        limit.check_part(bad_rows)
        emit(Progress(progress.file_bytes - bytes_before, num_documents + num_left_out))
        bytes_before = progress.file_bytes
    spot_check.settle()
    stats = documents.stats
    stats.num_rows_read, stats.num_rows_repaired = bad_rows.num_rows, bad_rows.num_repaired
    stats.num_rows_rejected, stats.rejected_by_cause = bad_rows.num_rejected, dict(sorted(bad_rows.by_cause.items()))
    return documents


class _NoSpotCheck(tokenization.SpotCheck):
    """Compares nothing."""

    def look(self, texts: Sequence[str], ids: NDArray[np.uint32], offsets: NDArray[np.integer]) -> None:
        """Sets no text aside."""
