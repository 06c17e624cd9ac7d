"""The fewest packs there can be, by trying."""


def fewest_packs(lengths, max_len, max_docs):
    """By trying everything: each segment into every pack with room, or into a new one."""
    best = len(lengths)
    lengths = sorted(lengths, reverse=True)  # so that it is soon too much

    def place(index, packs):
        nonlocal best
        if len(packs) >= best:
            return
        if index == len(lengths):
            best = len(packs)
            return
        for pack, (room, docs) in enumerate(packs):
            if room >= lengths[index] and docs != max_docs and (room, docs) not in packs[:pack]:
                place(index + 1, [*packs[:pack], (room - lengths[index], docs + 1), *packs[pack + 1 :]])
        place(index + 1, [*packs, (max_len - lengths[index], 1)])

    place(0, [])
    return best
