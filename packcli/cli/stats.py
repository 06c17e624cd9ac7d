"""`packcli stats`: the report of a packed directory, or of what packing would give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from packcli.cli.options import Debug, Json, plain_option
from packcli.config import PackConfig, RunOptions, read_settings, unescape
from packcli.config.choices import OVERLONG, canonical_strategy
from packcli.errors import MismatchError, NoInputError, StorageError, UsageError

if TYPE_CHECKING:
    from packcli.report import WhatIf


STATS_EPILOG = """Examples:

  packcli stats data-packed

  packcli stats first-packed second-packed

  packcli stats data-packed other-packed --html report.html

  packcli stats data.jsonl --max-len 2048,4096,8192 --tokenizer ./my-model

  packcli stats chats.jsonl --max-len 4096,8192 --tokenizer ./my-model --sample 0.1

packcli/json.md describes the keys of --json and the columns of --csv."""


def stats(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR... | INPUT...",
            help="Packed directories; or what pack reads, to see what packing would give.",
            show_default=False,
        ),
    ],
    recount: Annotated[
        bool, plain_option("--recount", help="Count again from the rows; exit code 3 on a difference.")
    ] = False,
    html: Annotated[
        Path | None,
        plain_option("--html", metavar="FILE", help="Write a page: figures, plots, packs; several DIR compared."),
    ] = None,
    markdown: Annotated[bool, plain_option("--markdown", help="Print the tables as Markdown on stdout.")] = False,
    csv: Annotated[bool, plain_option("--csv", help="Print every figure as CSV on stdout.")] = False,
    json_: Json = False,
    max_len: Annotated[
        str | None, plain_option("--max-len", metavar="N,N...", help="INPUT: lengths of packs to plan [default: 2048].")
    ] = None,
    strategy: Annotated[
        str | None, plain_option("--strategy", metavar="NAME,NAME...", help="INPUT: strategies to plan [default: all].")
    ] = None,
    overlong: Annotated[
        str | None,
        plain_option("--overlong", metavar="POLICY", help=f"INPUT: {', '.join(OVERLONG)} [default: as of pack]."),
    ] = None,
    max_docs_per_pack: Annotated[
        int | None,
        plain_option("--max-docs-per-pack", help="INPUT: most documents in a pack; 0 is no limit [default: 0]."),
    ] = None,
    sample: Annotated[
        float, plain_option("--sample", metavar="F", help="INPUT: tokenize this share of the documents [default: 1].")
    ] = 1.0,
    tokenizer: Annotated[
        str | None,
        plain_option("--tokenizer", metavar="T", help="As of pack; for --html, when it is not where it was."),
    ] = None,
    format: Annotated[str | None, plain_option("--format", metavar="SHAPE", help="INPUT: as of pack.")] = None,
    field: Annotated[
        list[str] | None, plain_option("--field", metavar="PART=FIELD", help="INPUT: as of pack; may be repeated.")
    ] = None,
    loss: Annotated[str | None, plain_option("--loss", metavar="WHAT", help="INPUT: as of pack.")] = None,
    loss_on_eot: Annotated[
        bool | None, plain_option("--loss-on-eot/--no-loss-on-eot", help="INPUT: as of pack.")
    ] = None,
    chat_template: Annotated[
        str | None, plain_option("--chat-template", metavar="T", help="INPUT: as of pack.")
    ] = None,
    text_field: Annotated[str | None, plain_option("--text-field", metavar="NAME", help="INPUT: as of pack.")] = None,
    text_template: Annotated[
        str | None, plain_option("--text-template", metavar="T", help="INPUT: as of pack.")
    ] = None,
    split_on: Annotated[str | None, plain_option("--split-on", metavar="STRING", help="INPUT: as of pack.")] = None,
    seed: Annotated[int | None, plain_option("--seed", help="INPUT: seed of all shuffles and of --sample.")] = None,
    workers: Annotated[
        int | None, plain_option("-w", "--workers", help="INPUT: processes [default: every CPU].")
    ] = None,
    config: Annotated[
        str | None, plain_option("--config", metavar="FILE", help="INPUT: settings [default: packcli.toml if there].")
    ] = None,
    debug: Debug = False,
) -> None:
    """Show what was packed: figures, histograms, sources. Or, for raw input, what packing would give."""
    if sum((markdown, csv, json_)) > 1:
        raise UsageError("--json, --csv and --markdown are given together", "keep one of them")
    packed = [_is_packed(path) for path in inputs]
    what_if = {
        "--max-len": max_len,
        "--strategy": strategy,
        "--overlong": overlong,
        "--max-docs-per-pack": max_docs_per_pack,
        "--sample": sample if sample != 1.0 else None,
        "--format": format,
        "--field": field,
        "--loss": loss,
        "--loss-on-eot": loss_on_eot,
        "--chat-template": chat_template,
        "--text-field": text_field,
        "--text-template": text_template,
        "--split-on": split_on,
        "--config": config,
    }
    given = [name for name, value in what_if.items() if value is not None]
    if all(packed) and not given:
        _show_reports(inputs, recount, html, markdown, csv, json_, tokenizer)
        return
    if any(packed) and not all(packed):
        raise UsageError(
            f"{inputs[packed.index(True)]} is packed and {inputs[packed.index(False)]} is not",
            "give packed directories, or input to pack, not both",
        )
    if recount or html is not None:
        raise UsageError(
            f"{'--recount' if recount else '--html'} needs packed directories, without options for raw input",
            "packcli pack makes one",
        )
    flags = {
        "overlong": overlong,
        "max_docs_per_pack": max_docs_per_pack,
        "tokenizer": tokenizer,
        "format": format,
        "field": tuple(unescape(pair) or "" for pair in field) if field else None,
        "loss": loss,
        "loss_on_eot": loss_on_eot,
        "chat_template": chat_template,
        "text_field": text_field,
        "text_template": unescape(text_template),
        "split_on": unescape(split_on),
        "seed": seed,
        "workers": workers,
    }
    settings = read_settings(config, flags)
    lengths = _numbers(max_len) if max_len is not None else [settings.get("max_len", PackConfig().max_len)]
    names = [canonical_strategy(name.strip()) for name in strategy.split(",")] if strategy is not None else []
    try:
        _show_what_if(inputs, settings, lengths, names, sample, markdown, csv, json_)
    except NoInputError as error:
        raise NoInputError(f"{error.message}; and not an output of packcli", error.hint) from None


def _is_packed(path: str) -> bool:
    from packcli.storage import locate

    place = locate(path)
    return (place / "manifest.json").is_file() or (place / ".packcli").is_dir()


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--max-len {text!r} is not a list of numbers", "for example --max-len 2048,4096") from None
    for each in numbers:
        PackConfig(max_len=each)  # knows what is too small and too large
    return list(dict.fromkeys(numbers))


def _show_reports(
    directories: Sequence[str],
    recount: bool,
    html: Path | None,
    markdown: bool,
    csv: bool,
    json_: bool,
    tokenizer: str | None,
) -> None:
    from packcli import report as recounting
    from packcli.cli.views.console import make_console, print_json
    from packcli.cli.views.stats import print_text, show_reports, show_written
    from packcli.dataset import SCHEMA_VERSION, read_report
    from packcli.report import report_tables, to_csv, to_markdown
    from packcli.storage import locate

    reports = [read_report(locate(directory)) for directory in directories]
    recounts = [recounting.recount(report) for report in reports] if recount else []
    if html is not None:
        from packcli.report.html import write_page

        try:
            write_page(html, reports, tokenizer)
        except OSError as error:
            raise StorageError(
                f"{html}: {error.strerror or error}", "--html takes a file that can be written"
            ) from None
    shown = make_console()
    if json_:
        found = [report.as_dict() for report in reports]
        for each, counted in zip(found, recounts, strict=False):
            each["recount"] = counted.as_dict()
        print_json(found[0] if len(found) == 1 else {"schema_version": SCHEMA_VERSION, "reports": found})
    elif markdown or csv:
        tables = report_tables(reports)
        print_text(to_csv(tables) if csv else to_markdown(tables))
    elif html is None or recount:
        show_reports(shown, reports, recounts)
    if html is not None:
        show_written(shown, html)
    if any(each.differences for each in recounts):
        raise MismatchError("the rows are not what the report says", "pack again with --overwrite")


def _show_what_if(
    inputs: Sequence[str],
    settings: dict[str, Any],
    max_lens: Sequence[int],
    strategies: Sequence[str],
    sample: float,
    markdown: bool,
    csv: bool,
    json_: bool,
) -> None:
    options = {name: settings.pop(name) for name in RunOptions.__dataclass_fields__ if name in settings}
    for name in ("max_len", "strategy", "balance"):
        settings.pop(name, None)  # every strategy at every max_len is planned
    made = PackConfig(**settings)

    from packcli.cli.views.console import make_console, print_json
    from packcli.cli.views.progress import ProgressDisplay
    from packcli.cli.views.stats import print_text, show_what_if
    from packcli.dataset import SCHEMA_VERSION
    from packcli.pipeline import measure
    from packcli.report import compare, to_csv, to_markdown, what_if_tables

    shown = make_console()
    with ProgressDisplay(shown, quiet=False, doing="measuring") as display:
        lengths = measure(inputs, made, RunOptions(**options), sample=sample, emit=display)
    found: WhatIf = compare(lengths, max_lens, strategies)
    if json_:
        print_json({"schema_version": SCHEMA_VERSION, "what_if": found.as_dict()})
    elif markdown or csv:
        tables = what_if_tables(found)
        print_text(to_csv(tables) if csv else to_markdown(tables))
    else:
        show_what_if(shown, found)
