"""JSON from a file held against a type, before anything in it is used."""

from __future__ import annotations

import functools
import types
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from packcli.errors import printable

MOST = 2**63
"""Counts are below this: NumPy holds them."""

NAMES = {int: "a count", float: "a number", str: "text", bool: "true or false", list: "a list", dict: "an object"}


def check_type(value: Any, expected: Any, place: str) -> None:
    """Raises ValueError when JSON is not of a type; the text names the place and what stands there.

    Args:
        value: What json.loads gave.
        expected: int (which is a count from 0), float, str, bool, None, list, dict, a union of them, or a TypedDict,
            whose keys must be there; others may.
        place: Where the value stands in its file, such as `inputs[3].name`; empty for the whole.
    """
    if expected is Any or (expected is str and type(value) is str) or (expected is bool and type(value) is bool):
        return
    if expected is int and type(value) is int and 0 <= value < MOST:
        return
    if expected is float and type(value) in (int, float) and -MOST < value < MOST:
        return
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        _check_union(value, get_args(expected), place)
    elif origin is list and isinstance(value, list):
        (inner,) = get_args(expected)
        for number, each in enumerate(value):
            check_type(each, inner, f"{place}[{number}]")
    elif origin is dict and isinstance(value, dict):
        inner = get_args(expected)[1]
        for key, each in value.items():
            check_type(each, inner, _inside(place, key))
    elif is_typeddict(expected) and isinstance(value, dict):
        for key in sorted(expected.__required_keys__ - value.keys()):
            raise ValueError(f"is damaged: {_inside(place, key)} is missing")
        hints = _hints(expected)
        for key in value.keys() & hints.keys():
            check_type(value[key], hints[key], _inside(place, key))
    else:
        name = "an object" if is_typeddict(expected) else NAMES[origin or expected]
        raise ValueError(f"is damaged: {printable(place)} is {_shown(value)}, where {name} is meant")


def _check_union(value: Any, expected: tuple[Any, ...], place: str) -> None:
    """A value of one of several types, which are no two of the same kind: null, text, a list."""
    kinds = [dict if is_typeddict(each) else get_origin(each) or each for each in expected]
    matching = [each for each, kind in zip(expected, kinds, strict=True) if isinstance(value, kind)]
    if matching != [type(None)]:
        check_type(value, (matching or expected)[0], place)


@functools.cache
def _hints(expected: Any) -> dict[str, Any]:
    return get_type_hints(expected)


def _inside(place: str, key: str) -> str:
    return printable(f"{place}.{key}" if place else key)


def _shown(value: Any) -> str:
    text = printable(repr(value)) if not isinstance(value, int) or abs(value) < MOST else "a number past 2^63"
    return text if len(text) <= 60 else f"{text[:60]}..."
