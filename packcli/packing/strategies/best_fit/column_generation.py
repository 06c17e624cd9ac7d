"""Column generation: patterns chosen by linear programming, and a proof of how few packs are possible.

Where there are no short segments to fill gaps, greedy plans leave 5 to 10 % of positions empty: of lengths between a
quarter and a half of the capacity, best-fit decreasing pairs the longest, and those of the middle are left over. The
linear programme "fewest packs, every length used as often as it occurs" considers all of them together. Its columns,
all patterns that fit, are too many to write down; those worth having are found by a knapsack over the prices of the
lengths (Gilmore and Gomory 1961, "A linear programming approach to the cutting-stock problem").

The prices also prove a bound: when no pack is worth more than 1, no packing needs fewer packs than the
segments are worth together. `price_bound` computes that in exact integers, whatever the prices.

The plan is the same on every machine: it takes only elementwise arithmetic, which IEEE 754 fixes, no BLAS, no clock.

Legend: C classes of lengths, N columns in the pool, M most segments of a column, L capacity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packcli.packing.strategies.best_fit.decreasing import plan_decreasing
from packcli.packing.strategies.best_fit.fill import plan_filling
from packcli.packing.strategies.patterns import Pattern, num_packs, remaining

MAX_ITEMS = 16
"""Most segments in a column. Segments so short that more would fit are left to best-fit decreasing."""

EPSILON = 1e-6
"""A column enters when it is worth more than a pack by this."""

CLOSE = 1e-5
"""Solved when packs and bound differ by less than this share."""

DEVEX_RESET = 1e8
"""The estimates of Devex start again at 1 when one grows over this."""

COARSEST = 96
"""Classes that the first programme has at most."""

ROUNDING = 5000
"""Work of rounding a solution to whole packs, for each length, in the unit of simplex_work."""

TYPICAL_PIVOTS = 2
"""Fewest pivots for each class that a programme needs, about."""

BLOCK = 1 << 18
"""Numbers computed at once, so that they stay in the cache."""

EXACT = 2**52
"""Whole numbers up to here, and the sum of two of them, are exact in float64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much work a plan may cost: counts, so that the answer is the same on any machine."""

    fill_work: int
    """For plan_filling, in words of 64 bits."""
    simplex_work: int
    """For column generation, in numbers that the simplex and the knapsacks compute."""
    gap: float
    """Column generation is for plans that are above the bound by more than this share."""

    def for_tokens(self, num_tokens: int) -> Limits:
        """Less for a small input, so that planning stays short beside tokenizing: a fourth for the smallest.

        Filling, which saves the last few packs, runs on most text, so its limit grows more slowly than that of columns.
        """
        return Limits(
            fill_work=int(self.fill_work * min(0.25 + 0.75 * num_tokens / 2**27, 1.0)),
            simplex_work=int(self.simplex_work * min(0.25 + 0.75 * num_tokens / 2**25, 1.0)),
            gap=self.gap,
        )


class _Knapsack:
    """The most valuable sets of at most `max_items` lengths, for every number of tokens up to L."""

    def __init__(self, lengths: NDArray[np.int64], prices: NDArray[np.float64], capacity: int) -> None:
        self.work = 0
        self._size = capacity + 1
        self._none = len(lengths)
        # Sets of one item: the best length that fits. An item worth nothing counts as none.
        price_of = np.zeros(self._size)
        price_of[lengths] = np.maximum(prices, 0.0)
        single = np.maximum.accumulate(price_of)
        better = np.flatnonzero(np.diff(single, prepend=0.0) > 0)
        item_of = np.full(self._size, self._none)
        item_of[lengths] = np.arange(len(lengths))
        self._item = np.full(self._size, self._none)
        if len(better):
            counts = np.diff(better, append=self._size)
            self._item[better[0] :] = np.repeat(item_of[better], counts)
        self._values = {0: np.zeros(self._size), 1: single}
        self._split: dict[int, NDArray[np.intp]] = {}

    def value(self, max_items: int) -> NDArray[np.float64]:
        """Worth of the best set of at most so many items within s tokens, float64[L+1]."""
        if max_items not in self._values:
            self._values[max_items] = self._combine(max_items)
        return self._values[max_items]

    def _combine(self, max_items: int) -> NDArray[np.float64]:
        """The best of all ways to share the tokens between two sets of half as many items."""
        size = self._size
        left, right = self.value(max_items - max_items // 2), self.value(max_items // 2)
        # Row s of the windows is right[s], right[s-1], ..., right[0], -inf, ...
        padded = np.full(2 * size - 1, -np.inf)
        padded[:size] = right[::-1]
        windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::-1]
        best, split = np.empty(size), np.empty(size, dtype=np.intp)
        step = max(BLOCK // size, 1)
        for first in range(0, size, step):
            sums = windows[first : first + step] + left
            best_split = sums.argmax(axis=1)
            split[first : first + step] = best_split
            best[first : first + step] = sums[np.arange(len(best_split)), best_split]
        self._split[max_items] = split
        self.work += size * size
        return best

    def sets(self, max_items: int, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The items of the best sets within so many tokens, int64[len(tokens), max_items]; C stands for none."""
        if max_items == 0:
            return np.empty((len(tokens), 0), dtype=np.int64)
        self.value(max_items)
        return np.stack(self._collect(max_items, tokens), axis=1)

    def _collect(self, max_items: int, tokens: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        if max_items == 1:
            return [self._item[tokens]]
        left = self._split[max_items][tokens]
        half = max_items // 2
        return self._collect(max_items - half, left) + self._collect(half, tokens - left)


class _Master:
    """The linear programme over a pool of columns: revised simplex with an explicit inverse.

    A column is a row of item numbers, int64[M], padded with C. Which column enters is decided by Devex
    (Harris 1973): its gain, squared, over a running estimate of how much the rest of the solution has to move.
    """

    def __init__(self, weights: NDArray[np.int64], demand: NDArray[np.int64], capacity: int, max_items: int) -> None:
        self.weights, self.demand, self.capacity, self.max_items = weights, demand, capacity, max_items
        size = len(weights)
        copies = np.minimum(capacity // weights, max_items)
        items = np.arange(size)[:, None]
        self.basis = np.where(np.arange(max_items) < copies[:, None], items, size)
        self.amounts = demand / copies
        # inverse[j] is column j of the inverse of the basis; row C belongs to the item "none".
        self._inverse = np.zeros((size + 1, size))
        self._inverse[np.arange(size), np.arange(size)] = 1.0 / copies
        self._prices = np.append(1.0 / copies, 0.0)
        self._pool = np.empty((0, max_items), dtype=np.int64)
        self._devex = np.empty(0)
        self.work = 0
        self.add(self.basis)

    @property
    def prices(self) -> NDArray[np.float64]:
        """What each class is worth, in packs, float64[C]."""
        return self._prices[:-1]

    def worth(self, columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each column is worth, in packs, float64[len(columns)]."""
        return _sums(self._prices, columns.T)

    def add(self, columns: NDArray[np.int64]) -> bool:
        """Puts columns into the pool, each once. Returns whether any was new."""
        before = len(self._pool)
        both = np.concatenate((self._pool, np.sort(columns, axis=1)))
        _, first = np.unique(both, axis=0, return_index=True)
        self._pool = both[np.sort(first)]
        self._devex = np.concatenate((self._devex, np.ones(len(self._pool) - before)))
        return len(self._pool) > before

    def solve(self, max_work: int) -> None:
        """Pivots until no column of the pool is worth more than a pack, or the limit is reached."""
        by_item = np.ascontiguousarray(self._pool.T)
        while self.work < max_work:
            worth = _sums(self._prices, by_item)
            gain = np.where(worth > 1.0 + EPSILON, worth - 1.0, 0.0)
            best = int((gain * gain / self._devex).argmax())
            if not gain[best] or not self._enter(best, float(gain[best]), by_item):
                return

    def _enter(self, entering: int, gain: float, by_item: NDArray[np.int64]) -> bool:
        column = self._pool[entering]
        step = _sums(self._inverse, column)
        positive = step > 1e-9
        if not positive.any():
            return False
        ratios = np.full(len(step), np.inf)
        np.divide(self.amounts, step, out=ratios, where=positive)
        leaving = int(ratios.argmin())
        amount = float(ratios[leaving])
        self.amounts = np.maximum(self.amounts - amount * step, 0.0)
        self.amounts[leaving] = amount
        row = self._inverse[:, leaving] / step[leaving]
        along = _sums(row, by_item)
        np.maximum(self._devex, along * along * self._devex[entering], out=self._devex)
        if self._devex.max() > DEVEX_RESET:
            self._devex[:] = 1.0
        self._prices -= gain * row
        self._prices[-1] = 0.0
        step[leaving] -= 1.0
        self._inverse -= np.multiply.outer(row, step)
        self.basis[leaving] = column
        self.work += self._inverse.size + by_item.size
        return True


def _sums(values: NDArray[np.float64], by_item: NDArray[np.int64]) -> NDArray[np.float64]:
    """values[by_item[0]] + values[by_item[1]] + ..., added in that order."""
    total: NDArray[np.float64] = values[by_item[0]].copy()
    for items in by_item[1:]:
        total += values[items]
    return total


def plan_columns(
    histogram: NDArray[np.int64], capacity: int, limits: Limits, max_docs: int, plans: list[list[Pattern]]
) -> tuple[list[Pattern], NDArray[np.float64]]:
    """Column generation on counts of lengths, from coarse classes of lengths to fine ones.

    Lengths are rounded up to multiples of a width. With few classes the programme is solved at once; its
    prices and patterns are the start of the next one, with classes half as wide. The best plan of all is kept.

    Args:
        histogram: int64[L+1], histogram[l] segments have length l; entry 0 is ignored.
        capacity: L, tokens a pack.
        limits: How much work it may cost.
        max_docs: Most segments a pack; 0 means no limit.
        plans: Those of other planners; their patterns are the first columns.

    Returns:
        The plan with the fewest packs, of those given and its own, and the price of every length, float64[L+1],
        for `price_bound`.
    """
    lengths = np.flatnonzero(histogram)
    lengths = lengths[lengths > 0]
    max_items = min(max_docs or MAX_ITEMS, MAX_ITEMS, capacity // int(lengths[0]))
    if max_items < (max_docs or capacity // int(lengths[0])):
        lengths = lengths[lengths > capacity // (MAX_ITEMS + 1)]
    prices = np.arange(capacity + 1) / capacity
    best = min(plans, key=num_packs)
    if not len(lengths):
        return best, prices
    width = 1
    while len(np.unique(-(-lengths // width))) > COARSEST:
        width *= 2
    work = limits.simplex_work
    patterns = start = [pattern for plan in plans for pattern in plan]
    while width:
        weights, class_of = np.unique(np.minimum(-(-lengths // width), capacity // width), return_inverse=True)
        work -= ROUNDING * len(lengths)
        if TYPICAL_PIVOTS * len(weights) ** 3 + (capacity // width) ** 2 > work:
            break
        demand = np.bincount(class_of, weights=histogram[lengths]).astype(np.int64)
        master = _Master(weights, demand, capacity // width, max_items)
        columns = _columns_of(patterns, master, dict(zip(lengths.tolist(), class_of.tolist(), strict=True)))
        if len(columns):
            master.add(columns)
        class_prices = _generate(master, prices[np.minimum(weights * width, capacity)], work)
        work -= master.work
        prices = _interpolate(capacity, np.append(0, weights * width), np.append(0.0, class_prices))
        rounded = _round(master, histogram, [lengths[class_of == each] for each in range(len(weights))])
        plan = _complete(histogram, capacity, limits, max_docs, rounded)
        patterns = start + plan
        best = min(best, plan, key=num_packs)
        width //= 2
    return best, prices


def _generate(master: _Master, center: NDArray[np.float64], max_work: int) -> NDArray[np.float64]:
    """Solves the programme; returns the prices, float64[C], that prove the most.

    Prices swing from one solution to the next, and columns found for extreme ones help little. So the
    knapsack takes prices between those of the solution and those with the best bound so far; if they give
    no new column, those of the solution. (Wentges 1997, "Weighted Dantzig-Wolfe decomposition".)
    """
    proven = 0.0
    items = np.arange(len(master.weights))[:, None]
    rest = master.capacity - master.weights
    while True:
        master.solve(max_work)
        is_new = False
        for weight in (0.9, 0.5, 0.0):
            prices = np.maximum(weight * center + (1.0 - weight) * master.prices, 0.0)
            knapsack = _Knapsack(master.weights, prices, master.capacity)
            worth = prices + knapsack.value(master.max_items - 1)[rest]
            bound = _in_order(prices * master.demand) / float(worth.max())
            if bound > proven:
                proven, center = bound, prices / worth.max()
            columns = np.concatenate((items, knapsack.sets(master.max_items - 1, rest)), axis=1)
            master.work += knapsack.work
            good = master.worth(columns) > 1.0 + EPSILON
            if good.any() and master.add(columns[good]):
                is_new = True
                break
        total = _in_order(master.amounts)
        if not is_new or master.work >= max_work or total - proven < CLOSE * total:
            return center


def _interpolate(capacity: int, lengths: NDArray[np.int64], prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prices of all lengths 0..capacity; np.interp may round differently on another machine."""
    wanted = np.arange(capacity + 1)
    upper = np.clip(np.searchsorted(lengths, wanted), 1, len(lengths) - 1)
    share = np.minimum((wanted - lengths[upper - 1]) / (lengths[upper] - lengths[upper - 1]), 1.0)
    rise = share * (prices[upper] - prices[upper - 1])
    return prices[upper - 1] + rise


def _in_order(values: NDArray[np.float64]) -> float:
    """The sum, added from first to last on every machine."""
    return float(np.cumsum(values)[-1])


def _columns_of(patterns: list[Pattern], master: _Master, class_of: dict[int, int]) -> NDArray[np.int64]:
    """The patterns of another planner that are columns here, int64[N, M]; lengths without a class are left out."""
    none = len(master.weights)
    columns = []
    for _, items in patterns:
        column = [class_of[length] for length, count in items if length in class_of for _ in range(count)]
        if 0 < len(column) <= master.max_items and master.weights[column].sum() <= master.capacity:
            columns.append(column + [none] * (master.max_items - len(column)))
    return np.array(columns, dtype=np.int64).reshape(len(columns), master.max_items)


def _round(master: _Master, histogram: NDArray[np.int64], members: list[NDArray[np.int64]]) -> list[Pattern]:
    """The basis rounded to whole packs of real lengths: amounts rounded down, then packs for fractions over a half."""
    left = {int(length): int(histogram[length]) for each in members for length in each}
    longest_first = [each[::-1].tolist() for each in members]
    patterns: list[Pattern] = []

    def take(items: dict[int, int], wanted: int) -> None:
        """Takes up to `wanted` packs of classes -> counts, the longest members first; stops when a class is used up."""
        while wanted:
            chosen: dict[int, int] = {}
            for item, count in items.items():
                for length in longest_first[item]:
                    num_taken = min(count, left[length])
                    if num_taken:
                        chosen[length] = num_taken
                        count -= num_taken
                    if not count:
                        break
                if count:
                    return
            packs = min([wanted, *(left[length] // count for length, count in chosen.items())])
            for length, count in chosen.items():
                left[length] -= packs * count
            for item in items:
                while longest_first[item] and not left[longest_first[item][0]]:
                    del longest_first[item][0]
            patterns.append((packs, tuple(sorted(chosen.items(), reverse=True))))
            wanted -= packs

    whole = np.floor(master.amounts + 1e-6).astype(np.int64)
    columns = [
        {
            int(item): int(count)
            for item, count in zip(*np.unique(row[row < len(members)], return_counts=True), strict=True)
        }
        for row in master.basis
    ]
    for items, count in zip(columns, whole.tolist(), strict=True):
        take(items, count)
    for index in np.argsort(whole - master.amounts, kind="stable").tolist():
        if master.amounts[index] - whole[index] > 0.5:
            take(columns[index], 1)
    return patterns


def _complete(
    histogram: NDArray[np.int64], capacity: int, limits: Limits, max_docs: int, patterns: list[Pattern]
) -> list[Pattern]:
    """Patterns for what is left, in packs begun and new ones."""
    rest = remaining(histogram, patterns)
    plans = [plan_decreasing(rest, capacity, max_docs, begun=patterns)]
    if not max_docs:
        filled = plan_filling(rest, capacity, limits.fill_work // 8)
        if filled is not None:
            plans.append(patterns + filled)
    return min(plans, key=num_packs)


def price_bound(
    histogram: NDArray[np.int64], capacity: int, prices: NDArray[np.float64], max_docs: int, max_work: int
) -> int:
    """No packing needs fewer packs: all segments are worth so much, and no pack can be worth more than `most`.

    Exact: prices are rounded down to whole multiples of a unit, so that the sums of packs are exact in float64.
    Where the capacity is large, lengths and capacity are rounded down to multiples for the knapsack: every
    set of segments that fits still fits.

    Args:
        histogram: int64[L+1] counts of lengths.
        capacity: L.
        prices: float64[L+1], what a segment of each length is worth in packs; any prices give a true bound.
        max_docs: Most segments a pack; 0 means no limit.
        max_work: Numbers to compute, at most about.
    """
    width = 1
    while (capacity // width) ** 2 * 4 > max_work:
        width *= 2
    priced = (prices > 0) & (histogram > 0)
    priced[:width] = False
    lengths = np.flatnonzero(priced)
    if not len(lengths):
        return 0
    max_items = min(max_docs or capacity, capacity // int(lengths[0]))
    whole = np.floor(np.clip(prices, 0.0, 1.0) * min(2**32, EXACT // max_items))
    weights, class_of = np.unique(lengths // width, return_inverse=True)
    dearest = np.zeros(len(weights))
    np.maximum.at(dearest, class_of, whole[lengths])
    most = int(_Knapsack(weights, dearest, capacity // width).value(max_items)[-1])
    total = sum(int(whole[length]) * int(histogram[length]) for length in lengths.tolist())
    return -(-total // most) if most else 0
