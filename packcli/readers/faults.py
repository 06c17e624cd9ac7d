"""Why a row cannot be used, found from its bytes and the types of its fields alone.

The errors of a JSON library are not passed on, because their classes and words change with its versions: json_decoder
only learns from it that a row is bad. This module runs for bad rows alone, so it may be slow.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections.abc import Mapping
from typing import Any

ESCAPES = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Escapes in JSON strings; two surrogates that belong together are one match."""

DEEP = 100
"""A refused row nested deeper than this, with no other fault, is called too deep: a decoder's limit is its stack."""

MAX_DIGITS = 4300
"""Most digits of an integer: the default limit of Python's int()."""

Verdict = tuple[str, str]
"""A key of bad_rows.CAUSES, and a message for people."""


class RefusalError(ValueError):
    """A row that cannot be used."""

    def __init__(self, cause: str, words: str) -> None:
        super().__init__(words)
        self.verdict: Verdict = cause, words


class Members(list[tuple[str, Any]]):
    """A JSON object as its names and values, in order, repeated names included."""


class _OutOfRange:
    """Stands for a number that is out of range for a decoder."""


def parse(raw: bytes, *, mended: bool = False) -> Any:
    """The value of a row: objects as Members, and 0 for every number, since only the types matter.

    Args:
        raw: The row.
        mended: Whether bytes that are not UTF-8, and half surrogate pairs, are read as U+FFFD rather than refused.

    Raises:
        RefusalError: it is not JSON, or not valid text.
    """
    if not mended:
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            raise RefusalError("not-utf8", f"not UTF-8: {error.reason} at byte {error.start} of the row") from None
    try:
        value = json.loads(
            raw.decode("utf-8", "replace"),
            object_pairs_hook=Members,
            parse_constant=_refuse_constant,
            parse_int=lambda digits: 0 if len(digits) <= MAX_DIGITS else _OutOfRange(),
            parse_float=lambda digits: 0.0 if abs(float(digits)) < math.inf else _OutOfRange(),
        )
    except RecursionError:
        raise RefusalError("too-deep", "not readable JSON: nested too deeply") from None
    except ValueError:
        raise RefusalError("not-json", f"not valid JSON: {first_fault(raw)}") from None
    if not mended and any(escape["half"] for escape in ESCAPES.finditer(raw)):
        raise RefusalError("lone-surrogate", "a \\ud800..\\udfff escape without its other half is no character")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def judge(
    raw: bytes, types: Mapping[str, Any], optional: frozenset[str] = frozenset(), *, mended: bool = False
) -> Verdict:
    """Why a record cannot be used.

    Args:
        raw: The record, which a decoder refused.
        types: Field -> type of its value, keys of _SHAPES.
        optional: Fields that a record need not have, or that may be null.
        mended: See parse.
    """
    try:
        record = parse(raw, mended=mended)
    except RefusalError as refusal:
        return refusal.verdict
    if type(record) is not Members:
        return "not-object", f"Expected `object`, got `{_name(record)}`"
    names = [name for name, _ in record]
    for name, value in record:
        if name in types and (misfit := _misfit(value, types[name], name in optional, f"$.{name}")):
            return misfit
    for name in types:
        if name not in optional and name not in names:
            return "missing-field", f"Object missing required field `{name}`"
    for name in types:
        if names.count(name) > 1:
            return "duplicate-field", f"the field {name!r} stands {names.count(name)} times"
    return _judge_rest(raw, [value for name, value in record if name in types])


def judge_value(raw: bytes, kind: Any, is_optional: bool) -> Verdict:
    """Why a decoder refused the JSON of one value."""
    try:
        value = parse(raw)
    except RefusalError as refusal:
        return refusal.verdict
    return _misfit(value, kind, is_optional, "$") or _judge_rest(raw, [value])


def _judge_rest(raw: bytes, values: list[Any]) -> Verdict:
    """Why a record of the right types was refused: a limit of decoders."""
    while values:
        value = values.pop()
        if type(value) is _OutOfRange:
            return "wrong-type", "a number is out of range"
        values += [each for _, each in value] if type(value) is Members else value if type(value) is list else ()
    if _depth(raw) > DEEP:
        return "too-deep", "not readable JSON: nested too deeply"
    return "not-json", "the decoder refuses it, and packcli cannot tell why"


_NAMES: dict[type, str] = {
    str: "str",
    Members: "object",
    list: "array",
    bool: "bool",
    int: "int",
    float: "float",
    type(None): "null",
    _OutOfRange: "number",
}
_SHAPES: dict[Any, tuple[tuple[str, ...], tuple[str, ...]]] = {
    str: (("str",), ()),
    list[int | bool]: (("array",), ("bool", "int")),
    list[dict[str, Any]] | str: (("str", "array"), ("object",)),
    list[Any] | str: (("str", "array"), ()),
    dict[str, Any] | str: (("str", "object"), ()),
}
"""Type of a field -> which JSON types its value may have, and each element of an array; () allows any."""


def _name(value: Any) -> str:
    return _NAMES[type(value)]


