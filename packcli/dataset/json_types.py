"""JSON from a file held against a type, before anything in it is used."""

from __future__ import annotations

import functools
import types
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from packcli.errors import printable

MOST = 2**63
"""Counts are below this: NumPy holds them."""

NAMES: dict[Any, str] = {
    int: "a count",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    TypedDict: "an object",
}


Place = tuple[Any, ...]
"""Where a value stands: () for the whole, else (the place of what holds it, its key or number)."""


def check_type(value: Any, expected: Any, place: Place = ()) -> None:
    """Raises ValueError when JSON is not of a type; the text names the place and what stands there.

    Args:
        value: What json.loads gave.
        expected: int (which is a count from 0), float, str, bool, None, list, dict, a union of them, or a TypedDict,
            whose keys must be there; others may.
        place: Where the value stands.
    """
    kind = type(value)
    if expected is Any or (expected is kind and (kind is str or kind is bool)):
        return
    if expected is int and kind is int and 0 <= value < MOST:
        return
    if expected is float and kind in (int, float) and -MOST < value < MOST:
        return
    form, inner = _form(expected)
    if form is Union:
        _check_union(value, inner, place)
    elif form is list and kind is list:
        for number, each in enumerate(value):
            check_type(each, inner, (place, number))
    elif form is dict and kind is dict:
        for key, each in value.items():
            check_type(each, inner, (place, key))
    elif form is TypedDict and kind is dict:
        for key, (expected_inside, is_required) in inner.items():
            if key in value:
                check_type(value[key], expected_inside, (place, key))
            elif is_required:
                raise ValueError(f"is damaged: {_text((place, key))} is missing")
    else:
        raise ValueError(f"is damaged: {_text(place)} is {_shown(value)}, where {NAMES[form]} is meant")


def _check_union(value: Any, expected: tuple[Any, ...], place: Place) -> None:
    """A value of one of several types, which are no two of the same kind: null, text, a list."""
    kinds = [dict if is_typeddict(each) else get_origin(each) or each for each in expected]
    matching = [each for each, kind in zip(expected, kinds, strict=True) if isinstance(value, kind)]
    if matching != [type(None)]:
        check_type(value, (matching or expected)[0], place)


@functools.cache
def _form(expected: Any) -> tuple[Any, Any]:
    """What kind of type it is, and what it holds: the type inside, the types of a union, or keys with their types."""
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return Union, get_args(expected)
    if origin in (list, dict):
        return origin, get_args(expected)[-1]
    if is_typeddict(expected):
        hints = get_type_hints(expected)
        return TypedDict, {key: (hint, key in expected.__required_keys__) for key, hint in hints.items()}
    return expected, None


def _text(place: Place) -> str:
    """A place as people read it: splits.train[3].file."""
    if not place:
        return ""
    outer, key = place
    before = _text(outer)
    if isinstance(key, int):
        return f"{before}[{key}]"
    return printable(f"{before}.{key}" if before else key)


def _shown(value: Any) -> str:
    text = printable(repr(value)) if not isinstance(value, int) or abs(value) < MOST else "a number past 2^63"
    return text if len(text) <= 60 else f"{text[:60]}..."
