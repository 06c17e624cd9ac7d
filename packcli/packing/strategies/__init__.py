"""Strategies: which segments share a pack.

A strategy is a pure function of lengths, in a file of its own:

    (lengths: int32[S], capacity, *, max_docs=0, seed=0, effort="normal") -> Packs(order, pack_offsets, ...)

Pack p holds the segments order[pack_offsets[p]:pack_offsets[p+1]]. Every length is in 1..capacity. The
result depends on the arguments only, on any machine and with any version of NumPy. To add one,
write the file and a line in STRATEGIES, over which the tests of the invariants are parametrised. A function of
the user's own does as well (`own_strategy`); its answers are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from packcli.errors import UsageError, unknown_name
from packcli.packing.strategies.adapter import adapt
from packcli.packing.strategies.balance import group_costs
from packcli.packing.strategies.best_fit.portfolio import best_fit
from packcli.packing.strategies.bounds import count_bound
from packcli.packing.strategies.concat import concat
from packcli.packing.strategies.first_fit import first_fit
from packcli.packing.strategies.next_fit import next_fit
from packcli.packing.strategies.pad import pad
from packcli.packing.strategies.patterns import Packs
from packcli.packing.strategies.shuffle_fit.fit import shuffle_fit

__all__ = ["STRATEGIES", "Strategy", "StrategyFunction", "count_bound", "get_strategy", "group_costs", "own_strategy"]


class StrategyFunction(Protocol):
    """The signature that every strategy has."""

    def __call__(
        self, lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0, effort: str = "normal"
    ) -> Packs:
        """Lengths to packs."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy and what the planner must know about it."""

    function: StrategyFunction
    cuts_stream: bool = False
    """It wants all documents joined to one stream, which is cut at every multiple of capacity."""
    shuffles_packs: bool = False
    """Its packs come out sorted in some way, so they are shuffled; else they keep the order of the input."""
    own_name: str = ""
    """Name of a function of the user's own, whose plans are checked; empty for the strategies of packcli."""


STRATEGIES: dict[str, Strategy] = {
    "concat": Strategy(concat, cuts_stream=True),
    "best-fit": Strategy(best_fit, shuffles_packs=True),
    "shuffle-fit": Strategy(shuffle_fit, shuffles_packs=True),
    "first-fit": Strategy(first_fit),
    "next-fit": Strategy(next_fit),
    "pad": Strategy(pad),
}


def get_strategy(name: str) -> Strategy:
    """The strategy of that name; raises UnknownNameError, naming the nearest."""
    if ":" in name:
        raise UsageError(f"strategy {name!r} is code: its name does not bring it here", "give the function itself")
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    return STRATEGIES[name]


def own_strategy(function: Callable[..., Any], name: str = "") -> Strategy:
    """A function of the user's own as a strategy; `name` is what messages and reports call it.

    Raises:
        UsageError: it takes other arguments than a strategy does.
    """
    name = name or getattr(function, "__qualname__", type(function).__name__)
    return Strategy(adapt(function, name), own_name=name)
