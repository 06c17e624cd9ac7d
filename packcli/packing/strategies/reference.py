"""Reference implementations: what a strategy means, in a few lines of slow, plain Python.

Tests compare the fast ones with these. Each takes lengths and capacity, and returns packs as lists of
segment indices. The fast ones may break ties in another way, and fill packs equally well; except for best fit with
a limit of segments, where it matters which of two packs with the same room is taken.
"""

from __future__ import annotations


def best_fit_decreasing(lengths: list[int], capacity: int, max_docs: int = 0) -> list[list[int]]:
    """Longest first, each into the open pack with the least room that is enough."""
    packs: list[list[int]] = []
    room: list[int] = []
    for segment in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fitting = [
            pack
            for pack in range(len(packs))
            if room[pack] >= lengths[segment] and not (max_docs and len(packs[pack]) >= max_docs)
        ]
        _put(packs, room, capacity, segment, lengths[segment], min(fitting, key=lambda pack: room[pack], default=None))
    return packs


def first_fit(lengths: list[int], capacity: int, max_docs: int = 0) -> list[list[int]]:
    """In input order, each into the earliest pack with enough room."""
    packs: list[list[int]] = []
    room: list[int] = []
    for segment, length in enumerate(lengths):
        fitting = (
            pack
            for pack in range(len(packs))
            if room[pack] >= length and not (max_docs and len(packs[pack]) >= max_docs)
        )
        _put(packs, room, capacity, segment, length, next(fitting, None))
    return packs


def next_fit(lengths: list[int], capacity: int, max_docs: int = 0) -> list[list[int]]:
    """In input order, each into the newest pack or into a new one."""
    packs: list[list[int]] = []
    room: list[int] = []
    for segment, length in enumerate(lengths):
        fits = packs and room[-1] >= length and not (max_docs and len(packs[-1]) >= max_docs)
        _put(packs, room, capacity, segment, length, len(packs) - 1 if fits else None)
    return packs


def _put(packs: list[list[int]], room: list[int], capacity: int, segment: int, length: int, pack: int | None) -> None:
    if pack is None:
        pack = len(packs)
        packs.append([])
        room.append(capacity)
    packs[pack].append(segment)
    room[pack] -= length
