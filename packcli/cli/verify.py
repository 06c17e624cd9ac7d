"""`packcli verify`: is an output whole and right."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from packcli.cli.exit import ExitCodes
from packcli.cli.options import Debug, Json, Quiet
from packcli.config import RunOptions
from packcli.config.choices import TOKENIZER_ENGINES
from packcli.errors import UsageError

VERIFY_EPILOG = """Examples:

  packcli verify data-packed

  packcli verify data-packed --deep --sample 1/10

  packcli verify data-packed --against data.jsonl

  packcli verify data-packed --row 17

  packcli verify data-packed --same-as other-packed"""


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
    with ExitCodes(debug) as errors:
        RunOptions(tokenizer_engine=tokenizer_engine)  # knows the names

        from packcli import verification as verifying
        from packcli.cli.views.console import print_json, show_warning
        from packcli.cli.views.results import show_verdict
        from packcli.storage import locate

        shown = errors.console
        chosen = verifying.parse_sample(sample)
        common: dict[str, Any] = {
            "against": against or (),
            "tokenizer_engine": tokenizer_engine,
            "warn": lambda message: None if quiet else show_warning(shown, message),
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
            print_json(verdict.as_dict())
        if not (quiet and verdict.is_sound):
            show_verdict(shown, verdict)
    if not verdict.is_sound:
        raise typer.Exit(3)
