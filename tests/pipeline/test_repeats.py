"""How often each document is taken: exact counts, and copies that tile their documents."""

import collections

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli import readers
from packcli.dataset import kept_of_documents
from packcli.dataset.documents import number_copies
from packcli.pipeline.mixture import NUM_BUCKETS, _name, buckets_of, plan_repeats
from packcli.seeds import ALL, row_hashes


def test_repeats_by_hand():
    """750 of 1,000 tokens that lie evenly: three quarters of all hashes. 2,250: that, after two whole epochs."""
    even = np.zeros(NUM_BUCKETS, dtype=np.int64)
    even[:: NUM_BUCKETS // 1000][:1000] = 1
    even[0] += 1000 - even.sum()
    tokens = np.full(NUM_BUCKETS, 10, dtype=np.int64)
    assert plan_repeats(NUM_BUCKETS * 10 // 4 * 3, tokens) == (0, ALL // 4 * 3)
    assert plan_repeats(NUM_BUCKETS * 25, tokens) == (2, ALL // 2)
    assert plan_repeats(NUM_BUCKETS * 20, tokens) == (2, 0)
    assert plan_repeats(5, tokens) == (0, ALL // NUM_BUCKETS // 2)
    lumpy = np.zeros(NUM_BUCKETS, dtype=np.int64)
    lumpy[7], lumpy[9] = 30, 10
    width = ALL // NUM_BUCKETS
    assert plan_repeats(15, lumpy) == (0, 7 * width + width // 2)
    assert plan_repeats(35, lumpy) == (0, 9 * width + width // 2)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=300), st.floats(0.01, 3.5), st.integers(0, 99))
def test_the_threshold_takes_the_tokens_that_are_wanted(lengths, times, seed):
    """Within the longest document and those that share a bucket with the threshold."""
    lengths = np.array(lengths, dtype=np.int64)
    hashes = row_hashes(np.arange(len(lengths)), seed)
    assert hashes.min() >= 0
    assert hashes.max() < ALL
    tokens = np.bincount(buckets_of(hashes), lengths, NUM_BUCKETS).astype(np.int64)
    wanted = max(int(times * lengths.sum()), 1)
    epochs, threshold = plan_repeats(wanted, tokens)
    found = epochs * lengths.sum() + lengths[hashes < threshold].sum()
    assert abs(found - wanted) <= tokens.max()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sets(st.integers(1, 8))), max_size=9), st.randoms())
def test_copies_tile_their_documents(documents, shuffled):
    """Documents of 9 tokens, any number of copies, each cut anywhere: every copy that is found is whole."""
    pieces = []
    for source, row, cuts in documents:
        edges = [0, *sorted(cuts), 9]
        pieces += [(source, row, *edge) for edge in zip(edges, edges[1:], strict=False)]
    shuffled.shuffle(pieces)
    source, row, start, end = (
        (np.array(each, dtype=np.int64) for each in zip(*pieces, strict=True))
        if pieces
        else (np.zeros(0, dtype=np.int64) for _ in range(4))
    )
    copies = number_copies(source, row, start, end)
    found = collections.defaultdict(list)
    for place, piece in enumerate(pieces):
        found[piece[:2], int(copies[place])].append(piece[2:])
    assert collections.Counter(key for key, _ in found) == collections.Counter((s, r) for s, r, _ in documents)
    for spans in found.values():
        edges = [0]
        for begin, stop in sorted(spans):
            assert begin == edges[-1]
            edges.append(stop)
        assert edges[-1] == 9


def test_a_missing_piece_is_no_copy():
    """What follows nothing stands alone, and check_documents sees the hole."""
    pieces = np.array([(0, 0, 0, 5), (0, 0, 5, 9), (0, 0, 6, 9)], dtype=np.int64).T
    assert number_copies(*pieces).tolist() == [0, 0, 0]


@given(
    st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=6), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, ALL - 1)), min_size=3, max_size=3),
    st.integers(1024, 9000),
)
@settings(max_examples=40)
def test_units_take_every_row_as_often_as_the_mixture_says(tmp_path_factory, files, repeats, unit_bytes):
    """Whatever the files and the units: each row in `epochs` units, once more below the threshold, never else."""
    root = tmp_path_factory.mktemp("units")
    names, components, text_bytes = [], [], []
    for number, sizes in enumerate(files):
        first = len(names)
        for index, size in enumerate(sizes):
            path = root / f"{number}-{index}.jsonl"
            path.write_text("".join(f'{{"text": "{"x" * (row % 50)}"}}\n' for row in range(size)), encoding="utf-8")
            names.append(str(path))
            text_bytes.append(path.stat().st_size)
        epochs, threshold = repeats[number]
        components.append({"first_source": first, "num_sources": len(sizes), "epochs": epochs, "threshold": threshold})
    sources = readers.find_sources(names, [])
    fields = readers.find_fields(sources, "text", None)
    units = readers.cut_mixed(sources, {"components": components, "text_bytes": text_bytes}, unit_bytes, 7)
    assert [unit.index for unit in units] == list(range(len(units)))
    extract = readers.TextExtractor(fields, sources)
    seen, taken = collections.Counter(), collections.Counter()
    for unit in units:
        for part in readers.read_parts(unit, sources, fields, unit_bytes=unit_bytes):
            for chunk in part.chunks():
                inner = chunk.chunk if isinstance(chunk, readers.ThinnedChunk) else chunk
                rows = extract(inner)[1]
                seen.update((chunk.source, row) for row in rows.tolist())
                kept = chunk.taken(rows) if isinstance(chunk, readers.ThinnedChunk) else np.arange(len(rows))
                taken.update((chunk.source, row) for row in rows[kept].tolist())
            assert part.is_last == (part.index == unit.num_parts - 1)
    for component, sizes in zip(components, files, strict=True):
        for index, size in enumerate(sizes):
            source = component["first_source"] + index
            hashes = row_hashes(np.arange(size), readers.hash_seed(7, source))
            for row in range(size):
                more = component["threshold"] > 0
                assert seen[source, row] == component["epochs"] + more
                assert taken[source, row] == component["epochs"] + (hashes[row] < component["threshold"])


def test_kept_of_documents_counts_copies_apart():
    from packcli.packing import Sources

    rows = np.array([(0, 3, 0, 5), (0, 3, 5, 9), (0, 3, 0, 9), (1, 0, 0, 2)]).T
    found = Sources(*(rows[place].astype(np.int64) for place in range(4)), np.array([0, 4]))
    tokens, pieces = kept_of_documents([found])
    assert sorted(zip(tokens.tolist(), pieces.tolist(), strict=True)) == [(2, 1), (9, 1), (9, 2)]


def test_names_of_components():
    """Directories by what their files share from the beginning on; nothing of this machine besides."""

    def source(name):
        return readers.Source(name, "/x/" + name, "json", None, 1)

    assert _name([source("a/b/x.jsonl"), source("a/c/y.jsonl")]) == "a/"
    assert _name([source("a/b/x.jsonl"), source("c/b/y.jsonl")]) == "a/b/x.jsonl and 1 more"
    assert _name([source("b/x.jsonl")]) == "b/x.jsonl"
