"""What all functions of the public API have: a misspelt keyword names the nearest, and help() lists the options."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from packcli.config import OPTIONS
from packcli.errors import nearest

Given = ParamSpec("Given")
Result = TypeVar("Result")

PLACE = "max_len, ...: The options of `packcli pack`; help() lists them."
"""Where the options stand in a docstring."""


def public(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """A function that refuses an unknown keyword with a TypeError that names the nearest."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: Given.args, **keywords: Given.kwargs) -> Result:
        for name in keywords:
            if name not in known:
                close = nearest(name, known)
                meant = f"; did you mean {close!r}?" if close else ""
                raise TypeError(f"{function.__name__}() has no keyword {name!r}{meant}")
        return function(*args, **keywords)

    if call.__doc__ is not None:
        lines = [f"{name}: {OPTIONS[name].help}" for name in known if name in OPTIONS]
        call.__doc__ = call.__doc__.replace(PLACE, textwrap.indent("\n".join(lines), " " * 8).lstrip())
    return call
