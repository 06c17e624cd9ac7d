"""`packcli units`: plan, run, finish, status, for a run that is shared out to ranks."""

from __future__ import annotations

from typing import Annotated

import typer

import packcli
from packcli.cli.options import NOTHING, Config, Given, Inputs, Json, OutputOption, Quiet, plain_option, verb
from packcli.config import OPTIONS, TABLE, read_settings
from packcli.config.choices import TOKENIZER_ENGINES

GROUP_HELP = "Share the work out to ranks: separate processes, on any machines with a common directory or object store."

PLAN_EPILOG = """Examples:

  packcli units plan 'corpus/*.jsonl' -o packed --tokenizer ./my-model --unit-bytes 512MiB"""

RUN_EPILOG = """Examples:

  packcli units run packed --rank 3 --world-size 16

  packcli units run packed --world-size 16        (in a Slurm array or an indexed Job)"""

PlannedDirectory = Annotated[
    str, typer.Argument(metavar="DIR", help="An output for which units plan was run.", show_default=False)
]
Workers = Annotated[int, plain_option(*OPTIONS["workers"].flags, help=OPTIONS["workers"].help)]


@verb(TABLE, resumes=True)
def plan(
    inputs: Inputs = None,
    output: OutputOption = None,
    given: Given = NOTHING,
    config: Config = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Cut the units of a run, and leave them and all that ranks need in the output. Options as for pack.

    Goes on with an output of the same run: committed units stay.
    """
    settings = read_settings(config, given)

    from packcli.cli.views.console import make_console, show_result
    from packcli.cli.views.progress import ProgressDisplay
    from packcli.cli.views.units import show_planned

    with ProgressDisplay(make_console(), quiet=quiet) as display:  # for warnings, and to count a mixture
        status = packcli.units.plan(inputs or (), output, **settings, on_event=display)
    show_result(status, show_planned, json_=json_, quiet=quiet)


@verb(resumes=True)
def run(
    directory: PlannedDirectory,
    rank: Annotated[
        int | None,
        plain_option(
            "--rank", help="Which rank this is, from 0 [default: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX]."
        ),
    ] = None,
    world_size: Annotated[
        int | None,
        plain_option("--world-size", help="How many ranks share the units [default: the size of the Slurm array]."),
    ] = None,
    workers: Workers = 0,
    input_root: Annotated[
        str | None,
        plain_option(
            "--input-root",
            metavar="DIR",
            help="Where the deepest directory that holds all inputs is on this machine [default: as planned].",
        ),
    ] = None,
    tokenizer_engine: Annotated[
        str | None,
        plain_option(
            "--tokenizer-engine", metavar="NAME", help=f"{', '.join(TOKENIZER_ENGINES)} [default: as planned]."
        ),
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Do the units of one rank. Units that are committed are passed over; start a rank again whenever it died."""
    from packcli.cli.views.console import make_console, show_result
    from packcli.cli.views.progress import ProgressDisplay
    from packcli.cli.views.units import show_ran

    with ProgressDisplay(make_console(), quiet=quiet) as display:
        ran = packcli.units.run(
            directory,
            rank,
            world_size,
            workers=workers,
            input_root=input_root,
            tokenizer_engine=tokenizer_engine,
            on_event=display,
        )
    show_result(ran, show_ran, json_=json_, quiet=quiet)


@verb(resumes=True)
def finish(directory: PlannedDirectory, workers: Workers = 0, json_: Json = False, quiet: Quiet = False) -> None:
    """Make the shards of ranks a dataset with its report. Exit code 3 while units are left, 5 while a rank runs."""
    from packcli.cli.views.console import show_result
    from packcli.cli.views.results import show_report

    show_result(packcli.units.finish(directory, workers=workers), show_report, json_=json_, quiet=quiet)


@verb()
def status(directory: PlannedDirectory, json_: Json = False) -> None:
    """Show how far the ranks have come: units, speed, what failed. Reads only, from any machine."""
    from packcli.cli.views.console import show_result
    from packcli.cli.views.units import show_status

    show_result(packcli.units.status(directory), show_status, json_=json_, quiet=json_)
