"""Options as typer sees them: those that several verbs have, and those of the table in config."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from packcli.cli.exit import ExitCodes
from packcli.config import OPTIONS, Option

OTHER = "Other options"
"""The heading of what has to do with messages and settings; the last one in help."""

Function = Callable[..., None]

Given = Mapping[str, Any]
"""What flags of the table say: field -> value, None where the flag was not given; see `verb`."""
NOTHING: Given = types.MappingProxyType({})

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help=".jsonl .ndjson .json .txt (also .gz .zst), .parquet, .arrow, save_to_disk directories, directories, "
        "quoted globs, or - for JSONL on standard input.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="DIR",
        help="Where to write [default: <first input>-packed].",
        show_default=False,
        rich_help_panel=OPTIONS["columns"].panel,
    ),
]
Directory = Annotated[str, typer.Argument(metavar="DIR", help="A packed directory.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.", rich_help_panel=OTHER)]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.", rich_help_panel=OTHER)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OTHER)]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings, flags win [default: packcli.toml if there].",
        show_default=False,
        rich_help_panel=OTHER,
    ),
]


def plain_option(*names: str, help: str, metavar: str | None = None, panel: str | None = None) -> Any:
    """An option whose help says its default, where there is one."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False, rich_help_panel=panel)


def verb(
    options: Iterable[Option] = (), *, panel: str | None = None, resumes: bool = False
) -> Callable[[Function], Function]:
    """Makes a function a verb: with options of the table, --debug, and messages and exit codes in place of errors.

    Args:
        options: Rows of the table. They stand in place of the parameter `given` of the function, which gets a mapping:
            field -> value, None where the flag was not given.
        panel: One heading over all of them in help, in place of their own.
        resumes: Whether the same command goes on after an interrupt, and a message may say so.
    """
    rows = {option.field: option for option in options if option.flags}

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def run(*, debug: bool, **arguments: Any) -> None:
            with ExitCodes(debug, resumes=resumes):
                if rows:
                    arguments["given"] = {field: row.from_flag(arguments.pop(field)) for field, row in rows.items()}
                function(**arguments)

        signature = _signature(function, rows.values(), panel)
        vars(run)["__signature__"] = signature
        run.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        return run

    return decorate


def _signature(function: Function, rows: Iterable[Option], panel: str | None) -> inspect.Signature:
    """The parameters of a function as typer is to see them: rows in place of `given`, and --debug."""
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters: list[inspect.Parameter] = []
    for each in inspect.signature(function, eval_str=True).parameters.values():
        if each.name != "given":
            parameters.append(each.replace(kind=kind))
            continue
        for row in rows:
            option = typer.Option(
                None,
                *row.flags,
                help=row.help,
                metavar=row.metavar,
                show_default=False,
                rich_help_panel=panel or row.panel,
            )
            # Text with a unit is read by the row itself.
            annotation: Any = (list[str] if row.kind is list else row.kind) | None
            parameters.append(inspect.Parameter(row.field, kind, default=option, annotation=annotation))
    parameters.append(inspect.Parameter("debug", kind, default=False, annotation=Debug))
    return inspect.Signature(parameters)


class VerbCommand(TyperCommand):
    """A verb whose help shows options under headings; typer does so only with rich, which takes too long to import."""

    def headings(self, ctx: Any) -> dict[str, list[Any]]:
        """Heading -> what stands under it: arguments, then options as they were declared, then those of every verb."""
        found: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            heading = getattr(parameter, "rich_help_panel", None) or "Options"
            if parameter.param_type_name == "argument":
                heading = "Arguments"
            elif parameter.name == "help":
                heading = OTHER
            found.setdefault(heading, []).append(parameter)
        found[OTHER] = found.pop(OTHER)
        return found

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes them for --help."""
        for heading, parameters in self.headings(ctx).items():
            with formatter.section(heading):
                formatter.write_dl([parameter.get_help_record(ctx) for parameter in parameters])
