"""Lengths and loss masks of documents: one pass over an input, read and tokenized in parts as `pack` would.

No token is kept. `what_if` plans what comes out, by as many settings as it likes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli import readers, tokenization
from packcli.config import PackConfig, RunOptions, reading_rules
from packcli.dataset import Stats, splits_of
from packcli.errors import NoInputError, UsageError
from packcli.packing import LengthBuffer, LossRuns
from packcli.pipeline.documents import MaskedPartDocuments, PartDocuments, make_extractor
from packcli.pipeline.engines import Emit, get_engine
from packcli.pipeline.events import Progress, Started, Warned
from packcli.pipeline.job import Job
from packcli.pipeline.prepare import dry_run, num_cpus
from packcli.seeds import derive
from packcli.tokenization import ENCODERS, load_encoder

GUARD_CHARS = 1 << 14
"""Characters of the input that both engines encode at start: no id is kept."""


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
    """PartDocuments read, empty and not sampled ones included."""
    loss: LossRuns | None = None
    """Which of the tokens of all documents carry loss; None: every one."""
    splits: tuple[NDArray[np.int64], ...] | None = None
    """Indices of the documents of each split, as in paths.splits_of; None: all are in the first."""
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
    """What it was tokenized with; resolved."""
    sample: float
    """Share of the documents that were tokenized, 0..1."""
    tokenizer: str
    engine: str
    text: dict[str, Any] = field(default_factory=dict)
    """Record shape, fields and template, as in manifest.json."""

    @property
    def num_documents(self) -> int:
        """PartDocuments read that are not empty; of a sample, about."""
        return round(len(self.all) * self.scale)

    @property
    def scale(self) -> float:
        """PartDocuments read for one that was tokenized."""
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
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        masks: list[LossRuns] = []
        together = []
        first = 0
        for part in self.parts:
            if part.loss is not None:
                masks.append(part.loss.moved(int(offsets[first])))
            splits = part.splits if part.splits is not None else (np.arange(len(part.lengths)),)
            together += [(docs + first, (part.unit, part.part, number)) for number, docs in enumerate(splits)]
            first += len(part.lengths)
        source = np.concatenate([part.source for part in self.parts])
        return Joined(lengths, offsets, source, LossRuns.join(masks) if masks else None, tuple(together))


def measure(
    inputs: Sequence[str], config: PackConfig, options: RunOptions, *, sample: float = 1.0, emit: Emit
) -> Lengths:
    """Reads and tokenizes an input, and keeps the lengths and the loss masks.

    Args:
        inputs: Files, directories, globs.
        config: What to tokenize with; max_len and strategy are not looked at.
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
    described, config, chosen = dry_run(
        sources, config, options, lambda message: emit(Warned(message)), guard_chars=GUARD_CHARS
    )
    workers = options.workers or num_cpus()
    num_processes = max(1, min(workers, len(described.units)))
    job = Job(
        # What is too long for one max_len is measured like the rest; to refuse it is for those who plan.
        config=dataclasses.replace(config, overlong="split") if config.overlong == "error" else config,
        root=Path(),
        sources=tuple(sources),
        fields=described.fields,
        tokenizer=described.tokenizer,
        template=described.template,
        engine=chosen.engine.name,
        threads=max(1, workers // num_processes),
        committed=frozenset(),
    )
    emit(Started(sum(source.num_bytes for source in sources), 0, num_processes))
    if num_processes == 1:
        ENCODERS[job.encoder_key] = (chosen.engine, chosen.spot_check)
    try:
        engine = get_engine("serial" if num_processes == 1 else "processes")
        work = functools.partial(measure_unit, job, sample)
        parts = [part for parts in engine(work, described.units, workers=num_processes, emit=emit) for part in parts]
    finally:
        ENCODERS.clear()
    rejected = sum(part.stats.num_rows_rejected for part in parts)
    if rejected:
        emit(Warned(f"{rejected:,} rows cannot be used, and are left out"))
    lengths = Lengths(
        parts,
        [source.name for source in sources],
        config,
        sample,
        described.tokenizer.name,
        chosen.engine.name,
        described.run["text"],
    )
    if not parts or not len(lengths.all):
        raise NoInputError(f"no document to measure: {sum(part.num_read for part in parts)} read")
    return lengths


def measure_unit(job: Job, sample: float, unit: readers.Unit, emit: Callable[[Progress], None]) -> list[PartLengths]:
    """The lengths of a unit, part by part."""
    engine, spot_check = load_encoder(job.tokenizer, job.engine, job.threads)
    if not job.config.masked:
        spot_check = _Unchecked(job.tokenizer, engine)
    meter = readers.ReadProgress()
    found = []
    for part in job.parts(unit, meter=meter, hashed=False):
        bad_rows = readers.BadRows(job.sources)
        extract = make_extractor(job.fields, job.sources, bad_rows)
        tokens = LengthBuffer(bos=job.tokenizer.bos_id, eos=job.tokenizer.eos_id, masked=job.config.masked)
        documents = (MaskedPartDocuments if job.config.masked else PartDocuments)(
            job, engine, spot_check, bad_rows, tokens
        )
        num_read = 0
        seen = meter.file_bytes
        for chunk in part.chunks():
            texts, rows = extract(chunk)
            num_read += len(texts)
            emit(Progress(meter.file_bytes - seen, len(texts)))
            seen = meter.file_bytes
            if sample < 1.0:
                taken = np.flatnonzero(_sampled(rows, chunk.source, job.config.seed, sample))
                texts, rows = [texts[index] for index in taken.tolist()], rows[taken]
            documents.add(readers.raw_of(chunk), texts, rows)
        spot_check.settle()
        documents.stats.num_rows_rejected = bad_rows.num_rejected
        lengths, loss = tokens.measured()
        splits = None
        if len(splits_of(job.config)) > 1:
            splits = tuple(documents.of_split(split, len(lengths)) for split in splits_of(job.config))
        source = documents.origin().source
        found.append(PartLengths(unit.index, part.index, lengths, source, num_read, loss, splits, documents.stats))
    return found


class _Unchecked(tokenization.SpotCheck):
    """No spot check: of plain text nothing but lengths is kept, and the guard has seen the engine."""

    def look(self, texts: Sequence[str], ids: NDArray[np.uint32], offsets: NDArray[np.integer]) -> None:
        """Looks at nothing."""


def _sampled(rows: NDArray[np.int64], source: int, seed: int, share: float) -> NDArray[np.bool_]:
    """Which rows are in the sample: by a hash of source and row (SplitMix64), the same wherever it runs."""
    value = rows.astype(np.uint64) + np.uint64(derive(seed, 7, source))
    with np.errstate(over="ignore"):
        value = value * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    taken: NDArray[np.bool_] = (value >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    return taken
