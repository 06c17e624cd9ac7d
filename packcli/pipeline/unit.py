"""The work on one unit: read -> tokenize -> plan -> assemble -> write -> commit.

`run_unit` is pure: the same job and unit give the same bytes in any process, on any machine, however often it
runs. Executors call it, and know nothing more.
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
from packcli.packing import Assembler, Origin, RowLayout, balance_plan
from packcli.pipeline.documents import PartDocuments, read_documents
from packcli.pipeline.events import Progress
from packcli.pipeline.job import Job, plan_seed
from packcli.pipeline.plan_part import count_rows, plan_split
from packcli.seeds import derive, permutation


def run_unit(job: Job, unit: readers.Unit, emit: Callable[[Progress], None]) -> list[Sidecar]:
    """Packs one unit and commits its parts; parts that are committed already are passed over.

    Returns:
        The sidecars of the parts that were done here.
    """
    recipe = job.recipe
    progress = readers.ReadProgress()
    target = Output(job.root)
    sidecars: list[Sidecar] = []
    for part in recipe.parts(unit, progress=progress):
        if (unit.index, part.index) in job.committed:
            part.skip()
            continue
        with RejectsFile(job.root, unit.index, part.index) as rejects:
            bad_rows = readers.BadRows(recipe.sources, rejects)
            documents = read_documents(recipe, part, bad_rows=bad_rows, progress=progress, emit=emit, limit=job.limit)
        shards, stats = _write_part(job, unit, part, documents)
        sidecar = Sidecar(unit.index, part.index, part.is_last, part.digest, shards, stats, rejects.info)
        target.commit(sidecar)
        sidecars.append(sidecar)
    return sidecars


SHUFFLE_STREAM = 5
"""A number for `derive`: the order of a mixture's documents shares no random numbers with other uses of the seed."""


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
    config, tokenizer, stats = job.recipe.config, job.recipe.tokenizer, documents.stats
    batch = documents.tokens.finish()
    origin = documents.origin()
    layout = RowLayout(
        columns=config.written_columns, pad_id=tokenizer.pad_id, isolate=config.isolate, ragged=config.ragged
    )
    schema = run_schema(config, tokenizer)
    shards = {}
    is_mixed = isinstance(unit, readers.MixedUnit)
    for number, split in enumerate(splits_of(config)):
        docs = documents.of_split(split, len(batch))
        if is_mixed:  # components lie one after the other, and shall meet in packs
            docs = docs[permutation(len(docs), derive(config.seed, unit.index, part.index, number, SHUFFLE_STREAM))]
        seed = plan_seed(config, unit.index, part.index, number)
        planned = plan_split(batch, docs, config, seed)
        docs = planned.docs
        origin_of_docs = Origin(origin.source[docs], origin.row[docs])
        if is_mixed:
            _count_sources(stats, origin_of_docs, planned.kept)
        plan = balance_plan(planned.plan, seed) if config.balance else planned.plan
        stats += planned.stats
        stats += count_rows(planned, plan, batch, config, split)
        if plan.num_packs:
            assembler = Assembler(plan, batch.ids, batch.offsets[docs], origin_of_docs, layout, batch.loss)
            name = f"{folder_of(config, split)}data-{unit.index:05d}-{part.index:03d}.arrow"
            shards[split] = write_shard(job.root, name, schema, assembler.batches())
    stats.num_parts = 1
    stats.num_input_bytes = part.num_bytes
    stats.num_tokens_special = documents.tokens.num_special
    stats.check(config.max_len)
    return shards, stats
