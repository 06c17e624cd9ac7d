"""A strategy of the user's own: any function with the contract of this package. Its answers are always checked.

    def longest_first(lengths, capacity, *, seed=0):
        order = np.argsort(-lengths, kind="stable")
        return order, pack_offsets

It may declare any of the keywords max_docs, seed and effort, and is given those that it declares.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.errors import PackcliError, UsageError
from packcli.packing.strategies.patterns import Packs

KEYWORDS = ("max_docs", "seed", "effort")
"""What a strategy may ask for besides lengths and capacity."""

PROBE_SEGMENTS = 1000
"""So many first segments are planned twice, since a function whose answers differ would give other bytes each time."""

CONTRACT = "a strategy takes (lengths, capacity, *, max_docs, seed, effort) and gives (order, pack_offsets)"


def adapt(function: Callable[..., Any], name: str) -> Callable[..., Packs]:
    """The function with the signature of a strategy. Lengths are read-only for it.

    Raises:
        UsageError: here, when it takes other arguments; when it is called, whatever it raises, or an answer that is
            no pair of flat lists of integers, or two different answers for the same lengths.
    """
    keywords = _keywords(function, name)

    def strategy(
        lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0, effort: str = "normal"
    ) -> Packs:
        if max_docs and "max_docs" not in keywords:
            raise UsageError(
                f"strategy {name} takes no max_docs, so it cannot keep --max-docs-per-pack {max_docs}",
                "leave out the limit, or let the function take max_docs",
            )
        given: dict[str, Any] = {"max_docs": max_docs, "seed": seed, "effort": effort}
        given = {key: value for key, value in given.items() if key in keywords}
        first, second = (_call(function, name, lengths[:PROBE_SEGMENTS], capacity, given) for _ in range(2))
        if not all(map(np.array_equal, first[:2], second[:2])):
            raise UsageError(
                f"strategy {name} gives two plans for the same {len(lengths[:PROBE_SEGMENTS])} lengths",
                "take every random choice from `seed`: none from the clock, a global generator, the order of a set",
            )
        return second if len(lengths) <= PROBE_SEGMENTS else _call(function, name, lengths, capacity, given)

    return strategy


def _keywords(function: Callable[..., Any], name: str) -> tuple[str, ...]:
    """Those of KEYWORDS that the function takes."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function written in C
        raise UsageError(f"strategy {name} has no signature", CONTRACT) from None
    takes = signature.parameters.values()
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes)
    named = {each.name for each in takes if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)}
    keywords = tuple(key for key in KEYWORDS if takes_all or key in named)
    try:
        signature.bind([], 1, **dict.fromkeys(keywords))
    except TypeError as error:
        raise UsageError(f"strategy {name}{signature}: {error}", CONTRACT) from None
    return keywords


def _call(
    function: Callable[..., Any], name: str, lengths: NDArray[np.int32], capacity: int, given: dict[str, Any]
) -> Packs:
    lengths = lengths.view()
    lengths.flags.writeable = False
    try:
        answer = function(lengths, capacity, **given)
    except PackcliError:
        raise
    except Exception as error:
        file, line, *_ = traceback.extract_tb(error.__traceback__)[-1]
        raise UsageError(
            f"strategy {name} raised {type(error).__name__}: {error} ({file}:{line})", "--debug shows the traceback"
        ) from error
    if not isinstance(answer, tuple | list) or len(answer) < 2:
        raise UsageError(f"strategy {name} gave {type(answer).__name__}, not (order, pack_offsets)", CONTRACT)
    order, pack_offsets = _integers(name, "order", answer[0]), _integers(name, "pack_offsets", answer[1])
    if not len(pack_offsets):
        raise UsageError(f"strategy {name}: pack_offsets is empty", "it begins with 0 and ends with the segments")
    return Packs(order, pack_offsets)


def _integers(name: str, what: str, values: Any) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
        kind = f"{array.dtype}{list(array.shape)}"
        raise UsageError(f"strategy {name}: {what} is {kind}, not a flat list of integers", CONTRACT)
    return array.astype(np.int64)
