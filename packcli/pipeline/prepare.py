"""What a run is, found out before the work: its inputs, record shape, tokenizer, template, units and fingerprint."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from packcli import readers, storage, tokenization
from packcli.config import PackConfig, RunOptions, parse_mix, reading_rules
from packcli.dataset import Output, describe_run, read_unit
from packcli.errors import MismatchError, NoInputError, OutputError, TokenizerError, UsageError
from packcli.pipeline.custom_strategy import pin_strategy
from packcli.pipeline.engines import Emit, get_engine, local_executor, lost_worker_explained
from packcli.pipeline.events import Started
from packcli.pipeline.job import RunSpec
from packcli.pipeline.probe import GUARD_ROWS, marker_of, sample, text_bytes
from packcli.tokenization import DocumentEncoder

ALONE_BYTES = 1 << 32
"""Bytes below which this process counts the rows sooner than others would have started."""

Warn = Callable[[str], None]
"""Gets what the user should know, and that is no error."""


def find_inputs(
    names: Sequence[str], target: Output, config: PackConfig, options: RunOptions, warn: Warn
) -> list[readers.Source]:
    """The sources that the names mean; none of them may lie in the output."""
    warnings: list[str] = []
    sources = readers.find_sources(names, warnings, **reading_rules(config, options))
    _refuse_inside(sources, target.root)
    for message in warnings:
        warn(message)
    return sources


def _refuse_inside(sources: Sequence[readers.Source], output: storage.Location) -> None:
    """Raises OutputError when an input lies in the output: it would be packed into itself, or removed."""
    for source in sources:
        if storage.is_inside(source.path, output):
            raise OutputError(f"{source.path} is an input, and lies in the output {output}", "choose another -o")


def describe(
    config: PackConfig, options: RunOptions, target: Output, sources: list[readers.Source]
) -> tuple[PackConfig, RunSpec]:
    """Finds the record shape, the tokenizer and the template, cuts the units, and makes the fingerprint.

    Returns:
        The resolved config: what hangs on the record shape is filled in; and the run.
    """
    fields = readers.find_fields(
        sources, config.text_field, config.text_template, format_=config.format, mapped=config.field
    )
    recorded_date = target.state.recorded_date()
    config = pin_strategy(config.resolved(fields.format, recorded_date or time.strftime("%Y-%m-%d")))
    tokenizer = tokenization.find_tokenizer(config, allow_network=options.allow_network)
    template = None
    if fields.has_messages:
        directory = Path(tokenizer.path).parent
        template = tokenization.find_template(config.chat_template, directory, tokenizer.name, str(config.date))
        if (
            config.chat_template == tokenization.CHATML
            and tokenization.CHATML_TURN not in tokenization.read_vocabulary(tokenizer).special
        ):
            raise TokenizerError(
                f"--chat-template chatml writes {tokenization.CHATML_TURN}, which is no special token of "
                f"{tokenizer.name}",
                "give a tokenizer that has it, or a template for this one",
            )
    elif config.chat_template is not None:
        raise UsageError(f"--chat-template: records of format {fields.format} hold no messages", "leave it out")
    identity = template.identity() if template is not None else None
    config = dataclasses.replace(config, date=identity["date"] if identity else None)
    units = cut_units(sources, config.unit_bytes, options.workers or num_cpus())
    text = {**fields.identity(), "chat_template": identity}
    run = describe_run(config, tokenizer, sources, text, len(units))
    return config, RunSpec(sources, fields, units, tokenizer, template, run)


def cut_units(sources: list[readers.Source], unit_bytes: int, workers: int) -> list[readers.Unit]:
    """readers.cut_units; plain JSONL, whose rows must be counted, is read by several processes, a file each."""
    counted = [(index, source) for index, source in enumerate(sources) if readers.is_read_to_be_cut(source, unit_bytes)]
    num_processes = min(workers, len(counted))
    if num_processes < 2 or sum(source.num_bytes for _, source in counted) < ALONE_BYTES:
        return readers.cut_units(sources, unit_bytes)
    work = functools.partial(_cut_source, unit_bytes)
    spans = get_engine("processes")(work, counted, workers=num_processes, emit=lambda event: None)
    with contextlib.closing(spans), lost_worker_explained(lambda item: str(item[1].name)):
        # readers.cut_units asks for the files in the order in which the processes get them, and for each once.
        in_processes = {index for index, _ in counted}

        def cut(index: int, source: readers.Source, unit_bytes: int) -> list[readers.Span]:
            return next(spans) if index in in_processes else readers.cut_source(index, source, unit_bytes)

        return readers.cut_units(sources, unit_bytes, cut)


def _cut_source(unit_bytes: int, item: tuple[int, readers.Source], emit: Emit) -> list[readers.Span]:
    return readers.cut_source(*item, unit_bytes)


def num_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def guard_first_rows(
    spec: RunSpec,
    config: PackConfig,
    rows: list[tuple[readers.Row, Callable[[], str]]],
    choice: tokenization.Choice,
    warn: Warn,
) -> None:
    """Compares rows with what `tokenizers` gives for their whole text; raises EngineError."""
    if not rows:
        return
    encoder = DocumentEncoder(marker_of(spec, config), choice.engine, choice.spot_check)
    has_controls = [encoder.compare(row, place) for row, place in rows]
    if spec.template is not None and not any(has_controls):
        warn("the chat template writes no control token of this tokenizer: turns end as plain text")


def refuse_changed_rows(target: Output, spec: RunSpec, config: PackConfig) -> None:
    """Raises MismatchError when the rows of a committed part are not those of the input any more.

    Only inputs whose time of change is not the one remembered are read; an input that was only touched passes.
    """
    if not (target.root / "units").is_dir():
        return
    used = sorted({span.source for unit in spec.units for span in unit.spans})
    changed = {used[index] for index in target.state.changed_since([spec.sources[index] for index in used])}
    if not changed:
        return
    for unit in spec.units:
        names = [spec.sources[span.source].name for span in unit.spans if span.source in changed]
        recorded = {each.part: each.input_xxh3 for each, _ in read_unit(target.root, unit.index)} if names else {}
        if not recorded:
            continue
        digests = readers.digest_parts(
            unit,
            spec.sources,
            spec.fields,
            unit_bytes=config.unit_bytes,
            split_on=config.split_on,
        )
        for part, before in recorded.items():
            now = digests[part] if part < len(digests) else "nothing"
            if now != before:
                raise MismatchError(
                    f"{target.root} was made from other rows: {', '.join(names)} has changed "
                    f"(unit {unit.index} part {part}: XXH3 was {before[:12]}, now it is {now[:12]})",
                    target.way_out,
                )


def unit_sizes(spec: RunSpec) -> list[int]:
    """Bytes of the files that each unit covers, about, for progress: each span of a file gets the same share of it."""
    if "mix" in spec.run:  # some are read more than once
        from packcli.pipeline.mixture import file_bytes

        mix = spec.run["mix"]
        return [file_bytes([unit], spec.sources, mix) for unit in spec.units]
    num_spans = collections.Counter(span.source for unit in spec.units for span in unit.spans)
    sources = spec.sources
    return [sum(sources[span.source].num_bytes // num_spans[span.source] for span in unit.spans) for unit in spec.units]


class _Nowhere(Output):
    """An output that does not exist: for a dry run."""

    def recorded_date(self) -> str | None:
        return None


def dry_run(
    sources: list[readers.Source], config: PackConfig, options: RunOptions, warn: Warn, *, guard_chars: int
) -> tuple[RunSpec, PackConfig, tokenization.Choice]:
    """What `pack` would make of these sources in a new output; nothing is written.

    Args:
        sources: What is to be read.
        config: Its settings.
        options: Workers, engine of tokenization, network.
        warn: Takes what the user should know.
        guard_chars: Characters of the first texts that both engines encode, at most.

    Returns:
        The run, the config with its defaults filled in, and the engine of tokenization.
    """
    config, spec = describe(config, options, _Nowhere(Path()), sources)
    threads = local_executor(options.workers or num_cpus(), len(spec.units)).threads
    texts, rows = sample(spec, config, most_chars=guard_chars)
    choice = tokenization.choose_engine(
        spec.tokenizer, options.tokenizer_engine, texts, num_bytes=text_bytes(sources), threads=threads
    )
    guard_first_rows(spec, config, rows[:GUARD_ROWS], choice, warn)
    return spec, config, choice


def input_names(names: Sequence[str], config: PackConfig) -> list[str]:
    """The inputs, which a mixture names itself.

    Raises:
        UsageError: both name some.
        NoInputError: neither does.
    """
    if names and config.mix:
        raise UsageError(f"{names[0]}: inputs of a mixture have shares", "name all of them with --mix, or none")
    if not names and not config.mix:
        raise NoInputError("no input", "name a file, a directory, a quoted glob, or - for standard input")
    return list(names) or [path for path, _ in parse_mix(config.mix)]


def default_output(names: Sequence[str], config: PackConfig) -> str:
    """Where to write when no output is named."""
    return "mixture-packed" if config.mix else readers.default_output_name(names)


def describe_all(
    config: PackConfig, options: RunOptions, target: Output, sources: list[readers.Source], emit: Emit
) -> tuple[PackConfig, RunSpec]:
    """`describe`; the tokens of a mixture are counted, unless the output knows them from an earlier run."""
    config, spec = describe(config, options, target, sources)
    if config.mix:
        from packcli.pipeline.mixture import mixed

        spec = mixed(config, options, target, spec, num_cpus(), emit, _begin_counting(emit))
    return config, spec


def _begin_counting(emit: Emit) -> Callable[[int, int], None]:
    return lambda total_bytes, workers: emit(Started(total_bytes, 0, workers, "counting"))
