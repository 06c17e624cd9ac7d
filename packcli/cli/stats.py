"""`packcli stats`: the report of packed directories, or what packing would give."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from packcli.cli.options import NOTHING, Config, Given, Json, plain_option, verb
from packcli.config import OPTIONS, read_settings
from packcli.errors import MismatchError, StorageError, UsageError

if TYPE_CHECKING:
    from packcli.report import Figures

STATS_EPILOG = """Examples:

  packcli stats data-packed

  packcli stats first-packed second-packed

  packcli stats data-packed other-packed --html report.html

  packcli stats data.jsonl --max-len 2048,4096,8192 --tokenizer ./my-model

  packcli stats chats.jsonl --max-len 4096,8192 --tokenizer ./my-model --sample 0.1

packcli/json.md describes the keys of --json and the columns of --csv."""

DIRECTORIES, INPUT = "Packed directories", "Raw input (as for pack)"

AS_OF_PACK = (
    "tokenizer",
    "format",
    "field",
    "text_field",
    "text_template",
    "split_on",
    "overlong",
    "max_docs_per_pack",
    "loss",
    "loss_on_eot",
    "chat_template",
    "workers",
)
"""What decides about lengths and masks, and how fast they are found."""

OF_INPUT = [
    dataclasses.replace(
        OPTIONS["max_len"], kind=str, metavar="N,N...", help="Lengths of packs to plan [default: 2048]."
    ),
    dataclasses.replace(OPTIONS["strategy"], metavar="NAME,NAME...", help="Strategies to plan [default: all]."),
    dataclasses.replace(OPTIONS["seed"], help="Seed of all shuffles and of --sample [default: 0]."),
    *(OPTIONS[name] for name in AS_OF_PACK),
]


@verb(OF_INPUT, panel=INPUT)
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
        bool,
        plain_option("--recount", help="Count again from the rows; exit code 3 on a difference.", panel=DIRECTORIES),
    ] = False,
    html: Annotated[
        Path | None,
        plain_option(
            "--html",
            metavar="FILE",
            help="Write a page: figures, plots, packs; several DIR compared. --tokenizer says where theirs is now.",
            panel=DIRECTORIES,
        ),
    ] = None,
    sample: Annotated[
        float | None,
        plain_option("--sample", metavar="F", help="Tokenize this share of the documents [default: 1].", panel=INPUT),
    ] = None,
    given: Given = NOTHING,
    markdown: Annotated[bool, plain_option("--markdown", help="Print the tables as Markdown on stdout.")] = False,
    csv: Annotated[bool, plain_option("--csv", help="Print every figure as CSV on stdout.")] = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Show what was packed: figures, histograms, sources. Or, for raw input, what packing would give."""
    if sum((markdown, csv, json_)) > 1:
        raise UsageError("--json, --csv and --markdown are given together", "keep one of them")

    from packcli.report import asks_for_estimate, read_figures

    asked = {**given, "sample": sample, "config": config}
    if asks_for_estimate(inputs, asked, of_directories={"recount": recount, "html": html is not None}):
        figures = _estimate(inputs, given, config, sample)
    else:
        figures = read_figures(inputs, recount=recount)
        if html is not None:
            _write_page(html, figures, given["tokenizer"])

    from packcli.cli.views.console import make_console, print_json
    from packcli.cli.views.stats import print_text, show_figures, show_written

    shown = make_console()
    if json_:
        print_json(figures.as_dict())
    elif markdown or csv:
        print_text(figures.to_csv() if csv else figures.to_markdown())
    elif html is None or recount:
        show_figures(shown, figures)
    if html is not None:
        show_written(shown, html)
    if figures.differences:
        raise MismatchError("the rows are not what the report says", "pack again with --overwrite")


def _estimate(inputs: list[str], given: Given, config: str | None, sample: float | None) -> Figures:
    """What packing would give, with a progress bar."""
    settings = read_settings(config, given)
    settings.pop("strategy", None)  # of packcli.toml: all are planned
    if given["strategy"] is not None:
        settings["strategy"] = [name.strip() for name in given["strategy"].split(",")]
    if given["max_len"] is not None:
        settings["max_len"] = _numbers(given["max_len"])

    from packcli.cli.views.console import make_console
    from packcli.cli.views.progress import ProgressDisplay
    from packcli.report import estimate

    with ProgressDisplay(make_console(), quiet=False, doing="measuring") as display:
        return estimate(inputs, settings, sample=1.0 if sample is None else sample, on_event=display)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--max-len {text!r} is not a list of numbers", "for example --max-len 2048,4096") from None


def _write_page(path: Path, figures: Figures, tokenizer: str | None) -> None:
    from packcli.report.html import write_page

    try:
        write_page(path, figures.reports, tokenizer)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}", "--html takes a file that can be written") from None
