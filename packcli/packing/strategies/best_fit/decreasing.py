"""Best-fit decreasing on the histogram of lengths.

Best-fit decreasing (Johnson 1973) takes segments longest first and puts each into the open pack that it
fills best. Segments of one length are interchangeable, and so are packs that hold the same lengths. So
whole groups of packs move at once, and the cost grows with the number of distinct lengths, not with the
number of segments. (Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination", pack
histograms in the same spirit: their LPFHP.)

    lengths 6 5 5 4 4 3 2 2 1, capacity 8
    6         6 .
    5 5       6 .   5 .   5 .
    4 4       6 .   5 .   5 .   4 4
    3         6 .   5 3   5 .   4 4
    2 2       6 2   5 3   5 2   4 4
    1         6 2   5 3   5 2 1 4 4
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from packcli.packing.strategies.patterns import Pattern

Count = TypeVar("Count", int, NDArray[np.int64])

Chain = tuple["Chain | None", int, int]
"""What a group of packs holds, newest first: (the rest, length, how many of that length)."""


class _OpenPacks:
    """Groups of packs with the same contents, by the room they have left."""

    def __init__(self, max_docs: int) -> None:
        self.max_docs = max_docs
        self.by_room: dict[int, list[tuple[int, int, Chain]]] = {}
        self.rooms = 0  # bit r is set when by_room[r] holds a group
        self.closed: list[tuple[int, Chain]] = []

    def put(self, room: int, num_packs: int, num_docs: int, chain: Chain) -> None:
        if room == 0 or num_docs >= self.max_docs:
            self.closed.append((num_packs, chain))
        else:
            self.by_room.setdefault(room, []).append((num_packs, num_docs, chain))
            self.rooms |= 1 << room

    def fill(self, room: int, length: int, left: int) -> int:
        """Puts up to `left` segments of `length` into the packs with `room`; returns those still left.

        Plain best fit puts equal segments into one pack as long as they fit, since no other has less room. So
        a pack takes room // length segments at once.
        """
        groups = self.by_room.pop(room)
        self.rooms &= ~(1 << room)
        for index, (num_packs, num_docs, chain) in enumerate(groups):
            if not left:
                self.by_room[room] = self.by_room.get(room, []) + groups[index:]
                self.rooms |= 1 << room
                break
            each = min(room // length, self.max_docs - num_docs)
            filled = min(left // each, num_packs)
            if filled:
                self.put(room - each * length, filled, num_docs + each, (chain, length, each))
                left -= filled * each
            if left and filled < num_packs:  # fewer than `each` are left: one pack takes them
                self.put(room - left * length, 1, num_docs + left, (chain, length, left))
                left, filled = 0, filled + 1
            if filled < num_packs:
                self.put(room, num_packs - filled, num_docs, chain)
        return left


def plan_decreasing(
    histogram: NDArray[np.int64], capacity: int, max_docs: int = 0, begun: Iterable[Pattern] = ()
) -> list[Pattern]:
    """Best-fit decreasing on counts of lengths.

    Args:
        histogram: int64[capacity+1], histogram[l] segments have length l; entry 0 is ignored.
        capacity: Tokens a pack.
        max_docs: Most segments a pack; 0 means no limit.
        begun: Packs that may be filled up; the histogram does not count their segments. All that such a pack
            holds may also be given as one item, see `contents_item`.

    Returns:
        Patterns that hold every segment once, and those begun; at most about twice as many as there
        are distinct lengths.
    """
    packs = _OpenPacks(max_docs or capacity + 1)
    for num_packs, items in begun:
        chain: Chain | None = None
        tokens = docs = 0
        for length, count in items:
            chain = (chain, length, count)
            docs_of_item, tokens_of_item = divmod(length, capacity + 1)
            tokens += tokens_of_item * count
            docs += (docs_of_item or 1) * count
        if chain is not None:
            packs.put(capacity - tokens, num_packs, docs, chain)
    for length in np.flatnonzero(histogram)[::-1].tolist():
        if length == 0:
            continue
        left = int(histogram[length])
        room = length
        fitting = packs.rooms >> length
        while left and fitting:  # tightest first
            skip = (fitting & -fitting).bit_length() - 1
            room += skip
            left = packs.fill(room, length, left)
            fitting >>= skip + 1
            room += 1
        each = min(capacity // length, packs.max_docs)
        full, rest = divmod(left, each)
        for num_packs, count in ((full, each), (1, rest)):
            if num_packs and count:
                packs.put(capacity - count * length, num_packs, count, (None, length, count))
    packs.closed += [(group[0], group[2]) for room in sorted(packs.by_room) for group in packs.by_room[room]]
    return [(num_packs, items_of(chain)) for num_packs, chain in packs.closed]


def contents_item(num_docs: Count, num_tokens: Count, capacity: int) -> Count:
    """One number, over any length, for all that a begun pack holds: so that packs alike are one pattern."""
    return num_docs * (capacity + 1) + num_tokens


def items_of(chain: Chain | None) -> tuple[tuple[int, int], ...]:
    """What a chain holds: (length, how many), longest first."""
    items = []
    while chain is not None:
        chain, length, count = chain
        items.append((length, count))
    items.reverse()  # now longest first, unless the pack was begun by another planner
    if all(one[0] > next_one[0] for one, next_one in itertools.pairwise(items)):
        return tuple(items)
    counts: dict[int, int] = {}
    for length, count in items:
        counts[length] = counts.get(length, 0) + count
    return tuple(sorted(counts.items(), reverse=True))
