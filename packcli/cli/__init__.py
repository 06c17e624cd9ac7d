"""The command line: one file a verb, each between options and one call of the library. The door to typer.

arguments   app       -> a verb: pack, stats, inspect, verify, export, merge, units
a verb      options   -> settings -> the library -> views, which show what came of it
an error    exit      -> its message and its exit code
"""

from __future__ import annotations

from packcli.cli.app import app, main

__all__ = ["app", "main"]