def _misfit(value: Any, kind: Any, is_optional: bool, place: str) -> Verdict | None:
    """What is wrong with the type of a value; None when nothing is."""
    wanted, elements = _SHAPES[kind]
    wanted += ("null",) if is_optional else ()
    if _name(value) not in wanted:
        return _wrong_type(value, wanted, place)
    if elements and type(value) is list:
        for index, each in enumerate(value):
            if _name(each) not in elements and type(each) is not _OutOfRange:
                return _wrong_type(each, elements, f"{place}[{index}]")
    return None


def _wrong_type(value: Any, wanted: tuple[str, ...], place: str) -> Verdict:
    where = "" if place == "$" else f" - at `{place}`"
    cause = "null" if value is None else "wrong-type"
    return cause, f"Expected `{' | '.join(wanted)}`, got `{_name(value)}`{where}"


# --- where a row stops being JSON ---

_SPACE = re.compile(rb"[ \t\n\r]*")
_INSIDE = re.compile(rb'[^"\\\0-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\0-\x1f]*)*')
"""What may stand in a string."""
_HEX = re.compile(rb"[0-9a-fA-F]{0,3}")
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_SO_FAR = re.compile(rb"-?(?:(?:0|[1-9][0-9]*)(?:\.(?:[0-9]+(?:[eE][+-]?[0-9]*)?)?|[eE][+-]?[0-9]*)?)?")
"""The longest beginning that a valid number can have."""
_IN_NUMBERS = frozenset(bytes([each]) for each in b"0123456789.eE")
_WORDS = (b"true", b"false", b"null")
_MARKS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
"""Whole strings, and brackets outside of them."""

_CUT = "Input data was truncated"


def first_fault(raw: bytes) -> str:
    """The first fault that keeps bytes from being JSON, and at which byte; strings are not checked for UTF-8."""
    if not raw.strip():
        return "nothing stands there"
    closing: list[bytes] = []
    """The brackets that close the open objects and arrays."""
    wanted = "value"  # or: first (after an opening bracket), next (after a comma), colon, end (after a value)
    at = 0
    while True:
        at = _end(_SPACE, raw, at)
        char = raw[at : at + 1]
        if not char:
            return _CUT
        if wanted == "colon":
            if char != b":":
                return _malformed("expected ':'", at)
            at, wanted = at + 1, "value"
        elif wanted == "end":
            if not closing:
                return _malformed("trailing characters", at)
            if char == closing[-1]:
                closing.pop()
            elif char == b",":
                wanted = "next"
            else:
                return _malformed(f"expected ',' or '{closing[-1].decode()}'", at)
            at += 1
        elif wanted != "value" and char == closing[-1]:
            if wanted == "next":
                return _malformed(f"trailing comma in {'object' if char == b'}' else 'array'}", at)
            closing.pop()
            at, wanted = at + 1, "end"
        elif wanted != "value" and closing[-1] == b"}":
            if char != b'"':
                return _malformed("object keys must be strings", at)
            at, fault = _scalar(raw, at)
            if fault:
                return fault
            wanted = "colon"
        elif char in b"[{":
            closing.append(b"]" if char == b"[" else b"}")
            at, wanted = at + 1, "first"
        else:
            at, fault = _scalar(raw, at)
            if fault:
                return fault
            wanted = "end"


def _scalar(raw: bytes, at: int) -> tuple[int, str]:
    """Where the string, number or word that begins at `at` ends, and what is wrong with it ('' for nothing)."""
    rest = raw[at : at + 6]
    if rest[:1] == b'"':
        at = _end(_INSIDE, raw, at + 1)
        if raw[at : at + 1] == b'"':
            return at + 1, ""
        if raw[at : at + 1] != b"\\":
            return at, _malformed("invalid character", at) if at < len(raw) else _CUT
        what, at = "invalid escape character in string", at + 1
        if raw[at : at + 1] == b"u":
            what, at = "invalid character in unicode escape", _end(_HEX, raw, at + 1)
        return at, _malformed(what, at) if at < len(raw) else _CUT
    for word in _WORDS:
        if rest[:1] == word[:1]:
            same = sum(itertools.accumulate(map(operator.eq, rest, word), operator.and_))
            if same == len(word):
                return at + same, ""
            return at, _CUT if same == len(rest) else _malformed("invalid character", at + same)
    end = _end(_NUMBER_SO_FAR, raw, at)
    if not _NUMBER.fullmatch(raw, at, end):
        what = "invalid number" if end > at + 1 else "invalid character"
        return end, _malformed(what, end) if end < len(raw) else _CUT
    return end, _malformed("invalid number", end) if raw[end : end + 1] in _IN_NUMBERS else ""


def _end(pattern: re.Pattern[bytes], raw: bytes, at: int) -> int:
    """Where the match of a pattern at `at` ends; `at` itself when nothing matches."""
    match = pattern.match(raw, at)
    return match.end() if match else at


def _malformed(what: str, at: int) -> str:
    return f"JSON is malformed: {what} (byte {at})"


def _depth(raw: bytes) -> int:
    """How deeply arrays and objects are nested."""
    depth = deepest = 0
    for mark in _MARKS.finditer(raw):
        if mark[0] in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark[0] in b"]}":
            depth -= 1
    return deepest
