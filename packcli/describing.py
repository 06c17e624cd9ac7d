"""What a run is, found out before the work: its inputs, record shape, tokenizer, template, units and fingerprint."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from packcli import chat, probe, readers, stores, tokenizing
from packcli.collecting import read_unit
from packcli.config import PackConfig, RunOptions
from packcli.documents import DocumentMaker
from packcli.errors import MismatchError, OutputError, TokenizerError, UsageError
from packcli.manifest import Output, describe_run

Warn = Callable[[str], None]
"""Gets what the user should know, and that is no error."""


def find_inputs(names: Sequence[str], target: Output, options: RunOptions, warn: Warn) -> list[readers.Source]:
    """The sources that the names mean; none of them may lie in the output."""
    warnings: list[str] = []
    sources = readers.find_sources(names, warnings, max_row_bytes=options.max_line_bytes)
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
    config = config.resolved(fields.format, seen or time.strftime("%Y-%m-%d"))
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
    units = readers.cut_units(sources, config.unit_bytes)
    text = {**fields.identity(), "chat_template": identity}
    run = describe_run(config, tokenizer, sources, text, len(units))
    return config, probe.Described(sources, fields, units, tokenizer, template, run)


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
    changed = set(target.changed_since(described.sources))
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
    num_spans = collections.Counter(span.source for unit in described.units for span in unit.spans)
    sources = described.sources
    return [
        sum(sources[span.source].num_bytes // num_spans[span.source] for span in unit.spans) for unit in described.units
    ]
