"""Filling: each pack takes the longest segment left, and the set of others that fills it best.

Best-fit decreasing looks at one segment at a time; where short segments are few, its last packs stay
part-filled. Here every pack is a subset-sum problem, solved on the histogram: bit s of a Python integer
is set when some of the lengths so far sum to s tokens (Martello and Toth 1990, chapter 4), and a
pattern is repeated as often as the counts allow. (Gupta and Ho 1999, "A new heuristic algorithm for the
one-dimensional bin-packing problem", fill one pack at a time likewise: minimum bin slack.)

    lengths 6 5 5 4 4 3 2 2 1, capacity 8:   6 2 | 5 3 | 5 2 1 | 4 4
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from packcli.packing.strategies.best_fit.decreasing import plan_decreasing
from packcli.packing.strategies.patterns import Pattern, remaining


class _Sums:
    """reach[i] has bit s set when the shortest i lengths can make up exactly s tokens."""

    def __init__(self, histogram: NDArray[np.int64], capacity: int) -> None:
        self.capacity = capacity
        self.lengths: list[int] = [length for length in np.flatnonzero(histogram).tolist() if length]
        self.left: dict[int, int] = {length: int(histogram[length]) for length in self.lengths}
        self.reach = [1] * (len(self.lengths) + 1)
        self.work = 0
        self._mask = (1 << (capacity + 1)) - 1
        self._rebuild(0)

    def _rebuild(self, first: int) -> None:
        """Recomputes what depends on the lengths from `first` up."""
        sums = self.reach[first]
        for index in range(first, len(self.lengths)):
            if sums == self._mask:  # every sum is reached; counted as if computed, so that the plan stays the same
                rest = self.lengths[index:]
                self.reach[index + 1 :] = [sums] * len(rest)
                self.work += sum(min(self.left[each], self.capacity // each).bit_length() for each in rest)
                return
            length = self.lengths[index]
            most, step = min(self.left[length], self.capacity // length), 1
            while most > 0:  # 1, 2, 4, ... copies, and a rest: every number up to `most`
                step = min(step, most)
                sums |= (sums << (length * step)) & self._mask
                most -= step
                step <<= 1
                self.work += 1
            self.reach[index + 1] = sums

    def best_pattern(self) -> list[tuple[int, int]]:
        """The longest length and what fills up best beside it, longest first; of equal fills the longest segments."""
        top = len(self.lengths) - 1
        longest, reach = self.lengths[top], self.reach[top]
        most, copies = -1, 0
        for count in range(min(self.left[longest], self.capacity // longest), 0, -1):
            room = self.capacity - count * longest
            total = count * longest + (reach & ((1 << (room + 1)) - 1)).bit_length() - 1
            if total > most:
                most, copies = total, count
            if total == self.capacity:
                break
        pattern = [(longest, copies)]
        rest, index = most - copies * longest, top
        while rest:
            index = min(index, bisect_left(self.lengths, rest + 1)) - 1
            length = self.lengths[index]
            for count in range(min(self.left[length], rest // length), -1, -1):
                if self.reach[index] >> (rest - count * length) & 1:
                    break
            if count:
                pattern.append((length, count))
                rest -= count * length
        return pattern

    def take(self, pattern: list[tuple[int, int]], num_packs: int) -> None:
        """Removes the segments of so many packs."""
        lowest = None
        for length, count in pattern:  # longest first
            self.left[length] -= num_packs * count
            if self.left[length] < self.capacity // length:
                lowest = length
        if lowest is not None:
            first = bisect_left(self.lengths, lowest)
            self.lengths[first:] = [length for length in self.lengths[first:] if self.left[length]]
            del self.reach[len(self.lengths) + 1 :]
            self._rebuild(first)


def plan_filling(histogram: NDArray[np.int64], capacity: int, max_work: int) -> list[Pattern] | None:
    """Filling on counts of lengths; there is no limit to the segments of a pack.

    Args:
        histogram: int64[capacity+1], histogram[l] segments have length l; entry 0 is ignored.
        capacity: Tokens a pack.
        max_work: Most words of 64 bits to compute. After that, best-fit decreasing does the rest.

    Returns:
        Patterns that hold every segment once, or None when there are so many lengths that it is not worth beginning.
    """
    words = capacity // 64 + 16  # small integers take time too
    patterns: list[Pattern] = []
    if np.count_nonzero(histogram) * words * 2 > max_work:
        return None
    sums = _Sums(histogram, capacity)
    while sums.lengths and sums.work * words < max_work:
        pattern = sums.best_pattern()
        num_packs = min(sums.left[length] // count for length, count in pattern)
        patterns.append((num_packs, tuple(pattern)))
        sums.take(pattern, num_packs)
    return plan_decreasing(remaining(histogram, patterns), capacity, begun=patterns)
