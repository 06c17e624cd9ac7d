"""shuffle-fit: random order best fit, with the shortest segments held back as filler."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from packcli.strategies.first_fit import packs_to_csr
from packcli.strategies.random import permutation

FILLER_SHARE = 0.03
"""Share of all tokens, in the shortest segments, that is placed last to fill what is left open."""


def shuffle_fit(
    lengths: NDArray[np.int32], capacity: int, *, max_docs: int = 0, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Best fit in a random order, so that the lengths inside a pack are not alike.

    Best-fit decreasing puts long with long: lengths of pack mates correlate by 0.8 on short documents,
    here by about 0.1. The price is a little density; the filler buys most of it back.

    The packs with r tokens left are a stack at r, and one Python int has bit r set where the stack is
    not empty: the tightest pack is the lowest set bit at or above the length.
    """
    num_segments = len(lengths)
    shuffled = permutation(num_segments, seed)
    by_length = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    held_back = np.cumsum(lengths[by_length], dtype=np.int64) <= FILLER_SHARE * lengths.sum(dtype=np.int64)
    is_filler = np.zeros(num_segments, dtype=np.bool_)
    is_filler[by_length[held_back]] = True
    visit = np.concatenate((shuffled[~is_filler[shuffled]], by_length[held_back][::-1]))

    cap = max_docs or num_segments + 1
    stacks: dict[int, list[int]] = {}
    docs: list[int] = []
    open_rooms = 0
    pack_of_visit: list[int] = []
    for length in lengths[visit].tolist():
        fitting = open_rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            stack = stacks[room]
            pack = stack.pop()
            if not stack:
                open_rooms &= ~(1 << room)
            docs[pack] += 1
        else:
            room, pack = capacity, len(docs)
            docs.append(1)
        room -= length
        if room and docs[pack] < cap:
            stacks.setdefault(room, []).append(pack)
            open_rooms |= 1 << room
        pack_of_visit.append(pack)
    order, pack_offsets = packs_to_csr(np.array(pack_of_visit, dtype=np.int64))
    return visit[order], pack_offsets
