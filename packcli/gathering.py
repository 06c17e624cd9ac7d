"""Documents of a part, gathered: rows in, tokens out, with where they come from and to which split they go."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli import readers, tokenizing
from packcli.assemble import Origin
from packcli.config import PackConfig
from packcli.documents import DocumentMaker, Marker
from packcli.job import VALIDATION, Job
from packcli.stats import Stats
from packcli.tokens import TokenBuffer


class Documents:
    """The documents of one part: tokens, where they come from, and to which split they go.

    Args:
        job: The job.
        engine: The engine of tokenization.
        spot_check: What looks at its work.
        tokens: Where the tokens go; None makes a TokenBuffer.
    """

    def __init__(
        self,
        job: Job,
        engine: tokenizing.Engine,
        spot_check: tokenizing.SpotCheck,
        tokens: TokenBuffer | None = None,
    ) -> None:
        self._engine, self._spot_check = engine, spot_check
        self._config = job.config
        self._eos = job.tokenizer.eos_id
        if tokens is None:
            # Rather too large: pages that are never written take no memory.
            capacity = job.config.unit_bytes // 3
            tokens = TokenBuffer(
                bos=job.tokenizer.bos_id, eos=job.tokenizer.eos_id, capacity=capacity, masked=job.config.masked
            )
        self.tokens = tokens
        self.stats = Stats()
        self._sources: list[NDArray[np.int32]] = []
        self._rows: list[NDArray[np.int64]] = []
        self._validation: list[bool] = []
        self.empty: list[tuple[int, NDArray[np.int64]]] = []
        """Source and rows of documents without text."""

    def add(self, source: int, texts: list[str], rows: NDArray[np.int64]) -> int:
        """Tokenizes texts of one source; returns how many there were, empty ones included."""
        num_read = len(texts)
        if not all(texts):
            full = [index for index, text in enumerate(texts) if text]
            self.empty.append((source, np.delete(rows, full)))
            texts, rows = [texts[index] for index in full], rows[full]
        stats = self.stats
        before = self.tokens.num_tokens - self.tokens.num_special
        for first in range(0, len(texts), tokenizing.BATCH_DOCUMENTS):
            batch = texts[first : first + tokenizing.BATCH_DOCUMENTS]
            ids, offsets = self._engine.encode(batch)
            self._spot_check.look(batch, ids, offsets)
            if self._eos is not None:
                stats.num_eos_in_documents += int(np.count_nonzero(ids == self._eos))
            self.tokens.append(ids, offsets.astype(np.int64, copy=False))
        if self._config.val_fraction:
            self._validation += _to_validation([text.encode() for text in texts], self._config)
        self._record(source, rows, num_read, self.tokens.num_tokens - self.tokens.num_special - before)
        return num_read

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


class MaskedDocuments(Documents):
    """The documents of one part, with a loss mask."""

    def __init__(
        self,
        job: Job,
        engine: tokenizing.Engine,
        spot_check: tokenizing.SpotCheck,
        tokens: TokenBuffer | None = None,
    ) -> None:
        super().__init__(job, engine, spot_check, tokens)
        self._sources_of_run = job.sources
        self._make = DocumentMaker(Marker(job.config, job.fields, job.tokenizer, job.template), engine, spot_check)

    def add(self, source: int, texts: list[Any], rows: NDArray[np.int64]) -> int:
        """Makes documents of rows of one source; returns how many rows there were."""
        collecting = gc.isenabled()
        gc.disable()  # it would visit the messages of all rows again and again
        try:
            batch = self._make(texts, lambda index: readers.place_of(self._sources_of_run, source, int(rows[index])))
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
        if self._config.val_fraction:
            self._validation += _to_validation(batch.keys, self._config)
        if len(batch.kept) < len(rows):
            self.empty.append((source, np.delete(rows, batch.kept)))
        self._record(source, rows[batch.kept], len(texts), num_tokens - batch.num_special)
        return len(texts)


def _to_validation(keys: list[bytes], config: PackConfig) -> list[bool]:
    import xxhash

    limit = int(config.val_fraction * 2**64)
    digest, seed = xxhash.xxh3_64_intdigest, config.seed
    return [digest(key, seed) < limit for key in keys]
