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
from packcli.errors import BadRowError
from packcli.gathering import Documents, MaskedDocuments
from packcli.job import Job, folder_of, run_schema, splits_of
from packcli.manifest import Output
from packcli.overlong import OverlongDocumentError, kept_lengths
from packcli.planner import balance_plan, make_plan
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
        documents = read_documents(job, part, extract, meter, emit)
        shards, stats = _write_part(job, unit, part, documents)
        sidecar = Sidecar(unit.index, part.index, part.is_last, part.digest, shards, stats)
        Output(job.root).commit(sidecar)
        sidecars.append(sidecar)
    return sidecars


def make_extractor(fields: readers.Fields, sources: Sequence[readers.Source]) -> Extractor:
    """Chunk -> the texts, or the rows of parts, of its documents, and the number of each row."""
    extract: Extractor = (readers.TextExtractor if fields.format == "text" else readers.RowExtractor)(fields, sources)

    def taken(chunk: readers.Chunk) -> tuple[list[Any], NDArray[np.int64]]:
        if not isinstance(chunk, readers.ThinnedChunk):
            return extract(chunk)
        found, rows = extract(chunk.chunk)
        kept = chunk.taken(rows)
        return [found[index] for index in kept.tolist()], rows[kept]

    return taken


class HasChunks(Protocol):
    """A part, as far as it is read."""

    def chunks(self) -> Iterator[readers.Chunk]:
        """The chunks, in order."""


def read_documents(
    job: Job, part: HasChunks, extract: Extractor, meter: readers.Meter, emit: Callable[[Progress], None]
) -> Documents:
    """Reads and tokenizes the rows of a part."""
    engine, spot_check = load_encoder(job)
    documents = (MaskedDocuments if job.config.masked else Documents)(job, engine, spot_check)
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
        documents = read_documents(job, part, extract, meter, lambda event: None)
        tokens = documents.tokens.finish()
        of_split = functools.partial(documents.of_split, num_documents=len(tokens))
        has_loss = np.zeros(len(tokens), dtype=np.bool_)
        has_loss[with_loss(tokens, np.arange(len(tokens)), job.config)[0]] = True
        yield TokenizedPart(part.index, part.digest, tokens, documents.origin(), documents.empty, of_split, has_loss)


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
        if config.mix:  # components lie one after the other, and shall meet in packs
            docs = docs[permutation(len(docs), mix(config.seed, unit.index, part.index, number, SHUFFLE_STREAM))]
        docs, no_loss = with_loss(batch, docs, config)
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
        if config.mix:
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
