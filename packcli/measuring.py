"""Lengths of documents: one pass over an input, read and tokenized in parts as `pack` would; nothing else is kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from packcli import readers, tokenizing
from packcli.config import PackConfig, RunOptions
from packcli.describing import num_cpus
from packcli.engine import Emit, get_engine
from packcli.errors import NoInputError, UsageError
from packcli.job import Job
from packcli.pipeline import Started, Warned
from packcli.probe import GUARD_TEXT_CHARS
from packcli.strategies.random import mix
from packcli.work import ENCODERS, Progress, load_encoder

ANY_DATE = "1970-01-01"
"""Text asks for no day."""

GUARD_CHARS = 1 << 14
"""Characters of the input that both engines encode at start. There are no spot checks: no id is kept."""


@dataclass(frozen=True, slots=True)
class PartLengths:
    """The documents of one part of a unit."""

    unit: int
    part: int
    lengths: NDArray[np.int64]
    """int64[D]: tokens, special ones included."""
    source: NDArray[np.int32]
    """int32[D]: index of the input file."""
    num_documents: int
    """Read, empty and not sampled ones included."""
    num_empty: int
    num_rejected: int = 0
    """Rows that cannot be used."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """What one pass over an input gives."""

    parts: list[PartLengths]
    names: list[str]
    """Names of the input files."""
    sample: float
    """Share of the documents that were tokenized, 0..1."""
    tokenizer: str
    engine: str

    @property
    def num_documents(self) -> int:
        """Documents read that are not empty."""
        return sum(part.num_documents - part.num_empty for part in self.parts)

    @property
    def scale(self) -> float:
        """Documents for one that was tokenized."""
        measured = sum(len(part.lengths) for part in self.parts)
        return self.num_documents / measured if measured else 0.0

    @property
    def all(self) -> NDArray[np.int64]:
        """Lengths of all parts, int64[D]."""
        return np.concatenate([part.lengths for part in self.parts])

    @property
    def sources(self) -> NDArray[np.int32]:
        """Sources of all parts, int32[D]."""
        return np.concatenate([part.source for part in self.parts])


def measure(
    inputs: Sequence[str], config: PackConfig, options: RunOptions, *, sample: float = 1.0, emit: Emit
) -> Lengths:
    """Reads and tokenizes an input, and keeps the lengths.

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
    sources = readers.find_sources(list(inputs), warnings, skip_bad=config.on_error == "skip", lenient=config.lenient)
    for message in warnings:
        emit(Warned(message))
    fields = readers.find_fields(
        sources, config.text_field, config.text_template, format_=config.format, mapped=config.field
    )
    if fields.format != "text":
        raise UsageError(
            f"stats on raw input measures text, and these records are of format {fields.format}",
            "pack them, then `packcli stats` on the output; or name a field with --text-field",
        )
    config = config.resolved(fields.format, ANY_DATE)
    tokenizer = tokenizing.find_tokenizer(config, allow_network=options.allow_network)
    units = readers.cut_units(sources, config.unit_bytes)
    workers = options.workers or num_cpus()
    num_processes = max(1, min(workers, len(units)))
    threads = max(1, workers // num_processes)
    first = _first_texts(units, sources, fields, config)
    chosen = tokenizing.choose_engine(tokenizer, options.tokenizer_engine, first, threads=threads)
    job = Job(
        config=config,
        root=Path(),
        sources=tuple(sources),
        fields=fields,
        tokenizer=tokenizer,
        template=None,
        engine=chosen.engine.name,
        threads=threads,
        committed=frozenset(),
    )
    emit(Started(sum(source.num_bytes for source in sources), 0, num_processes))
    if num_processes == 1:
        ENCODERS[job.encoder_key] = (chosen.engine, chosen.spot_check)
    try:
        engine = get_engine("serial" if num_processes == 1 else "processes")
        work = functools.partial(measure_unit, job, sample)
        parts = [part for parts in engine(work, units, workers=num_processes, emit=emit) for part in parts]
    finally:
        ENCODERS.clear()
    rejected = sum(part.num_rejected for part in parts)
    if rejected:
        emit(Warned(f"{rejected:,} rows cannot be used, and are left out"))
    lengths = Lengths(parts, [source.name for source in sources], sample, tokenizer.name, chosen.engine.name)
    if not parts or not len(lengths.all):
        raise NoInputError(f"no document to measure: {sum(part.num_documents for part in parts)} read")
    return lengths


def _first_texts(
    units: Sequence[readers.Unit], sources: Sequence[readers.Source], fields: readers.Fields, config: PackConfig
) -> list[str]:
    """Texts from the beginning of the input for the guard, cut, GUARD_CHARS in all."""
    extract = readers.TextExtractor(fields, sources)
    texts: list[str] = []
    left = GUARD_CHARS
    for unit in units[:1]:
        for part in readers.read_parts(
            unit, sources, fields, unit_bytes=config.unit_bytes, split_on=config.split_on, hashed=False
        ):
            for chunk in part.chunks():
                for text in extract(chunk)[0]:
                    texts.append(text[: min(left, GUARD_TEXT_CHARS)])
                    left -= len(texts[-1])
                    if left <= 0:
                        return texts
    return texts


def measure_unit(job: Job, sample: float, unit: readers.Unit, emit: Callable[[Progress], None]) -> list[PartLengths]:
    """The lengths of a unit, part by part."""
    engine, _ = load_encoder(job)
    bad_rows = readers.BadRows(job.sources)
    extract = readers.TextExtractor(job.fields, job.sources, bad_rows)
    meter = readers.Meter()
    extra = (job.tokenizer.bos_id is not None) + (job.tokenizer.eos_id is not None)
    found = []
    for part in readers.read_parts(
        unit,
        job.sources,
        job.fields,
        unit_bytes=job.config.unit_bytes,
        split_on=job.config.split_on,
        hashed=False,
        meter=meter,
    ):
        lengths: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
        sources: list[NDArray[np.int32]] = [np.empty(0, dtype=np.int32)]
        num_documents = num_empty = 0
        rejected_before = bad_rows.num_rejected
        seen = meter.file_bytes
        for chunk in part.chunks():
            texts, rows = extract(chunk)
            num_documents += len(texts)
            num_empty += sum(not text for text in texts)
            if sample < 1.0:
                taken = _sampled(rows, chunk.source, job.config.seed, sample).tolist()
                texts = [text for text, take in zip(texts, taken, strict=True) if take and text]
            else:
                texts = [text for text in texts if text]
            for first in range(0, len(texts), tokenizing.BATCH_DOCUMENTS):
                batch = texts[first : first + tokenizing.BATCH_DOCUMENTS]
                _, offsets = engine.encode(batch)
                lengths.append(np.diff(offsets).astype(np.int64) + extra)
            sources.append(np.full(len(texts), chunk.source, dtype=np.int32))
            emit(Progress(meter.file_bytes - seen, len(rows)))
            seen = meter.file_bytes
        found.append(
            PartLengths(
                unit.index,
                part.index,
                np.concatenate(lengths),
                np.concatenate(sources),
                num_documents,
                num_empty,
                bad_rows.num_rejected - rejected_before,
            )
        )
    return found


def _sampled(rows: NDArray[np.int64], source: int, seed: int, share: float) -> NDArray[np.bool_]:
    """Which rows are in the sample: by a hash of source and row (SplitMix64), the same wherever it runs."""
    value = rows.astype(np.uint64) + np.uint64(mix(seed, 7, source))
    with np.errstate(over="ignore"):
        value = value * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    taken: NDArray[np.bool_] = (value >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    return taken
