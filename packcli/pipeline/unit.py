"""The work on one unit: read -> tokenize -> plan -> assemble -> write -> commit.

`run_unit` is pure: the same job and unit give the same bytes in any process, on any machine, however often it
runs. Engines of execution call it, and know nothing more.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from packcli import readers
from packcli.dataset import (
    Output,
    RejectsFile,
    ShardInfo,
    Sidecar,
    Stats,
    folder_of,
    run_schema,
    splits_of,
    write_shard,
)
from packcli.packing import Assembler, Origin, RowLayout, balance_plan, kept_lengths, make_plan
from packcli.pipeline.custom_strategy import find_strategy
from packcli.pipeline.documents import PartDocuments, read_documents
from packcli.pipeline.events import Progress
from packcli.pipeline.job import Job, plan_seed
from packcli.pipeline.plan_part import count_loss, count_plan, with_loss
from packcli.seeds import derive, permutation


def run_unit(job: Job, unit: readers.Unit, emit: Callable[[Progress], None]) -> list[Sidecar]:
    """Packs one unit and commits its parts; parts that are committed already are passed over.

    Returns:
        The sidecars of the parts that were done here.
    """
    meter = readers.ReadProgress()
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


SHUFFLE_STREAM = 5
"""Keeps the order of a mixture's documents apart from other uses of the seed."""


def _count_sources(stats: Stats, origin: Origin, kept: NDArray[np.int64]) -> None:
    """Adds the tokens that packs hold of every source."""
    for source in np.unique(origin.source).tolist():
        counts = stats.by_source[source]
        num_tokens = int(kept[origin.source == source].sum())
        counts["num_tokens_packed"] = counts.get("num_tokens_packed", 0) + num_tokens


def _write_part(
    job: Job, unit: readers.Unit, part: readers.Part, documents: PartDocuments
) -> tuple[dict[str, ShardInfo], Stats]:
    """Plans, assembles and writes the documents of a part.

    Returns:
        Its shards by split, and its counts.
    """
    config, stats = job.config, documents.stats
    batch = documents.tokens.finish()
    origin = documents.origin()
    layout = RowLayout(
        columns=config.written_columns, pad_id=job.tokenizer.pad_id, isolate=config.isolate, ragged=config.ragged
    )
    schema = run_schema(config, job.tokenizer)
    shards = {}
    is_mixed = isinstance(unit, readers.MixedUnit)
    for number, split in enumerate(splits_of(config)):
        docs = documents.of_split(split, len(batch))
        if is_mixed:  # components lie one after the other, and shall meet in packs
            docs = docs[permutation(len(docs), derive(config.seed, unit.index, part.index, number, SHUFFLE_STREAM))]
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
