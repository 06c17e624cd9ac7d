"""Problems to pack, and what every solution has to keep."""

import numpy as np
from hypothesis import strategies as st

from packcli.packing.strategies import STRATEGIES
from packcli.packing.strategies.patterns import Packs


@st.composite
def problems(draw, min_size=0):
    """(lengths, capacity): short, long and exactly full segments; several of one length are common."""
    capacity = draw(st.integers(1, 40))
    length = st.integers(1, capacity) | st.just(capacity) | st.integers(1, max(1, capacity // 3))
    return draw(st.lists(length, min_size=min_size, max_size=40)), capacity


def int32(lengths):
    return np.array(lengths, dtype=np.int32)


def run(name, lengths, capacity, **options):
    """Packs as lists of segments."""
    order, pack_offsets, *_ = STRATEGIES[name].function(int32(lengths), capacity, **options)
    return [order[a:b].tolist() for a, b in zip(pack_offsets[:-1], pack_offsets[1:], strict=True)]


def filled(packs, lengths):
    """The lengths in each pack, in a form that does not depend on the order of packs or of equal lengths."""
    return sorted(sorted(int(lengths[segment]) for segment in pack) for pack in packs)


def check(name, lengths, capacity, packs, max_docs=0):
    """The contract of the package's docstring."""
    assert isinstance(packs, Packs)
    order, pack_offsets = packs.order, packs.pack_offsets
    assert order.dtype in (np.int32, np.int64)
    assert pack_offsets.dtype == np.int64
    assert 0 <= packs.lower_bound <= len(pack_offsets) - 1
    assert isinstance(packs.found_by, str)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    offsets = pack_offsets.tolist()
    assert offsets[0] == 0
    assert offsets[-1] == len(lengths)
    for begin, end in zip(offsets[:-1], offsets[1:], strict=True):
        assert begin < end, f"{name}: an empty pack"
        assert sum(lengths[order[begin:end]].tolist()) <= capacity, f"{name}: a pack over capacity"
        assert not max_docs or end - begin <= max_docs, f"{name}: a pack over max_docs"


def slow_decreasing(lengths, capacity, max_docs=0, begun=()):
    """Best-fit decreasing into packs begun and new ones; of packs with the same room the one that waited longest.

    Without a limit of documents it is all one which of them is taken; with one, another may be full sooner.
    """
    packs = [list(pack) for pack in begun]
    touched = list(range(len(packs)))
    placed = {segment for pack in packs for segment in pack}
    for segment in sorted(set(range(len(lengths))) - placed, key=lambda each: -lengths[each]):
        fitting = []
        for pack, segments in enumerate(packs):
            room = capacity - sum(lengths[each] for each in segments)
            if room >= lengths[segment] and not (max_docs and len(segments) >= max_docs):
                fitting.append((room, touched[pack], pack))
        if fitting:
            pack = min(fitting)[2]
        else:
            pack = len(packs)
            packs.append([])
            touched.append(0)
        packs[pack].append(segment)
        touched[pack] = len(lengths) + max(touched)
    return packs


def full(packs, lengths):
    """How full the packs are: where packs tie for the least room, best fit may take either."""
    return sorted(sum(lengths[segment] for segment in pack) for pack in packs)
