"""Values as people write them: sizes with a unit, escapes."""

from __future__ import annotations

import re

from packcli.errors import UsageError


def parse_size(text: str) -> int:
    """'128MiB' -> 134217728; also k, M, G, kB, KiB, ... and plain bytes. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is not a size", "for example 64MiB or 100MB")
    number, prefix, binary, _ = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix.lower() or " "))


def unescape(text: str) -> str:
    r"""The text with \n, \t, \r, \0 and \\ read as in C, because a shell does not do that for a flag."""
    meant = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}
    return re.sub(r"\\([ntr0\\])", lambda match: meant[match.group(1)], text)
