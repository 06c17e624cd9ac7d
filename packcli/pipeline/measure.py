"""Lengths and loss masks of documents: one pass over an input, read and tokenized in parts as `pack` would.

No token is kept. report.what_if plans these lengths with many settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli import readers
from packcli.config import PackConfig, RunOptions, reading_rules
from packcli.dataset import Stats, splits_of
from packcli.errors import NoInputError, UsageError
from packcli.packing import LengthBuffer, LossRuns, offsets
from packcli.pipeline.documents import read_documents
from packcli.pipeline.engines import Emit, local_executor
from packcli.pipeline.events import Started, Warned
from packcli.pipeline.job import Recipe
from packcli.pipeline.prepare import dry_run, num_cpus
from packcli.pipeline.workers import for_each_unit
from packcli.seeds import derive, sample_rows

GUARD_CHARS = 1 << 14
"""Characters of the input that both engines encode at start: fewer than for a run, since no id is kept."""


@dataclass(frozen=True, slots=True)
class PartLengths:
    """The documents of one part of a unit."""

    unit: int
    part: int
    lengths: NDArray[np.int64]
    """int64[D]: tokens, special ones included."""
    source: NDArray[np.int32]
    """int32[D]: index of the input file."""
    num_read: int
    """Documents read, empty and not sampled ones included."""
    loss: LossRuns | None = None
    """Which of the tokens of all documents carry loss; None: every one."""
    splits: tuple[NDArray[np.int64], ...] | None = None
    """Indices of the documents of each split, in the order of dataset.splits_of; None: all are in the first."""
    stats: Stats = field(default_factory=Stats)
    """What was counted while the sampled documents were tokenized."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The documents of all parts as one."""

    lengths: NDArray[np.int64]
    """int64[D]."""
    offsets: NDArray[np.int64]
    """int64[D+1]: where each document begins and ends."""
    source: NDArray[np.int32]
    """int32[D]."""
    loss: LossRuns | None
    together: tuple[tuple[NDArray[np.int64], tuple[int, int, int]], ...]
    """Indices of documents that `pack` plans together, and the unit, part and split that seed the plan."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """What one pass over an input gives."""

    parts: list[PartLengths]
    names: list[str]
    """Names of the input files."""
    config: PackConfig
    """What the input was tokenized with, defaults filled in."""
    sample: float
    """Share of the documents that were tokenized, 0..1."""
    tokenizer: str
    engine: str
    text: dict[str, Any] = field(default_factory=dict)
    """Record shape, fields and template, as in manifest.json."""

    @property
    def num_documents(self) -> int:
        """Documents read that are not empty; an estimate where only a sample was tokenized."""
        return round(len(self.all) * self.scale)

    @property
    def scale(self) -> float:
        """How many documents were read for each one that was tokenized: 1.0 without a sample."""
        taken = sum(part.stats.num_documents for part in self.parts)
        return sum(part.num_read for part in self.parts) / taken if taken else 0.0

    @property
    def stats(self) -> Stats:
        """What was counted while the sampled documents were tokenized."""
        return sum((part.stats for part in self.parts), Stats())

    @property
    def all(self) -> NDArray[np.int64]:
        """Lengths of all parts, int64[D]."""
        return np.concatenate([part.lengths for part in self.parts])

    @property
    def joined(self) -> Joined:
        """All parts as one."""
        lengths = self.all
        doc_offsets = offsets(lengths)
        masks: list[LossRuns] = []
        together = []
        first = 0
        for part in self.parts:
            if part.loss is not None:
                masks.append(part.loss.moved(int(doc_offsets[first])))
            splits = part.splits if part.splits is not None else (np.arange(len(part.lengths)),)
            together += [(docs + first, (part.unit, part.part, number)) for number, docs in enumerate(splits)]
            first += len(part.lengths)
        source = np.concatenate([part.source for part in self.parts])
        return Joined(lengths, doc_offsets, source, LossRuns.join(masks) if masks else None, tuple(together))


def measure(
    inputs: Sequence[str], config: PackConfig, options: RunOptions, *, sample: float = 1.0, emit: Emit
) -> Lengths:
    """Reads and tokenizes an input, and keeps the lengths and the loss masks.

    Args:
        inputs: Files, directories, globs.
        config: What to tokenize with; max_len and strategy have no effect.
        options: Workers, engine, network.
        sample: Share of the documents to tokenize, 0 < F <= 1, chosen by the seed and the row.
        emit: Takes Started, Progress and Warned events.

    Raises:
        PackcliError: what `pack` would raise.
    """
    if not 0.0 < sample <= 1.0:
        raise UsageError(f"--sample {sample} is not in 0 < F <= 1", "for example 0.05")
    if config.mix:
        raise UsageError("stats on raw input plans no mixtures", "leave mix out, and name the inputs")
    if "-" in inputs:
        raise NoInputError("stats cannot read standard input", "name a file, a directory or a quoted glob")
    warnings: list[str] = []
    sources = readers.find_sources(list(inputs), warnings, **reading_rules(config, options))
    for message in warnings:
        emit(Warned(message))
    spec, config, choice = dry_run(
        sources, config, options, lambda message: emit(Warned(message)), guard_chars=GUARD_CHARS
    )
    executor = local_executor(options.workers or num_cpus(), len(spec.units))
    # A document that is too long is measured like the others: whether to refuse it depends on the max_len of each plan.
    measured = dataclasses.replace(config, overlong="split") if config.overlong == "error" else config
    recipe = spec.recipe(measured, choice, executor.threads)
    emit(Started(sum(source.num_bytes for source in sources), 0, executor.workers))
    work = functools.partial(measure_unit, recipe, sample)
    with contextlib.closing(for_each_unit(work, recipe, spec.units, executor, choice, emit)) as results:
        parts = [part for parts in results for part in parts]
    rejected = sum(part.stats.num_rows_rejected for part in parts)
    if rejected:
        emit(Warned(f"{rejected:,} rows cannot be used, and are left out"))
    lengths = Lengths(
        parts,
        [source.name for source in sources],
        config,
        sample,
        spec.tokenizer.name,
        choice.engine.name,
        spec.run["text"],
    )
    if not parts or not len(lengths.all):
        raise NoInputError(f"no document to measure: {sum(part.num_read for part in parts)} read")
    return lengths


def measure_unit(recipe: Recipe, sample: float, unit: readers.Unit, emit: Emit) -> list[PartLengths]:
    """The lengths of a unit, part by part."""
    config, tokenizer = recipe.config, recipe.tokenizer
    progress = readers.ReadProgress()
    take = functools.partial(_sampled, seed=config.seed, share=sample) if sample < 1.0 else None
    measured = []
    for part in recipe.parts(unit, progress=progress, hashed=False):
        buffer = LengthBuffer(bos=tokenizer.bos_id, eos=tokenizer.eos_id, masked=config.masked)
        bad_rows = readers.BadRows(recipe.sources)
        documents = read_documents(
            recipe, part, bad_rows=bad_rows, into=buffer, progress=progress, emit=emit, take=take
        )
        lengths, loss = buffer.measured()
        splits = None
        if len(splits_of(config)) > 1:
            splits = tuple(documents.of_split(split, len(lengths)) for split in splits_of(config))
        measured.append(
            PartLengths(
                unit.index,
                part.index,
                lengths,
                documents.origin().source,
                documents.num_read,
                loss,
                splits,
                documents.stats,
            )
        )
    return measured


def _sampled(rows: NDArray[np.int64], source: int, *, seed: int, share: float) -> NDArray[np.bool_]:
    """Which rows of a source are in the sample, bool[D]."""
    return sample_rows(rows, derive(seed, 7, source), share)
