"""One JSON record -> the values of its fields; fast where it is as it should be, and what is wrong where it is not.

Of a key that stands twice every JSON reader takes the last, in silence. A field's type here is a class of its own, for
which msgspec calls a hook: it is called twice where the field stands twice, however the key is spelled.
"""

from __future__ import annotations

import abc
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for a record that cannot be used."""

_ESCAPES = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Escapes of JSON; a pair of surrogates is one."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class DuplicateError(ValueError):
    """A field stands twice in a record."""


class Decoder:
    """Decodes records into tuples of the values of their fields.

    Args:
        types: Field -> type of its value, as msgspec takes it.
        optional: Fields that a record need not have; their values are None then.
    """

    def __init__(self, types: Mapping[str, Any], optional: frozenset[str] = frozenset()) -> None:
        self._names = tuple(types)
        self._num_required = sum(name not in optional for name in types)
        kinds = {name: _kind(name, types[name], name in optional) for name in types}
        self._seen: list[Any] = []
        seen = self._seen.append

        def count(kind: Any, value: Any) -> Any:
            seen(kind)
            return kind.take(value)

        def count_text(kind: Any, value: Any) -> Any:
            seen(kind)
            return value

        hook = count_text if all(kind is str for kind in types.values()) else count
        self._decode = msgspec.json.Decoder(_struct(kinds, optional), dec_hook=hook).decode
        plain = {name: kind | None if name in optional else kind for name, kind in types.items()}
        self._decode_plain = msgspec.json.Decoder(_struct(plain, optional)).decode

    def all(self, records: list[Any]) -> list[Any] | None:
        """The records as structs with fields f0, f1, ...; None when one of them has to be looked at on its own."""
        self._seen.clear()
        decode = self._decode
        try:
            decoded = [decode(record) for record in records]
        except DECODE_ERRORS:
            return None
        return decoded if len(self._seen) == len(self._names) * len(records) else None

    def __call__(self, record: Any) -> Any:
        """One record as a struct.

        Raises:
            DuplicateError: a field stands twice.
            msgspec.DecodeError, UnicodeDecodeError, RecursionError: it cannot be used.
        """
        seen = self._seen
        seen.clear()
        try:
            decoded = self._decode(record)
        except DECODE_ERRORS:
            decoded = self._decode_plain(record)  # says what is wrong in the words of the real types
        if len(seen) > self._num_required and len(set(seen)) < len(seen):
            twice = next(kind for kind in seen if seen.count(kind) > 1)
            raise DuplicateError(f"the field {twice.field!r} stands {seen.count(twice)} times")
        return decoded


def _struct(kinds: Mapping[str, Any], optional: frozenset[str]) -> Any:
    slots = [(f"f{index}", kinds[name], *([None] if name in optional else [])) for index, name in enumerate(kinds)]
    names = {f"f{index}": name for index, name in enumerate(kinds)}
    # Keywords only: optional ones may stand before required ones.
    return msgspec.defstruct("Row", slots, rename=names, kw_only=True, gc=False)


WRONG = object()
"""What no type takes."""


def _kind(name: str, kind: Any, is_optional: bool) -> Any:
    """The class that stands for the type of a field."""
    takers: dict[Any, tuple[Callable[[Any], Any], tuple[type, ...]]] = {
        str: (_same, (str,)),
        list[int | bool]: (_take_integers, (np.ndarray,)),
        list[dict[str, Any]] | str: (_take_messages, (list, str)),
        list[Any] | str: (_same, (list, str)),
        dict[str, Any] | str: (_same, (dict, str)),
    }
    take, made_of = takers[kind]
    namespace = {"take": staticmethod(take), "field": name}
    made = abc.ABCMeta(f"Field_{len(name)}", (), namespace)
    for each in (*made_of, *((type(None),) if is_optional else ())):
        made.register(each)
    return made


def _same(value: Any) -> Any:
    return value


def _take_messages(value: Any) -> Any:
    if type(value) is list:
        for each in value:
            if type(each) is not dict:
                return WRONG
    return value


def _take_integers(value: Any) -> Any:
    """int64[T]."""
    if type(value) is not list:
        return value
    if not value:
        return np.empty(0, dtype=np.int64)
    try:
        made = np.array(value)
    except (ValueError, OverflowError):
        return WRONG
    return made.astype(np.int64, copy=False) if made.ndim == 1 and made.dtype.kind in "ib" else WRONG


def judge(record: bytes, error: Exception) -> tuple[str, str]:
    """Why a record cannot be used: a key of CAUSES, and words for people."""
    if isinstance(error, DuplicateError):
        return "duplicate-field", str(error)
    if isinstance(error, UnicodeDecodeError):
        return "not-utf8", f"not UTF-8: {error.reason} at byte {_first_bad_byte(record)} of the row"
    if isinstance(error, msgspec.ValidationError):
        return judge_type(str(error)), str(error)
    if isinstance(error, RecursionError):
        return "too-deep", "not readable JSON: nested too deeply"
    if _holds_lone_surrogate(record):
        return "lone-surrogate", "a \\ud800..\\udfff escape without its other half is no character"
    return "not-json", f"not valid JSON: {error}" if record else "not valid JSON: nothing stands there"


def judge_type(words: str) -> str:
    """The cause that msgspec's words for a value of the wrong type mean."""
    if words.startswith("Object missing required field"):
        return "missing-field"
    if "got `null`" in words and " - at `$" in words:
        return "null"
    return "not-object" if words.startswith("Expected `object`") and " - at" not in words else "wrong-type"


def _first_bad_byte(raw: bytes) -> int:
    """Where a line stops being UTF-8; msgspec counts from the beginning of the string."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(raw)


def _holds_lone_surrogate(raw: bytes) -> bool:
    """Whether the line is JSON but for a lone surrogate, which msgspec calls truncated."""
    if not _SURROGATE.search(raw):
        return False
    try:
        json.dumps(json.loads(raw), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        pass
    return False


def repaired(record: bytes) -> bytes:
    """A record in which U+FFFD stands for what is no UTF-8 and for half surrogate pairs."""
    text = record.decode("utf-8", "replace").encode()
    return _ESCAPES.sub(_whole_escape, text) if _SURROGATE.search(text) else text


def _whole_escape(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape["half"] is None else b"\\ufffd"
