"""The work on one unit: read -> tokenize -> plan -> assemble -> write -> commit.

`run_unit` is pure: the same job and unit give the same bytes in any process, on any machine, however often it
runs. Engines of execution call it, and know nothing more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from packcli import readers, tokenizing
from packcli.assemble import Assembler, Layout, Origin
from packcli.counting import count_loss, count_plan, with_loss
from packcli.gathering import Documents, MaskedDocuments
from packcli.hooks import find_strategy
from packcli.job import Job, folder_of, plan_seed, run_schema, splits_of
from packcli.manifest import Output
from packcli.overlong import kept_lengths
from packcli.planner import balance_plan, make_plan
from packcli.rejects import RejectsFile
from packcli.shards import ShardInfo, write_shard
from packcli.sidecars import Sidecar
from packcli.stats import Stats
from packcli.strategies.random import mix, permutation
from packcli.tokens import TokenBatch

Extractor = Callable[[readers.Chunk], tuple[list[Any], NDArray[np.int64]]]
"""Chunk -> the texts, or the rows of parts, of its documents, and the number of each row."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Event: so much more has been read and tokenized."""

    file_bytes: int
    num_documents: int

    def __add__(self, other: Progress) -> Progress:
        """Both together: what travels from far away is added up first."""
        return Progress(self.file_bytes + other.file_bytes, self.num_documents + other.num_documents)


def run_unit(job: Job, unit: readers.Unit, emit: Callable[[Progress], None]) -> list[Sidecar]:
    """Packs one unit and commits its parts; parts that are committed already are passed over.

    Returns:
        The sidecars of the parts that were done here.
    """
    meter = readers.Meter()
    target = Output(job.root)
    sidecars: list[Sidecar] = []
    for part in job.parts(unit, meter=meter):
        if (unit.index, part.index) in job.committed:
            part.skip()
            continue
        with RejectsFile(job.root, unit.index, part.index) as rejects:
            bad_rows = readers.BadRows(job.sources, rejects)
            documents = read_documents(job, part, bad_rows, meter, emit)
        shards, stats = _write_part(job, unit, part, documents)
        sidecar = Sidecar(unit.index, part.index, part.is_last, part.digest, shards, stats, rejects.info)
        target.commit(sidecar)
        sidecars.append(sidecar)
    return sidecars


def make_extractor(
    fields: readers.Fields, sources: Sequence[readers.Source], bad_rows: readers.BadRows | None = None
) -> Extractor:
    """Chunk -> the texts, or the rows of parts, of its documents, and the number of each row."""
    return (readers.TextExtractor if fields.format == "text" else readers.RowExtractor)(fields, sources, bad_rows)


class HasChunks(Protocol):
    """A part, as far as it is read."""

    def chunks(self) -> Iterator[readers.Chunk]:
        """The chunks, in order."""


def read_documents(
    job: Job,
    part: HasChunks,
    bad_rows: readers.BadRows,
    meter: readers.Meter,
    emit: Callable[[Progress], None],
) -> Documents:
    """Reads and tokenizes the rows of a part."""
    engine, spot_check = load_encoder(job)
    extract = make_extractor(job.fields, job.sources, bad_rows)
    documents = (MaskedDocuments if job.config.masked else Documents)(job, engine, spot_check, bad_rows)
    seen = meter.file_bytes
    for chunk in part.chunks():
        records, rows = extract(chunk)
        num_documents = documents.add(readers.raw_of(chunk), records, rows)
        bad_rows.flush()
        job.limit.check_part(bad_rows)
        emit(Progress(meter.file_bytes - seen, num_documents))
        seen = meter.file_bytes
    spot_check.settle()
    stats = documents.stats
    stats.num_rows_read, stats.num_rows_repaired = bad_rows.num_rows, bad_rows.num_repaired
    stats.num_rows_rejected, stats.rejected_by_cause = bad_rows.num_rejected, dict(sorted(bad_rows.by_cause.items()))
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
    rejected: list[readers.Rejected]
    """Rows that cannot be used."""


