"""`packcli merge`: several outputs as one."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated

import typer

import packcli
from packcli.cli.options import Json, Quiet, plain_option, verb
from packcli.errors import NoInputError

MERGE_EPILOG = """Examples:

  packcli merge monday-packed tuesday-packed -o all-packed

  packcli merge 'parts/*-packed' -o all-packed --verify"""


@verb(resumes=True)
def merge(
    directories: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Packed directories, or quoted globs of them.", show_default=False),
    ],
    output: Annotated[str, plain_option("-o", "--output", metavar="OUT", help="Where to write.")],
    verify: Annotated[
        bool, plain_option("--verify", help="Hash every shard and look at every row of every DIR first.")
    ] = False,
    overwrite: Annotated[
        bool, plain_option("--overwrite", help="Replace an output of packcli that is something else.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make one packed directory of several with the same settings, without copying tokens where hard links can be made.

    The order of the directories is the order of the rows; they are not changed, and may be removed afterwards. Running
    the same command again resumes what was interrupted, and does nothing when it is up to date.
    """
    from packcli.cli.views.console import make_console, show_result
    from packcli.cli.views.progress import ProgressDisplay
    from packcli.cli.views.results import show_report

    display = ProgressDisplay(make_console(), quiet=quiet)
    report = packcli.merge(expand(directories), output, overwrite=overwrite, verify=verify, on_event=display)
    show_result(report, show_report, json_=json_, quiet=quiet)


def expand(directories: list[str]) -> list[str]:
    """Directories, and those that globs name, sorted. Raises NoInputError for a glob that names nothing."""
    found: list[str] = []
    for each in directories:
        matches = sorted(glob.glob(each)) if glob.has_magic(each) and not Path(each).exists() else [each]
        if not matches:
            raise NoInputError(f"{each}: no directory matches", "check the pattern")
        found += matches
    return found
