"""The verbs that take packed directories whole: verify, export and merge. Knows typer, as cli does."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated, Any

import typer

from packcli.cli_options import Debug, Json, Quiet
from packcli.config import TOKENIZER_ENGINES, RunOptions
from packcli.ending import Ending
from packcli.errors import NoInputError, UsageError

EXPORT_FORMATS = (
    "parquet",
    "megatron-bridge",
    "megatron",
    "automodel",
    "llama-factory",
    "unpacked",
    "mds",
    "flat",
)
"""The keys of exports.EXPORTS, which would load pyarrow."""

VERIFY_EPILOG = """Examples:

  packcli verify data-packed

  packcli verify data-packed --deep --sample 1/10

  packcli verify data-packed --against data.jsonl

  packcli verify data-packed --row 17

  packcli verify data-packed --same-as other-packed"""

EXPORT_EPILOG = """Examples:

  packcli export data-packed --to parquet

  packcli export data-packed --to megatron -o tokens"""


MERGE_EPILOG = """Examples:

  packcli merge monday-packed tuesday-packed -o all-packed

  packcli merge 'parts/*-packed' -o all-packed --verify"""


def _text_option(*names: str, metavar: str, help: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, show_default=False)


def verify(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A packed directory.", show_default=False)],
    deep: Annotated[bool, typer.Option("--deep", help="Tokenize the inputs again and compare.")] = False,
    sample: Annotated[
        str, typer.Option(metavar="N/T", help="With --deep: every T-th part, from the N-th.", show_default=False)
    ] = "1/1",
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="As --deep, with the inputs named here; lists documents in no pack. May be repeated.",
            show_default=False,
        ),
    ] = None,
    row: Annotated[
        int | None,
        typer.Option(metavar="N", help="Make this row again and compare it; -1 is the last.", show_default=False),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="With --row: train or validation [default: train].", show_default=False)
    ] = "train",
    replay: Annotated[
        bool, typer.Option("--replay", help="With --row: pack its unit again, which a lost shard takes anyway.")
    ] = False,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --row: the function of yours that planned the packs, as of pack. No other code is run.",
            show_default=False,
        ),
    ] = None,
    same_as: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Another output, which must hold the same rows.", show_default=False),
    ] = None,
    tokenizer_engine: Annotated[
        str, typer.Option(metavar="NAME", help=f"With --deep: {', '.join(TOKENIZER_ENGINES)}.", show_default=False)
    ] = "auto",
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check a packed directory: every file, every row, every document. Exit code 3 when something is wrong."""
    with Ending(debug) as errors:
        RunOptions(tokenizer_engine=tokenizer_engine)  # knows the names

        from packcli import console
        from packcli import verify as verifying
        from packcli.stores import locate

        shown = errors.console
        chosen = verifying.parse_sample(sample)
        common: dict[str, Any] = {
            "against": against or (),
            "tokenizer_engine": tokenizer_engine,
            "warn": lambda message: None if quiet else console.show_warning(shown, message),
        }
        if row is not None:
            if same_as is not None or chosen != (1, 1):
                raise UsageError("--row looks at one row: --same-as and --sample have no say", "give one of them")
            verdict = verifying.verify_row(
                locate(directory), row, split=split, replay=replay, strategy=strategy, **common
            )
        elif replay or strategy is not None or split != "train":
            raise UsageError("--replay, --strategy and --split say how a row is made again", "name one with --row")
        else:
            verdict = verifying.verify(
                locate(directory),
                deep=deep,
                sample=chosen,
                same_as=None if same_as is None else locate(same_as),
                **common,
            )
        if json_:
            console.print_json(verdict.as_dict())
        if not (quiet and verdict.is_sound):
            console.show_verdict(shown, verdict)
    if not verdict.is_sound:
        raise typer.Exit(3)


def export(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A packed directory.", show_default=False)],
    to: Annotated[str, _text_option("--to", metavar="FORMAT", help=f"{', '.join(EXPORT_FORMATS)}.")],
    output: Annotated[
        str | None, _text_option("-o", "--output", metavar="OUT", help="Where to write [default: DIR-FORMAT].")
    ] = None,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Write also what the format cannot hold: EOS inside documents, masks.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export of something else, made by packcli.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a packed directory in the format of another stack, and show the line that loads it there.

    Running the same command again resumes what was interrupted, and does nothing when it is up to date.
    """
    with Ending(debug, resumes=True) as errors:
        from packcli import console, exports

        found = exports.export(directory, to, output, lossy=lossy, overwrite=overwrite)
        if json_:
            console.print_json(found.as_dict())
        if not quiet:
            console.show_export(errors.console, found)


def merge(
    directories: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Packed directories, or quoted globs of them.", show_default=False),
    ],
    output: Annotated[str, _text_option("-o", "--output", metavar="OUT", help="Where to write.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every shard and look at every row of every DIR first.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output of packcli that is something else.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make one packed directory of several with the same settings, without copying tokens where hard links can be made.

    The order of the directories is the order of the rows; they are not changed, and may be removed afterwards. Running
    the same command again resumes what was interrupted, and does nothing when it is up to date.
    """
    with Ending(debug, resumes=True) as errors:
        from packcli import console, merging

        report = merging.merge(
            expand(directories),
            output,
            overwrite=overwrite,
            verify=verify,
            on_event=console.ProgressDisplay(errors.console, quiet=quiet),
        )
        if json_:
            console.print_json(report.as_dict())
        if not quiet:
            console.show_report(errors.console, report)


def expand(directories: list[str]) -> list[str]:
    """Directories, and those that globs name, sorted. Raises NoInputError for a glob that names nothing."""
    found: list[str] = []
    for each in directories:
        matches = sorted(glob.glob(each)) if glob.has_magic(each) and not Path(each).exists() else [each]
        if not matches:
            raise NoInputError(f"{each}: no directory matches", "check the pattern")
        found += matches
    return found
