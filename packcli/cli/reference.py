"""The options of every verb as Markdown, made of what --help is made of: the reference of a manual."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import typer.main

import packcli
from packcli.cli.app import app
from packcli.cli.options import VerbCommand


def verbs() -> dict[str, VerbCommand]:
    """Name -> verb, those of a group by both words: `units plan`."""
    found: dict[str, VerbCommand] = {}
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, each in commands.items():
        found |= {f"{name} {verb}": below for verb, below in getattr(each, "commands", {"": each}).items()}
    return {name.strip(): each for name, each in found.items()}


def describe(verb: str) -> str:
    """A verb as Markdown: what it does, then a table for each heading of its help: flags, keyword in Python, meaning.

    Args:
        verb: `pack`, `units run`, ...
    """
    command = verbs()[verb]
    twin: Any = functools.reduce(getattr, verb.split(), packcli)
    keywords = inspect.signature(twin).parameters
    lines = [f"## packcli {verb}", "", inspect.cleandoc(command.help or "")]
    for heading, parameters in command.headings(typer.Context(command, info_name=verb)).items():
        lines += ["", f"### {heading}", "", "| | in Python | |", "|---|---|---|"]
        for parameter in parameters:
            keyword = f"`{parameter.name}`" if parameter.name in keywords else ""
            lines.append(f"| {_spelled(parameter)} | {keyword} | {_cell(parameter.help or '')} |")
    return "\n".join(lines) + "\n"


def _spelled(parameter: Any) -> str:
    """Every flag, and what goes with it; or the name of an argument."""
    if parameter.param_type_name == "argument":
        return f"`{_cell(parameter.metavar or parameter.name.upper())}`"
    is_flag = getattr(parameter, "is_flag", False)
    value = "" if is_flag else f" {_cell(parameter.metavar or 'NUMBER')}"
    return ", ".join(f"`{flag}{value}`" for flag in (*parameter.opts, *parameter.secondary_opts))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")
