"""The verbs for ranks: units plan (which cli adds: its options are those of pack), run, finish, status."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from packcli.cli.exit import ExitCodes
from packcli.cli.options import Debug, Json, Quiet
from packcli.config import PackConfig, RunOptions
from packcli.config.choices import TOKENIZER_ENGINES
from packcli.errors import UsageError

GROUP_HELP = "Share the work out to ranks: separate processes, on any machines with a common directory or object store."

PLAN_HELP = """Cut the units of a run, and leave them and all that ranks need in the output. Options as for pack.

Goes on with an output of the same run: committed units stay."""

PLAN_EPILOG = """Examples:

  packcli units plan 'corpus/*.jsonl' -o packed --tokenizer ./my-model --unit-bytes 512MiB"""

RUN_EPILOG = """Examples:

  packcli units run packed --rank 3 --world-size 16

  packcli units run packed --world-size 16        (in a Slurm array or an indexed Job)"""

Directory = Annotated[
    str, typer.Argument(metavar="DIR", help="An output for which units plan was run.", show_default=False)
]
Workers = Annotated[int, typer.Option("-w", "--workers", help="Processes [default: every CPU].", show_default=False)]


def find_rank(rank: int | None, world_size: int | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Which rank of how many this is: as told, else as Slurm (array jobs) or Kubernetes (indexed Jobs) tell.

    A Slurm array whose size is not told must be without gaps, and need not begin at 0.

    Raises:
        UsageError: nobody tells, or what is told is no rank.
    """

    def number(name: str) -> int | None:
        text = environment.get(name)
        if text is None or text == "":
            return None
        if not text.isdecimal():
            raise UsageError(f"{name}={text!r} is not a rank", "give --rank and --world-size")
        return int(text)

    first = 0
    array = number("SLURM_ARRAY_TASK_ID")
    if world_size is None and rank is None and array is not None:
        count, low, high = (number(f"SLURM_ARRAY_TASK_{name}") for name in ("COUNT", "MIN", "MAX"))
        if count is None or low is None or high is None or high - low + 1 != count:
            raise UsageError(
                "the indices of this Slurm array do not tell how many ranks share the units",
                "give --world-size: the number of ranks of the first submission",
            )
        first, world_size = low, count
    if rank is None:
        found = array if array is not None else number("JOB_COMPLETION_INDEX")
        if found is None:
            raise UsageError(
                "no --rank, and neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set",
                "give --rank 0 --world-size 1 to do all units here",
            )
        rank = found - first
    if world_size is None:
        raise UsageError("no --world-size", "say how many ranks share the units")
    return rank, world_size


def plan(
    shown: Any,
    inputs: Sequence[str],
    output: str | None,
    config: PackConfig,
    options: RunOptions,
    *,
    json_: bool,
    quiet: bool,
) -> None:
    """What units plan does, with the options of pack made into settings."""
    from packcli.cli.views.console import print_json
    from packcli.cli.views.progress import ProgressDisplay
    from packcli.cli.views.units import show_planned
    from packcli.pipeline import ranks

    with ProgressDisplay(shown, quiet=quiet) as display:  # for warnings, and to count a mixture
        found = ranks.status(ranks.plan(inputs, output, config=config, options=options, on_event=display))
    if json_:
        print_json(found.as_dict())
    if not quiet:
        show_planned(shown, found)


def run(
    directory: Directory,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Which rank this is, from 0 [default: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX].",
            show_default=False,
        ),
    ] = None,
    world_size: Annotated[
        int | None,
        typer.Option(help="How many ranks share the units [default: the size of the Slurm array].", show_default=False),
    ] = None,
    workers: Workers = 0,
    input_root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where the deepest directory that holds all inputs is on this machine [default: as planned].",
            show_default=False,
        ),
    ] = None,
    tokenizer_engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{', '.join(TOKENIZER_ENGINES)} [default: as planned].", show_default=False),
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Do the units of one rank. Units that are committed are passed over; start a rank again whenever it died."""
    with ExitCodes(debug, resumes=True) as errors:
        RunOptions(workers=workers, tokenizer_engine=tokenizer_engine or "auto")  # knows the names
        rank, world_size = find_rank(rank, world_size, os.environ)

        from packcli.cli.views.console import print_json
        from packcli.cli.views.progress import ProgressDisplay
        from packcli.cli.views.units import show_ran
        from packcli.pipeline import ranks

        with ProgressDisplay(errors.console, quiet=quiet) as display:
            found = ranks.run(
                directory,
                rank,
                world_size,
                workers=workers,
                input_root=input_root,
                tokenizer_engine=tokenizer_engine,
                on_event=display,
            )
        if json_:
            print_json(found.as_dict())
        if not quiet:
            show_ran(errors.console, found)


def finish(
    directory: Directory, workers: Workers = 0, json_: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Make the shards of ranks a dataset with its report. Exit code 3 while units are left, 5 while a rank runs."""
    with ExitCodes(debug, resumes=True) as errors:
        RunOptions(workers=workers)

        from packcli.cli.views.console import print_json
        from packcli.cli.views.results import show_report
        from packcli.pipeline import ranks

        report = ranks.finish(directory, workers=workers)
        if json_:
            print_json(report.as_dict())
        if not quiet:
            show_report(errors.console, report)


def status(directory: Directory, json_: Json = False, debug: Debug = False) -> None:
    """Show how far the ranks have come: units, speed, what failed. Reads only, from any machine."""
    with ExitCodes(debug) as errors:
        from packcli.cli.views.console import print_json
        from packcli.cli.views.units import show_status
        from packcli.pipeline import ranks

        found = ranks.status(directory)
        if json_:
            print_json(found.as_dict())
        else:
            show_status(errors.console, found)
