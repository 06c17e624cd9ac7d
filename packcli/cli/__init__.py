"""The command line: one file a verb, each between options and one call of the library. The door to typer.

arguments   app         -> a verb: pack, stats, inspect, verify, export, merge, units
a verb      options     -> values -> packcli.pack, stats, ... -> views, which show what came of it
an error    exit        -> its message and its exit code
all verbs   reference   -> their options as Markdown
"""

from __future__ import annotations

from packcli.cli.app import app, main

__all__ = ["app", "main"]
