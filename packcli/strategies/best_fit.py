"""best-fit: best-fit decreasing, planned on the histogram of lengths.

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

import numpy as np
from numpy.typing import NDArray

from packcli.strategies.random import permutation

Chain = tuple["Chain | None", int, int]
"""What a group of packs holds, newest first: (the rest, length, how many of that length)."""

Pattern = tuple[int, tuple[tuple[int, int], ...]]
"""(number of packs, ((length, how many in each pack), ...)), longest first."""


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

        Plain best fit comes back to a pack as long as the next segment fits, for nothing is tighter, so a
        pack takes room // length segments at once.
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


def plan_histogram(histogram: NDArray[np.int64], capacity: int, max_docs: int = 0) -> list[Pattern]:
    """Best-fit decreasing on counts of lengths.

    Args:
        histogram: int64[capacity+1], histogram[l] segments have length l; entry 0 is ignored.
        capacity: Tokens a pack.
        max_docs: Most segments a pack; 0 means no limit.

    Returns:
        Patterns that hold every segment once, at most about twice as many as distinct lengths.
    """
    packs = _OpenPacks(max_docs or capacity + 1)
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
    return [(num_packs, _items(chain)) for num_packs, chain in packs.closed]


def _items(chain: Chain | None) -> tuple[tuple[int, int], ...]:
    counts: dict[int, int] = {}
    while chain is not None:
        chain, length, count = chain
        counts[length] = counts.get(length, 0) + count
    return tuple(sorted(counts.items(), reverse=True))


def assign(
    lengths: NDArray[np.int32], capacity: int, patterns: list[Pattern], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Deals the segments out to the patterns.

    The segments of one length, in a random order, are one run of a sorted array; a pattern takes the next
    slice of that run, as a block of (packs, how many in each). So nothing is done segment by segment.

    Returns:
        order int64[S], pack_offsets int64[P+1].
    """
    key = lengths.astype(np.uint16) if capacity < 2**16 else lengths  # NumPy sorts 16 bits by radix
    shuffled = permutation(len(lengths), seed)
    by_length = shuffled[np.argsort(key[shuffled], kind="stable")]
    counts = np.bincount(lengths, minlength=capacity + 1)
    taken = (np.cumsum(counts) - counts).tolist()

    order = np.empty(len(lengths), dtype=np.int64)
    docs_per_pack: list[NDArray[np.int64]] = []
    begin = 0
    for num_packs, items in patterns:
        num_docs = sum(count for _, count in items)
        block = order[begin : begin + num_packs * num_docs].reshape(num_packs, num_docs)
        column = 0
        for length, count in items:
            first = taken[length]
            taken[length] = first + num_packs * count
            block[:, column : column + count] = by_length[first : taken[length]].reshape(num_packs, count)
            column += count
        begin += num_packs * num_docs
        docs_per_pack.append(np.full(num_packs, num_docs, dtype=np.int64))
    pack_offsets = np.zeros(1 + sum(num_packs for num_packs, _ in patterns), dtype=np.int64)
    if docs_per_pack:
        np.cumsum(np.concatenate(docs_per_pack), out=pack_offsets[1:])
    return order, pack_offsets


def best_fit(
    lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Best-fit decreasing; the seed chooses among segments of one length, so it changes no density."""
    histogram = np.bincount(lengths, minlength=capacity + 1)
    return assign(lengths, capacity, plan_histogram(histogram, capacity, max_docs), seed)
