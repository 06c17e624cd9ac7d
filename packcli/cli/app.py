"""The command line: the verbs under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from packcli import __version__
from packcli.cli import export, inspect, merge, stats, verify
from packcli.cli import units as cli_units
from packcli.cli.options import VerbCommand
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


units = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=cli_units.GROUP_HELP)
units.command(cls=VerbCommand, epilog=cli_units.PLAN_EPILOG)(cli_units.plan)
units.command(cls=VerbCommand, epilog=cli_units.RUN_EPILOG)(cli_units.run)
units.command(cls=VerbCommand)(cli_units.finish)
units.command(cls=VerbCommand)(cli_units.status)

app.command(cls=VerbCommand, epilog=PACK_EPILOG)(pack)
app.add_typer(units, name="units")
app.command(cls=VerbCommand, epilog=stats.STATS_EPILOG)(stats.stats)
app.command(cls=VerbCommand, epilog=inspect.INSPECT_EPILOG)(inspect.inspect)
app.command(cls=VerbCommand, epilog=verify.VERIFY_EPILOG)(verify.verify)
app.command(cls=VerbCommand, epilog=export.EXPORT_EPILOG)(export.export)
app.command(cls=VerbCommand, epilog=merge.MERGE_EPILOG)(merge.merge)


def main() -> None:
    """The entry point `packcli`."""
    app()
