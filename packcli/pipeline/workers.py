"""The same work over the units of a run, wherever it is done: what is prepared, and the job."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from packcli import readers, tokenization
from packcli.config import PackConfig
from packcli.dataset import Committed, Limit, Output, Sidecar
from packcli.errors import PackcliError
from packcli.pipeline.engines import RETRIES, Emit, Executor, LostWorkerError
from packcli.pipeline.job import Job, RunSpec
from packcli.pipeline.unit import run_unit
from packcli.tokenization import ENCODERS


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is to be done, and how."""

    done: Committed
    todo: list[readers.Unit]
    chosen: tokenization.Choice | None
    """The engine of tokenization; None when nothing is to be done."""
    crew: Executor
    """Who does it."""
    total_bytes: int
    """Of the input files, about."""
    left_bytes: int
    """Of what is to be done."""
    limit: Limit
    """How many rows may be skipped."""


def make_job(target: Output, described: RunSpec, config: PackConfig, ready: Schedule) -> Job:
    """What the workers of a run are told."""
    if ready.chosen is None:
        raise AssertionError("nothing is to be done")
    return Job(
        config=config,
        root=target.root,
        sources=tuple(described.sources),
        fields=described.fields,
        tokenizer=described.tokenizer,
        template=described.template,
        engine=ready.chosen.engine.name,
        threads=ready.crew.threads,
        committed=frozenset(ready.done.parts),
        limit=ready.limit,
    )


def run_units(
    job: Job, units: Iterable[readers.Unit], ready: Schedule, emit: Emit
) -> Generator[list[Sidecar], None, None]:
    """Does units, wherever the crew works; yields what each gave. To be closed.

    Raises:
        PackcliError: worker processes died over a unit again and again.
    """
    crew = ready.crew
    if crew.engine == "serial" and ready.chosen is not None:
        ENCODERS[job.encoder_key] = (ready.chosen.engine, ready.chosen.spot_check)  # loaded already
    try:
        work = functools.partial(run_unit, job.anywhere() if crew.engine == "ray" else job)
        with contextlib.closing(crew.run(work, units, workers=crew.workers, emit=emit)) as results:
            yield from results
    except LostWorkerError as lost:
        names = ", ".join(job.sources[span.source].name for span in lost.item.spans[:3])
        raise PackcliError(
            f"a worker process died {RETRIES + 1} times over unit {lost.item.index} (of {names}), "
            "perhaps for want of memory",
            "committed units are kept: the same command resumes, perhaps with another --workers; "
            "a smaller --unit-bytes takes less memory, and is another run",
        ) from None
    finally:
        ENCODERS.clear()
