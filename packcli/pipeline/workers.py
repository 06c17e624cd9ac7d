"""Work over the units of a run, by whatever executor: in this process, in several, or on Ray."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from packcli import readers, tokenization
from packcli.config import PackConfig
from packcli.dataset import Committed, Limit, Output, Sidecar
from packcli.pipeline.engines import LESS_MEMORY, Emit, Executor, Result, Work, lost_worker_explained
from packcli.pipeline.job import Job, Recipe, RunSpec
from packcli.pipeline.unit import run_unit

SMALLER_UNITS = f"{LESS_MEMORY}, and so do smaller units: unit_bytes in packcli.toml"
"""What to do when a worker died and nothing is kept of the work."""

RESUMES = (
    "committed units are kept: the same command resumes, perhaps with another --workers; "
    "a smaller --unit-bytes takes less memory, and is another run"
)
"""What to do when a worker of a run died."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is to be done, and how."""

    done: Committed
    todo: list[readers.Unit]
    choice: tokenization.Choice | None
    """The engine of tokenization; None when nothing is to be done."""
    executor: Executor
    total_bytes: int
    """Of the input files, about."""
    left_bytes: int
    """Of what is to be done."""
    limit: Limit
    """How many rows may be skipped."""


def run_units(
    target: Output,
    spec: RunSpec,
    config: PackConfig,
    schedule: Schedule,
    units: Iterable[readers.Unit],
    emit: Emit,
) -> Generator[list[Sidecar], None, None]:
    """Packs units as scheduled; yields the sidecars of each. To be closed.

    Raises:
        PackcliError: as `for_each_unit`.
    """
    executor, choice = schedule.executor, schedule.choice
    if choice is None:
        raise AssertionError("nothing is to be done")
    job = Job(
        recipe=spec.recipe(config, choice, executor.threads),
        root=target.root,
        committed=frozenset(schedule.done.parts),
        limit=schedule.limit,
    )
    if executor.engine == "ray":
        job = job.anywhere()
    work = functools.partial(run_unit, job)
    return for_each_unit(work, job.recipe, units, executor, choice, emit, hint=RESUMES)


def for_each_unit(
    work: Work[readers.Unit, Result],
    recipe: Recipe,
    units: Iterable[readers.Unit],
    executor: Executor,
    choice: tokenization.Choice,
    emit: Emit,
    *,
    hint: str = SMALLER_UNITS,
) -> Generator[Result, None, None]:
    """Does the same work on every unit; yields what each gave, in order, but from Ray. To be closed.

    Args:
        work: Called with a unit, and with what takes its events.
        recipe: With which the work makes documents.
        units: Of the inputs of the recipe.
        executor: Who does the work.
        choice: The engine that the recipe names. Work in this process uses it, and does not load it again.
        emit: Takes the events of the work.
        hint: What to do when workers die.

    Raises:
        PackcliError: worker processes died over a unit again and again.
    """
    with contextlib.ExitStack() as stack:
        if executor.engine == "serial":
            stack.enter_context(tokenization.keep_loaded(recipe.tokenizer, recipe.threads, choice))
        stack.enter_context(lost_worker_explained(functools.partial(_name_of, recipe), hint))
        results = executor.run(work, units, workers=executor.workers, emit=emit)
        yield from stack.enter_context(contextlib.closing(results))


def _name_of(recipe: Recipe, unit: readers.Unit) -> str:
    """A unit, for people."""
    names = ", ".join(recipe.sources[span.source].name for span in unit.spans[:3])
    return f"unit {unit.index} (of {names})"
