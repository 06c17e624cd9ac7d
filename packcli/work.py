"""The work on one unit: read -> tokenize -> plan -> assemble -> write -> commit.

`run_unit` is pure: the same job and unit give the same bytes in any process, on any machine, however often it
runs. Engines of execution call it, and know nothing more.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli import chat, readers, tokenizing
from packcli.assemble import Assembler, Layout, Origin
from packcli.config import PackConfig
from packcli.documents import DocumentMaker, Marker
from packcli.errors import BadRowError
from packcli.layouts import measure_layouts
from packcli.manifest import Output, Sidecar
from packcli.overlong import OverlongDocumentError, kept_lengths
from packcli.planner import Plan, balance_plan, make_plan
from packcli.shards import Schema, ShardInfo, make_schema, write_shard
from packcli.stats import Stats, bucketed, histogram
from packcli.strategies.balancing import group_costs
from packcli.strategies.random import mix
from packcli.tokens import TokenBatch, TokenBuffer

TRAIN, VALIDATION = "train", "validation"

Extractor = Callable[[readers.Chunk], tuple[list[Any], NDArray[np.int64]]]
"""Chunk -> the texts, or the rows of parts, of its documents, and the number of each row."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Event: so much more has been read and tokenized."""

    file_bytes: int
    num_documents: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Everything that run_unit needs besides the unit; picklable."""

    config: PackConfig
    root: Path
    sources: tuple[readers.Source, ...]
    fields: readers.Fields
    tokenizer: tokenizing.TokenizerSpec
    template: chat.TemplateSpec | None
    """The chat template, where records can hold messages."""
    engine: str
    """Engine of tokenization."""
    threads: int
    """Threads of that engine in one process."""
    committed: frozenset[tuple[int, int]]
    """(unit, part) of the parts that need not be done again."""

    @property
    def encoder_key(self) -> object:
        """What decides whether a loaded engine can be used again."""
        return self.tokenizer, self.engine, self.threads


def run_unit(job: Job, unit: readers.Unit, emit: Callable[[Progress], None]) -> list[Sidecar]:
    """Packs one unit and commits its parts; parts that are committed already are passed over.

    Returns:
        The sidecars of the parts that were done here.
    """
    extract = make_extractor(job.fields, job.sources)
    meter = readers.Meter()
    sidecars = []
    for part in readers.read_parts(
        unit,
        job.sources,
        job.fields,
        unit_bytes=job.config.unit_bytes,
        split_on=job.config.split_on,
        meter=meter,
    ):
        if (unit.index, part.index) in job.committed:
            part.skip()
            continue
        documents = _read_documents(job, part, extract, meter, emit)
        shards, stats = _write_part(job, unit, part, documents)
        sidecar = Sidecar(unit.index, part.index, part.is_last, part.digest, shards, stats)
        Output(job.root).commit(sidecar)
        sidecars.append(sidecar)
    return sidecars


def make_extractor(fields: readers.Fields, sources: Sequence[readers.Source]) -> Extractor:
    """Chunk -> the texts, or the rows of parts, of its documents, and the number of each row."""
    return (readers.TextExtractor if fields.format == "text" else readers.RowExtractor)(fields, sources)


def _read_documents(
    job: Job, part: readers.Part, extract: Extractor, meter: readers.Meter, emit: Callable[[Progress], None]
) -> _Documents:
    """Reads and tokenizes the rows of a part."""
    engine, spot_check = load_encoder(job)
    documents = (_MaskedDocuments if job.config.masked else _Documents)(job, engine, spot_check)
    seen = meter.file_bytes
    for chunk in part.chunks():
        num_documents = documents.add(chunk.source, *extract(chunk))
        emit(Progress(meter.file_bytes - seen, num_documents))
        seen = meter.file_bytes
    spot_check.settle()
    return documents


@dataclass(frozen=True, slots=True)
class TokenizedPart:
    """The documents of a part, tokenized but not packed."""

    index: int
    digest: str
    tokens: TokenBatch
    origin: Origin
    empty: list[tuple[int, NDArray[np.int64]]]
    """Source and rows of documents without text, which `tokens` and `origin` leave out."""
    of_split: Callable[[str], NDArray[np.int64]]
    """Indices of the documents of a split."""
    has_loss: NDArray[np.bool_]
    """bool[D]: documents with a label; the others are in no pack."""


def tokenize_unit(job: Job, unit: readers.Unit) -> Iterator[TokenizedPart]:
    """What run_unit packs, part by part, without packing it. Parts in `job.committed` are passed over."""
    extract = make_extractor(job.fields, job.sources)
    meter = readers.Meter()
    for part in readers.read_parts(
        unit,
        job.sources,
        job.fields,
        unit_bytes=job.config.unit_bytes,
        split_on=job.config.split_on,
    ):
        if (unit.index, part.index) in job.committed:
            part.skip()
            continue
        documents = _read_documents(job, part, extract, meter, lambda event: None)
        tokens = documents.tokens.finish()
        of_split = functools.partial(documents.of_split, num_documents=len(tokens))
        has_loss = np.zeros(len(tokens), dtype=np.bool_)
        has_loss[_with_loss(tokens, np.arange(len(tokens)), job.config)[0]] = True
        yield TokenizedPart(part.index, part.digest, tokens, documents.origin(), documents.empty, of_split, has_loss)


ENCODERS: dict[object, tuple[tokenizing.Engine, tokenizing.SpotCheck]] = {}
"""The loaded engine of this process; a worker keeps it from unit to unit."""


def load_encoder(job: Job) -> tuple[tokenizing.Engine, tokenizing.SpotCheck]:
    """The engine of a job and its spot check, loaded once a process."""
    if job.encoder_key not in ENCODERS:
        engine = tokenizing.make_engine(job.engine, job.tokenizer, threads=job.threads)
        ENCODERS[job.encoder_key] = engine, tokenizing.SpotCheck(job.tokenizer, engine)
    return ENCODERS[job.encoder_key]


class _Documents:
    """The documents of one part: tokens, where they come from, and to which split they go."""

    def __init__(self, job: Job, engine: tokenizing.Engine, spot_check: tokenizing.SpotCheck) -> None:
        self._engine, self._spot_check = engine, spot_check
        self._config = job.config
        self._eos = job.tokenizer.eos_id
        # Rather too large: pages that are never written take no memory.
        capacity = job.config.unit_bytes // 3
        self.tokens = TokenBuffer(
            bos=job.tokenizer.bos_id, eos=job.tokenizer.eos_id, capacity=capacity, masked=job.config.masked
        )
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


class _MaskedDocuments(_Documents):
    """The documents of one part, with a loss mask."""

    def __init__(self, job: Job, engine: tokenizing.Engine, spot_check: tokenizing.SpotCheck) -> None:
        super().__init__(job, engine, spot_check)
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


def _write_part(
    job: Job, unit: readers.Unit, part: readers.Part, documents: _Documents
) -> tuple[dict[str, ShardInfo], Stats]:
    """Plans, assembles and writes the documents of a part; returns its shards by split, and its counts."""
    config, stats = job.config, documents.stats
    batch = documents.tokens.finish()
    origin = documents.origin()
    layout = Layout(
        columns=config.written_columns, pad_id=job.tokenizer.pad_id, isolate=config.isolate, ragged=config.ragged
    )
    schema = run_schema(config, job.tokenizer)
    shards = {}
    for number, split in enumerate(splits_of(config)):
        docs = documents.of_split(split, len(batch))
        docs, no_loss = _with_loss(batch, docs, config)
        stats += no_loss
        lengths = batch.lengths[docs]
        here = Origin(origin.source[docs], origin.row[docs])
        try:
            plan = make_plan(
                lengths,
                config.max_len,
                strategy=str(config.strategy),
                overlong=str(config.overlong),
                max_docs_per_pack=config.max_docs_per_pack,
                effort=config.effort,
                seed=(seed := mix(config.seed, unit.index, part.index, number)),
            )
        except OverlongDocumentError as error:
            source, row = job.sources[here.source[error.document]], here.row[error.document]
            raise BadRowError(
                f"{source.name}: row {row}: {error.length} tokens, over --max-len {config.max_len}",
                "--overlong split, truncate or drop; or a larger --max-len",
            ) from None
        unbalanced = plan
        if config.balance:
            plan = balance_plan(plan, seed)
        stats += _count(plan, unbalanced, lengths, config, split)
        stats += _count_loss(plan, batch, docs, config)
        if plan.num_packs:
            assembler = Assembler(plan, batch.ids, batch.offsets[docs], here, layout, batch.loss)
            name = f"{folder_of(config, split)}data-{unit.index:05d}-{part.index:03d}.arrow"
            shards[split] = write_shard(job.root, name, schema, assembler.batches())
    stats.num_parts = 1
    stats.num_input_bytes = part.num_bytes
    stats.num_tokens_special = documents.tokens.num_special
    stats.check(config.max_len)
    return shards, stats


def _count(plan: Plan, unbalanced: Plan, lengths: NDArray[np.int64], config: PackConfig, split: str) -> Stats:
    """What a plan does to the documents of a split; `unbalanced` is it before `balance`."""
    kept = kept_lengths(lengths, config.max_len, str(config.overlong))
    too_long = lengths > config.max_len
    truncated, dropped = too_long & (kept > 0) & (kept < lengths), kept == 0
    segments_of_doc = np.bincount(plan.segments.doc, minlength=len(lengths))
    num_tokens, num_packed = plan.num_tokens, int((~dropped).sum())
    costs = plan.pack_costs
    groups = group_costs(costs)
    groups_unbalanced = groups if unbalanced is plan else group_costs(unbalanced.pack_costs)
    return Stats(
        num_documents_packed=num_packed,
        num_documents_overlong=int(dropped.sum()),
        num_documents_truncated=int(truncated.sum()),
        num_documents_split=int((segments_of_doc > 1).sum()),
        num_tokens_packed=num_tokens,
        num_tokens_truncated=int((lengths - kept)[truncated].sum()),
        num_tokens_overlong=int(lengths[dropped].sum()),
        num_tokens_padding=plan.num_packs * config.max_len - num_tokens,
        num_rows_unpacked=int((-(-kept // config.max_len)).sum()),
        num_segments=len(plan.segments),
        num_packs=plan.num_packs,
        sum_lower_bound=plan.lower_bound,
        sum_squared_segments=int(costs.sum()),
        num_groups=len(groups),
        sum_group_cost=int(groups.sum()),
        max_group_cost=int(groups.max(initial=0)),
        max_group_cost_unbalanced=int(groups_unbalanced.max(initial=0)),
        documents_by_length=histogram(bucketed(lengths)),
        segments_by_length=histogram(bucketed(plan.segments.length.astype(np.int64))),
        packs_by_documents=histogram(plan.docs_per_pack),
        plans_by_planner={plan.found_by: 1} if plan.num_packs else {},
        layouts=measure_layouts(kept, config.max_len),
        by_split={split: {"num_documents": num_packed, "num_packs": plan.num_packs, "num_tokens_packed": num_tokens}},
    )


def _with_loss(batch: TokenBatch, docs: NDArray[np.int64], config: PackConfig) -> tuple[NDArray[np.int64], Stats]:
    """The documents that have a label: a first token has none. The others are counted, by cause."""
    if batch.loss is None:
        return docs, Stats()
    begin, end = batch.offsets[docs], batch.offsets[docs + 1]
    first = np.minimum(begin + config.isolate, end)
    left = np.minimum(end, begin + config.max_len) if config.overlong == "truncate" else end
    whole, kept = _count_true(batch.loss, first, end), _count_true(batch.loss, first, left)
    dropped = kept == 0
    lengths = end - begin
    return docs[~dropped], Stats(
        num_documents_no_loss=int((whole == 0).sum()),
        num_documents_no_loss_left=int((dropped & (whole > 0)).sum()),
        num_tokens_no_loss=int(lengths[dropped].sum()),
        num_tokens_loss_cut=int(whole[dropped].sum()),
        documents_by_length=histogram(bucketed(lengths[dropped])),
    )


def _count_loss(plan: Plan, batch: TokenBatch, docs: NDArray[np.int64], config: PackConfig) -> Stats:
    """Labels that are not -100, and tokens with loss that the overlong policy takes away."""
    if batch.loss is None:
        return Stats(num_tokens_loss=plan.num_tokens - (len(plan.segments) if config.isolate else 0))
    starts = batch.offsets[docs][plan.segments.doc] + plan.segments.start
    ends = starts + plan.segments.length
    kept = int(_count_true(batch.loss, starts, ends).sum())
    on_first = int(batch.loss[starts].sum()) if config.isolate else 0
    whole = int(_count_true(batch.loss, batch.offsets[docs], batch.offsets[docs + 1]).sum())
    return Stats(num_tokens_loss=kept - on_first, num_tokens_loss_cut=whole - kept)


def _count_true(mask: NDArray[np.bool_], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of mask[starts[i]:ends[i]] are true, int64; no array as long as the mask is made."""
    is_full = starts < ends
    edges = np.stack((starts[is_full], ends[is_full]), axis=1)
    out = np.zeros(len(starts), dtype=np.int64)
    if len(edges):
        inside = np.minimum(edges, len(mask) - 1)  # reduceat takes no edge at the very end
        sums = np.add.reduceat(mask.view(np.uint8), inside.ravel(), dtype=np.int64)[::2]
        at_end = edges[:, 1] == len(mask)
        # Up to the clipped edge, and the last one of the mask. Where both edges are it, reduceat gives that one itself.
        out[is_full] = sums + (at_end & (inside[:, 0] < inside[:, 1])) * mask[-1]
    return out


def run_schema(config: PackConfig, tokenizer: tokenizing.TokenizerSpec) -> Schema:
    """The schema of every shard of a run."""
    return make_schema(
        config.written_columns,
        {
            "max_len": config.max_len,
            "pad_id": tokenizer.pad_id,
            "eos_id": tokenizer.eos_id,
            "isolate": config.isolate,
            "ragged": config.ragged,
            "tokenizer_sha256": tokenizer.sha256,
        },
    )


def splits_of(config: PackConfig) -> tuple[str, ...]:
    """The splits of a run, in order."""
    return (TRAIN, VALIDATION) if config.val_fraction else (TRAIN,)


def folder_of(config: PackConfig, split: str) -> str:
    """Where the shards of a split are, below the output: '' or 'train/'."""
    return f"{split}/" if config.val_fraction else ""