def tokenize_unit(job: Job, unit: readers.Unit) -> Iterator[TokenizedPart]:
    """What run_unit packs, part by part, without packing it. Parts in `job.committed` are passed over."""
    meter = readers.Meter()
    for part in job.parts(unit):
        if (unit.index, part.index) in job.committed:
            part.skip()
            continue
        rejected: list[readers.Rejected] = []
        bad_rows = readers.BadRows(job.sources, rejected.append)
        documents = read_documents(job, part, bad_rows, meter, lambda event: None)
        tokens = documents.tokens.finish()
        of_split = functools.partial(documents.of_split, num_documents=len(tokens))
        has_loss = np.zeros(len(tokens), dtype=np.bool_)
        has_loss[with_loss(tokens, np.arange(len(tokens)), job.config)[0]] = True
        yield TokenizedPart(
            part.index, part.digest, tokens, documents.origin(), documents.empty, of_split, has_loss, rejected
        )


def tokenize_rows(job: Job, rows: readers.PickedRows) -> tuple[TokenBatch, Origin]:
    """Some documents and where they come from, as `run_unit` would tokenize them; empty ones are not among them."""
    bad_rows = readers.BadRows(job.sources)
    documents = read_documents(job, rows, bad_rows, readers.Meter(), lambda event: None)
    return documents.tokens.finish(), documents.origin()


ENCODERS: dict[object, tuple[tokenizing.Engine, tokenizing.SpotCheck]] = {}
"""The loaded engine of this process; a worker keeps it from unit to unit."""


def load_encoder(job: Job) -> tuple[tokenizing.Engine, tokenizing.SpotCheck]:
    """The engine of a job and its spot check, loaded once a process."""
    if job.encoder_key not in ENCODERS:
        engine = tokenizing.make_engine(job.engine, job.tokenizer, threads=job.threads)
        ENCODERS[job.encoder_key] = engine, tokenizing.SpotCheck(job.tokenizer, engine)
    return ENCODERS[job.encoder_key]


SHUFFLE_STREAM = 5
"""Keeps the order of a mixture's documents apart from other uses of the seed."""


def _count_sources(stats: Stats, origin: Origin, kept: NDArray[np.int64]) -> None:
    """Adds the tokens that packs hold of every source."""
    for source in np.unique(origin.source).tolist():
        counts = stats.by_source[source]
        num_tokens = int(kept[origin.source == source].sum())
        counts["num_tokens_packed"] = counts.get("num_tokens_packed", 0) + num_tokens


def _write_part(
    job: Job, unit: readers.Unit, part: readers.Part, documents: Documents
) -> tuple[dict[str, ShardInfo], Stats]:
    """Plans, assembles and writes the documents of a part.

    Returns:
        Its shards by split, and its counts.
    """
    config, stats = job.config, documents.stats
    batch = documents.tokens.finish()
    origin = documents.origin()
    layout = Layout(
        columns=config.written_columns, pad_id=job.tokenizer.pad_id, isolate=config.isolate, ragged=config.ragged
    )
    schema = run_schema(config, job.tokenizer)
    shards = {}
    is_mixed = isinstance(unit, readers.MixedUnit)
    for number, split in enumerate(splits_of(config)):
        docs = documents.of_split(split, len(batch))
        if is_mixed:  # components lie one after the other, and shall meet in packs
            docs = docs[permutation(len(docs), mix(config.seed, unit.index, part.index, number, SHUFFLE_STREAM))]
        docs, no_loss = with_loss(batch, docs, config)
        stats += no_loss
        lengths = batch.lengths[docs]
        here = Origin(origin.source[docs], origin.row[docs])
        plan = make_plan(
            lengths,
            config.max_len,
            strategy=find_strategy(config),
            overlong=str(config.overlong),
            max_docs_per_pack=config.max_docs_per_pack,
            effort=config.effort,
            seed=(seed := plan_seed(config, unit.index, part.index, number)),
        )
        if is_mixed:
            _count_sources(stats, here, kept_lengths(lengths, config.max_len, str(config.overlong)))
        unbalanced = plan
        if config.balance:
            plan = balance_plan(plan, seed)
        stats += count_plan(plan, unbalanced, lengths, config, split)
        stats += count_loss(plan, batch, docs, config)
        if plan.num_packs:
            assembler = Assembler(plan, batch.ids, batch.offsets[docs], here, layout, batch.loss)
            name = f"{folder_of(config, split)}data-{unit.index:05d}-{part.index:03d}.arrow"
            shards[split] = write_shard(job.root, name, schema, assembler.batches())
    stats.num_parts = 1
    stats.num_input_bytes = part.num_bytes
    stats.num_tokens_special = documents.tokens.num_special
    stats.check(config.max_len)
    return shards, stats
