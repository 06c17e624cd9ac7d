"""best-fit: the plan with the fewest packs of a portfolio of planners, and a proven bound.

    decreasing   best-fit decreasing
    spreading    long with short, where a limit of segments a pack binds             when above the bound
    filling      the longest left, and the set that fills up best beside it          when above the bound
    columns      column generation                                                   when far above the bound

All plan on the histogram of lengths; the first plan with the fewest packs wins. The limits of their work are
counts, so that the plan is the same on any machine. For most text `decreasing` is within a few packs of the
bound, and `filling` reaches it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.packing.strategies.best_fit.column_generation import Limits, plan_columns, price_bound
from packcli.packing.strategies.best_fit.decreasing import plan_decreasing
from packcli.packing.strategies.best_fit.fill import plan_filling
from packcli.packing.strategies.best_fit.spread import plan_spreading
from packcli.packing.strategies.bounds import count_bound
from packcli.packing.strategies.patterns import Packs, Pattern, assign, binding_limit, count_lengths, num_packs

EFFORTS: dict[str, Limits | None] = {
    "fast": None,
    "normal": Limits(fill_work=24_000_000, simplex_work=200_000_000, gap=0.001),
    "max": Limits(fill_work=4_000_000_000, simplex_work=12_000_000_000, gap=0.0),
}
"""Levels of effort. Other limits give other packs, so to change them takes a new format version."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Patterns, the planner that found them, and the bound they are held against."""

    patterns: list[Pattern]
    found_by: str
    lower_bound: int


def plan_histogram(histogram: NDArray[np.int64], capacity: int, max_docs: int = 0, effort: str = "normal") -> Answer:
    """The portfolio on counts of lengths.

    Args:
        histogram: int64[capacity+1], histogram[l] segments have length l; entry 0 is ignored.
        capacity: Tokens a pack.
        max_docs: Most segments a pack; 0 means no limit.
        effort: A key of EFFORTS.
    """
    max_docs = binding_limit(histogram, capacity, max_docs)
    bound = count_bound(histogram, capacity, max_docs)
    plans = {"decreasing": plan_decreasing(histogram, capacity, max_docs)}
    limits = EFFORTS[effort]
    if limits:
        limits = limits.for_tokens(int((histogram * np.arange(capacity + 1)).sum()))

    def best() -> str:
        return min(plans, key=lambda name: num_packs(plans[name]))

    def gap() -> int:
        return num_packs(plans[best()]) - bound

    if max_docs and gap():
        plans["spreading"] = plan_spreading(histogram, capacity, max_docs, bound)
    if limits and gap():
        filled = plan_filling(histogram, capacity, limits.fill_work)
        if filled is not None and not (
            max_docs and any(sum(each for _, each in items) > max_docs for _, items in filled)
        ):
            plans["filling"] = filled
    if limits and gap() > limits.gap * bound:
        plans["columns"], prices = plan_columns(histogram, capacity, limits, max_docs, list(plans.values()))
        bound = max(bound, price_bound(histogram, capacity, prices, max_docs, limits.simplex_work))
    return Answer(plans[best()], best(), bound)


def best_fit(
    lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0, effort: str = "normal"
) -> Packs:
    """The portfolio; the seed only chooses among segments of one length, so the number of packs is the same for all."""
    histogram = count_lengths(lengths, capacity)
    answer = plan_histogram(histogram, capacity, max_docs, effort)
    packs = assign(lengths, histogram, answer.patterns, seed)
    return packs._replace(found_by=answer.found_by, lower_bound=answer.lower_bound)
