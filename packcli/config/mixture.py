"""Values of --mix and --tokens: inputs with their shares, and counts such as 10B."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from packcli.errors import UsageError

EXAMPLE = "for example --mix web.jsonl=0.7 --mix code/=0.3"


def split_mix(mix: Sequence[str] | Mapping[str, float] | str) -> tuple[str, ...]:
    """Every spelling of a mixture as `path=weight` strings."""
    if isinstance(mix, str):
        return (mix,)
    if isinstance(mix, Mapping):
        return tuple(f"{path}={weight!r}" for path, weight in mix.items())
    return tuple(mix)


def parse_mix(mix: Sequence[str]) -> list[tuple[str, float]]:
    """`path=weight` strings -> paths and shares, which sum to 1.

    Raises:
        UsageError: not of that form, a weight that is not a positive number, or a path that is given twice.
    """
    parsed: dict[str, float] = {}
    for each in mix:
        path, _, text = each.rpartition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not path or not 0 < weight < math.inf:
            raise UsageError(f"--mix {each!r} is not INPUT=WEIGHT with a weight over 0", EXAMPLE)
        if path in parsed:
            raise UsageError(f"--mix names {path} twice", "give it one weight")
        parsed[path] = weight
    total = sum(parsed.values())
    return [(path, round(weight / total, 9)) for path, weight in parsed.items()]


def parse_count(text: str) -> int:
    """'10B' -> 10,000,000,000; also k, M, G, T and plain numbers. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgbt]?)", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is not a number of tokens", "for example 10B or 500M")
    number, prefix = match.groups()
    return int(float(number) * 1000 ** {"": 0, "k": 1, "m": 2, "g": 3, "b": 3, "t": 4}[prefix.lower()])
