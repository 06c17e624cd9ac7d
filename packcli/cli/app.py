"""The command line: the verbs under one name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from packcli import __version__
from packcli.cli import export, inspect, merge, stats, verify
from packcli.cli import units as cli_units
from packcli.cli.exit import ExitCodes
from packcli.cli.pack import PACK_EPILOG, pack

app = typer.Typer(
    name="packcli",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time of --help
    help="Turn raw text into packed training data: tokenized, packed, accounted for.",
    epilog="Exit codes: 0 ok, 1 internal, 2 usage, 3 mismatch, not sound or not done, 4 bad row, 5 locked, 6 storage.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"packcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Nothing to do before a verb."""


def _guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with its errors turned into messages and exit codes."""

    @functools.wraps(verb)
    def run(**arguments: Any) -> None:
        with ExitCodes(arguments["debug"]):
            verb(**arguments)

    return run


app.command(epilog=PACK_EPILOG)(pack)
units = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=cli_units.GROUP_HELP)
units.command("plan", help=cli_units.PLAN_HELP, epilog=cli_units.PLAN_EPILOG)(pack)
units.command(epilog=cli_units.RUN_EPILOG)(cli_units.run)
units.command()(cli_units.finish)
units.command()(cli_units.status)
app.add_typer(units, name="units")
app.command(epilog=verify.VERIFY_EPILOG)(verify.verify)
app.command(epilog=stats.STATS_EPILOG)(_guarded(stats.stats))
app.command(epilog=inspect.INSPECT_EPILOG)(_guarded(inspect.inspect))
app.command(epilog=export.EXPORT_EPILOG)(export.export)
app.command(epilog=merge.MERGE_EPILOG)(merge.merge)


def main() -> None:
    """The entry point `packcli`."""
    app()
