"""The work on one unit: read -> tokenize -> plan -> assemble -> write -> commit.

`run_unit` is pure: the same job and unit give the same bytes in any process, on any machine, however often it
runs. Engines of execution call it, and know nothing more.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from packcli import readers, tokenizing
from packcli.assemble import Assembler, Layout, Origin
from packcli.carry_files import LostCarryError, drop_carry, keep_carry, read_carry
from packcli.carrying import Carried, Onward, may_carry
from packcli.counting import count_loss, count_plan, with_loss
from packcli.gathering import Documents, MaskedDocuments
from packcli.hooks import find_strategy
from packcli.job import Job, folder_of, run_schema, splits_of
from packcli.manifest import STATE_DIRECTORY, Output
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

Choice = Callable[[int, int, NDArray[np.int64]], NDArray[np.bool_]]
"""(part, source, rows) -> which of the rows."""


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
    target, state = Output(job.root), job.root / STATE_DIRECTORY
    sidecars: list[Sidecar] = []
    carried: Carried | None = None  # what the part before hands over; None: it was not done here
    for part in job.parts(unit, meter=meter):
        if (unit.index, part.index) in job.committed:
            part.skip()
            carried = None
            continue
        done_here = carried is not None
        if carried is None:
            try:
                carried = read_carry(state, unit.index, part.index)
            except LostCarryError:  # another process, which does this unit too, had no more use for it
                return run_unit(job.without(unit.index), unit, emit)
        with RejectsFile(job.root, unit.index, part.index) as rejects:
            bad_rows = readers.BadRows(job.sources, rejects)
            documents = read_documents(job, part, bad_rows, meter, emit, carried)
        shards, stats, carried = _write_part(job, unit, part, documents, carried)
        carry = keep_carry(state, unit.index, part.index, carried)
        sidecar = Sidecar(unit.index, part.index, part.is_last, part.digest, shards, stats, rejects.info, carry)
        target.commit(sidecar)
        sidecars.append(sidecar)
        if done_here:  # what an earlier run left stays: who takes up the work of this process begins with it again
            drop_carry(state, unit.index, part.index - 1)
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
    carried: Carried,
    only: Callable[[int, NDArray[np.int64]], NDArray[np.bool_]] | None = None,
) -> Documents:
    """Reads and tokenizes the rows of a part; what the part before hands over comes first."""
    engine, spot_check = load_encoder(job)
    extract = make_extractor(job.fields, job.sources, bad_rows)
    documents = (MaskedDocuments if job.config.masked else Documents)(job, engine, spot_check, bad_rows)
    documents.take_over(carried)
    seen = meter.file_bytes
    for chunk in part.chunks():
        records, rows = extract(chunk)
        if only is not None:
            taken = only(chunk.source, rows)
            records, rows = list(itertools.compress(records, taken.tolist())), rows[taken]
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


def tokenize_unit(
    job: Job, unit: readers.Unit, handed: Callable[[int], Carried] | None = None, only: Choice | None = None
) -> Iterator[TokenizedPart]:
    """What run_unit packs, part by part, without packing it. Parts in `job.committed` are passed over.

    Args:
        job: The job.
        unit: Which unit.
        handed: Asked, part by part, for the documents that come before its own; none when it is None.
        only: Which rows are tokenized; all when it is None.
    """
    meter = readers.Meter()
    for part in job.parts(unit):
        if (unit.index, part.index) in job.committed:
            part.skip()
            continue
        carried = handed(part.index) if handed is not None else Carried.nothing()
        rejected: list[readers.Rejected] = []
        bad_rows = readers.BadRows(job.sources, rejected.append)
        chosen = None if only is None else functools.partial(only, part.index)
        documents = read_documents(job, part, bad_rows, meter, lambda event: None, carried, chosen)
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
    documents = read_documents(job, rows, bad_rows, readers.Meter(), lambda event: None, Carried.nothing())
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
    job: Job, unit: readers.Unit, part: readers.Part, documents: Documents, carried: Carried
) -> tuple[dict[str, ShardInfo], Stats, Carried]:
    """Plans, assembles and writes the documents of a part.

    Returns:
        Its shards by split, its counts, and the documents that wait for the next part.
    """
    config, stats = job.config, documents.stats
    batch = documents.tokens.finish()
    origin = documents.origin()
    layout = Layout(
        columns=config.written_columns, pad_id=job.tokenizer.pad_id, isolate=config.isolate, ragged=config.ragged
    )
    schema = run_schema(config, job.tokenizer)
    shards = {}
    onward = Onward(carried, len(batch))
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
            seed=(seed := mix(config.seed, unit.index, part.index, number)),
        )
        if is_mixed:  # every part holds its share of each component: nothing of it waits for the next
            _count_sources(stats, here, kept_lengths(lengths, config.max_len, str(config.overlong)))
        elif not part.is_last and may_carry(str(config.strategy)):
            plan, docs = onward.divide(plan, docs, lengths, number)
            lengths, here = batch.lengths[docs], Origin(origin.source[docs], origin.row[docs])
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
    waiting = onward.finish(batch, origin)
    stats.num_documents_carried_in, stats.num_tokens_carried_in = len(carried), carried.num_tokens
    stats.num_documents_carried_out, stats.num_tokens_carried_out = len(waiting), waiting.num_tokens
    stats.check(config.max_len)
    return shards, stats, waiting
