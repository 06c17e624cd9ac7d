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

from packcli import chat, hooks, probe, readers, stores, tokenizing
from packcli.collecting import read_unit
from packcli.config import PackConfig, RunOptions
from packcli.documents import DocumentMaker
from packcli.engine import Emit, get_engine
from packcli.errors import MismatchError, OutputError, TokenizerError, UsageError
from packcli.fingerprints import describe_run
from packcli.manifest import Output
from packcli.rejects import reading_rules

ALONE_BYTES = 1 << 32
"""Rows of less are counted before other processes would have begun."""

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


def _refuse_inside(sources: Sequence[readers.Source], output: stores.Location) -> None:
    """Raises OutputError when an input lies in the output: it would be packed into itself, or removed."""
    for source in sources:
        if stores.is_inside(source.path, output):
            raise OutputError(f"{source.path} is an input, and lies in the output {output}", "choose another -o")


def describe(
    config: PackConfig, options: RunOptions, target: Output, sources: list[readers.Source]
) -> tuple[PackConfig, probe.Described]:
    """Finds the record shape, the tokenizer and the template, cuts the units, and makes the fingerprint.

    Returns:
        The resolved config: what hangs on the record shape is filled in; and the run.
    """
    fields = readers.find_fields(
        sources, config.text_field, config.text_template, format_=config.format, mapped=config.field
    )
    seen = target.recorded_date()
    config = hooks.pin_strategy(config.resolved(fields.format, seen or time.strftime("%Y-%m-%d")))
    tokenizer = tokenizing.find_tokenizer(config, allow_network=options.allow_network)
    template = None
    if fields.has_messages:
        directory = Path(tokenizer.path).parent
        template = chat.find_template(config.chat_template, directory, tokenizer.name, str(config.date))
        if (
            config.chat_template == chat.CHATML
            and chat.CHATML_TURN not in tokenizing.read_vocabulary(tokenizer).special
        ):
            raise TokenizerError(
                f"--chat-template chatml writes {chat.CHATML_TURN}, which is no special token of {tokenizer.name}",
                "give a tokenizer that has it, or a template for this one",
            )
    elif config.chat_template is not None:
        raise UsageError(f"--chat-template: records of format {fields.format} hold no messages", "leave it out")
    identity = template.identity() if template is not None else None
    config = dataclasses.replace(config, date=identity["date"] if identity else None)
    units = cut_units(sources, config.unit_bytes, options.workers or num_cpus())
    text = {**fields.identity(), "chat_template": identity}
    run = describe_run(config, tokenizer, sources, text, len(units))
    return config, probe.Described(sources, fields, units, tokenizer, template, run)


def cut_units(sources: list[readers.Source], unit_bytes: int, workers: int) -> list[readers.Unit]:
    """readers.cut_units; plain JSONL, whose rows must be counted, is read by several processes, a file each."""
    counted = [(index, source) for index, source in enumerate(sources) if readers.is_read_to_be_cut(source, unit_bytes)]
    num_processes = min(workers, len(counted))
    if num_processes < 2 or sum(source.num_bytes for _, source in counted) < ALONE_BYTES:
        return readers.cut_units(sources, unit_bytes)
    work = functools.partial(_cut_source, unit_bytes)
    found = get_engine("processes")(work, counted, workers=num_processes, emit=lambda event: None)
    with contextlib.closing(found):
        # Files are asked for in this order, each once: none waits for another but those that are read meanwhile.
        asked = {index for index, _ in counted}

        def cut(index: int, source: readers.Source, unit_bytes: int) -> list[readers.Span]:
            return next(found) if index in asked else readers.cut_source(index, source, unit_bytes)

        return readers.cut_units(sources, unit_bytes, cut)


def _cut_source(unit_bytes: int, item: tuple[int, readers.Source], emit: Emit) -> list[readers.Span]:
    return readers.cut_source(*item, unit_bytes)


def num_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compare_first(
    described: probe.Described,
    config: PackConfig,
    rows: list[tuple[readers.Row, Callable[[], str]]],
    chosen: tokenizing.Choice,
    warn: Warn,
) -> None:
    """Compares rows with what `tokenizers` gives for their whole text; raises EngineError."""
    if not rows:
        return
    maker = DocumentMaker(probe.marker_of(described, config), chosen.engine, chosen.spot_check)
    has_controls = [maker.compare(row, place) for row, place in rows]
    if described.template is not None and not any(has_controls):
        warn("the chat template writes no control token of this tokenizer: turns end as plain text")


def refuse_changed_rows(target: Output, described: probe.Described, config: PackConfig) -> None:
    """Raises MismatchError when the rows of a committed part are not those of the input any more.

    Only inputs whose time of change is not the one remembered are read; an input that was only touched passes.
    """
    if not (target.root / "units").is_dir():
        return
    used = sorted({span.source for unit in described.units for span in unit.spans})
    changed = {used[index] for index in target.changed_since([described.sources[index] for index in used])}
    if not changed:
        return
    for unit in described.units:
        names = [described.sources[span.source].name for span in unit.spans if span.source in changed]
        recorded = {each.part: each.input_xxh3 for each, _ in read_unit(target.root, unit.index)} if names else {}
        if not recorded:
            continue
        digests = readers.digest_parts(
            unit,
            described.sources,
            described.fields,
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


def unit_sizes(described: probe.Described) -> list[int]:
    """Bytes of the files that each unit covers, about, for progress: spans of a file count alike."""
    if "mix" in described.run:  # some are read more than once
        from packcli import mixing

        mix = described.run["mix"]
        return [mixing.file_bytes([unit], described.sources, mix) for unit in described.units]
    num_spans = collections.Counter(span.source for unit in described.units for span in unit.spans)
    sources = described.sources
    return [
        sum(sources[span.source].num_bytes // num_spans[span.source] for span in unit.spans) for unit in described.units
    ]


class _Nowhere(Output):
    """No output: nothing is there already, and nothing is written."""

    def recorded_date(self) -> str | None:
        return None


def foresee(
    sources: list[readers.Source], config: PackConfig, options: RunOptions, warn: Warn, *, guard_chars: int
) -> tuple[probe.Described, PackConfig, tokenizing.Choice]:
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
    config, described = describe(config, options, _Nowhere(Path()), sources)
    workers = options.workers or num_cpus()
    threads = max(1, workers // max(1, min(workers, len(described.units))))
    texts, rows = probe.sample(described, config, most_chars=guard_chars)
    chosen = tokenizing.choose_engine(
        described.tokenizer, options.tokenizer_engine, texts, num_bytes=probe.text_bytes(sources), threads=threads
    )
    compare_first(described, config, rows[: probe.GUARD_ROWS], chosen, warn)
    return described, config, chosen
