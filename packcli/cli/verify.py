"""`packcli verify`: is an output whole and right."""

from __future__ import annotations

from typing import Annotated

import typer

import packcli
from packcli.cli.options import Directory, Json, Quiet, plain_option, verb
from packcli.config.choices import TOKENIZER_ENGINES

VERIFY_EPILOG = """Examples:

  packcli verify data-packed

  packcli verify data-packed --deep --sample 1/10

  packcli verify data-packed --against data.jsonl

  packcli verify data-packed --row 17

  packcli verify data-packed --same-as other-packed"""

INPUTS, ROW = "The inputs again", "One row again"


@verb()
def verify(
    directory: Directory,
    same_as: Annotated[
        str | None, plain_option("--same-as", metavar="DIR", help="Another output, which must hold the same rows.")
    ] = None,
    deep: Annotated[bool, plain_option("--deep", help="Tokenize the inputs again and compare.", panel=INPUTS)] = False,
    sample: Annotated[
        str,
        plain_option("--sample", metavar="N/T", help="With --deep: every T-th part, from the N-th.", panel=INPUTS),
    ] = "1/1",
    against: Annotated[
        list[str] | None,
        plain_option(
            "--against",
            metavar="INPUT",
            help="As --deep, with the inputs named here; lists documents in no pack. May be repeated.",
            panel=INPUTS,
        ),
    ] = None,
    tokenizer_engine: Annotated[
        str,
        plain_option(
            "--tokenizer-engine",
            metavar="NAME",
            help=f"With --deep: {', '.join(TOKENIZER_ENGINES)} [default: auto].",
            panel=INPUTS,
        ),
    ] = "auto",
    row: Annotated[
        int | None,
        plain_option("--row", metavar="N", help="Make this row again and compare it; -1 is the last.", panel=ROW),
    ] = None,
    split: Annotated[
        str,
        plain_option("--split", metavar="NAME", help="With --row: train or validation [default: train].", panel=ROW),
    ] = "train",
    replay: Annotated[
        bool,
        plain_option("--replay", help="With --row: pack its unit again, which a lost shard takes anyway.", panel=ROW),
    ] = False,
    strategy: Annotated[
        str | None,
        plain_option(
            "--strategy",
            metavar="NAME",
            help="With --row: the function of yours that planned the packs, as of pack. No other code is run.",
            panel=ROW,
        ),
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a packed directory: every file, every row, every document. Exit code 3 when something is wrong."""
    from packcli.cli.views.console import make_console, show_result
    from packcli.cli.views.progress import ProgressDisplay
    from packcli.cli.views.results import show_verdict

    verdict = packcli.verify(
        directory,
        deep=deep,
        sample=sample,
        against=against or (),
        row=row,
        split=split,
        replay=replay,
        strategy=strategy,
        same_as=same_as,
        tokenizer_engine=tokenizer_engine,
        on_event=ProgressDisplay(make_console(), quiet=quiet),
    )
    show_result(verdict, show_verdict, json_=json_, quiet=quiet and verdict.is_sound)
    if not verdict.is_sound:
        raise typer.Exit(3)
