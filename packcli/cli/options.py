"""Options that several verbs have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def text_option(*names: str, metavar: str, help: str) -> Any:
    """An option that takes text, as --help shows it."""
    return typer.Option(*names, metavar=metavar, help=help, show_default=False)


def plain_option(*names: str, help: str, metavar: str | None = None) -> Any:
    """An option without a default to show."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)
