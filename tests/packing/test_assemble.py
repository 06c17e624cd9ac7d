"""assemble: without these tests a model could train on padding, across documents, or on tokens in the wrong place."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.config.choices import COLUMNS, IGNORE
from packcli.packing import Assembler, Lists, Origin, RowLayout, assemble, make_plan, rows_per_batch
from packcli.packing.strategies import STRATEGIES

PROPERTY = settings(deadline=None, derandomize=True, max_examples=80)
PAD = 99


def layout(**changes):
    return RowLayout(**{"columns": COLUMNS, "pad_id": PAD, "isolate": True, "ragged": False, **changes})


def int64(values):
    return np.array(values, dtype=np.int64)


def origin_of(num_docs):
    """Two files: even documents from file 0, odd from file 1; rows from 100 up."""
    docs = np.arange(num_docs)
    return Origin((docs % 2).astype(np.int32), docs.astype(np.int64) + 100)


def assembler(lengths, max_len, look, *, gap=0, **options):
    """Documents of the given lengths, `gap` tokens of nobody before each; ids count from 1000."""
    docs = int64(lengths)
    starts = np.cumsum(docs + gap) - docs
    ids = np.arange(1000, 1000 + int((docs + gap).sum()), dtype=np.uint32)
    plan = make_plan(docs, max_len, **options)
    return Assembler(plan, ids, starts, origin_of(len(docs)), look), plan, ids, starts


def rows_of(lists):
    return [lists.values[a:b].tolist() for a, b in zip(lists.offsets[:-1], lists.offsets[1:], strict=True)]


def sources_of(sources):
    flat = list(
        zip(*(each.tolist() for each in (sources.source, sources.row, sources.start, sources.end)), strict=True)
    )
    return [flat[a:b] for a, b in zip(sources.offsets[:-1], sources.offsets[1:], strict=True)]


def table(batch):
    """A batch as column -> list of rows, for the columns that it has."""
    columns = {name: getattr(batch, name) for name in COLUMNS if getattr(batch, name) is not None}
    return {
        name: rows_of(column) if isinstance(column, Lists) else sources_of(column) for name, column in columns.items()
    }


def joined(batches):
    out = {}
    for batch in batches:
        for name, rows in table(batch).items():
            assert len(rows) == batch.num_rows
            out.setdefault(name, []).extend(rows)
    return out


def slow_table(plan, ids, starts, origin, look):
    """The twin: one row at a time, one token at a time."""
    out = {name: [] for name in look.columns}
    for begin, end in zip(plan.pack_offsets[:-1], plan.pack_offsets[1:], strict=True):
        row = {name: [] for name in COLUMNS}
        for segment in plan.order[begin:end].tolist():
            doc, start, length = (
                int(x[segment]) for x in (plan.segments.doc, plan.segments.start, plan.segments.length)
            )
            for position in range(length):
                token = int(ids[starts[doc] + start + position])
                row["input_ids"].append(token)
                row["labels"].append(IGNORE if look.isolate and position == 0 else token)
                row["position_ids"].append(position)
            row["seq_lengths"].append(length)
            row["sources"].append((int(origin.source[doc]), int(origin.row[doc]), start, start + length))
        if not look.isolate:
            row["seq_lengths"] = [len(row["input_ids"])]
        tail = 0 if look.ragged else plan.max_len - len(row["input_ids"])
        row["input_ids"] += [look.pad_id] * tail
        row["labels"] += [IGNORE] * tail
        row["position_ids"] += range(tail)
        row["seq_lengths"] += [tail] if tail else []
        if not look.isolate:
            row["position_ids"] = list(range(len(row["input_ids"])))
        for name in look.columns:
            out[name].append(row[name])
    return out


# By hand.


def test_two_documents_isolated():
    """The example of the docstring: documents of 3 and 2 tokens in a pack of 8."""
    made, *_ = assembler([3, 2], 8, layout(), strategy="next-fit")
    assert table(made.rows(0, 1)) == {
        "input_ids": [[1000, 1001, 1002, 1003, 1004, PAD, PAD, PAD]],
        "labels": [[-100, 1001, 1002, -100, 1004, -100, -100, -100]],
        "position_ids": [[0, 1, 2, 0, 1, 0, 1, 2]],
        "seq_lengths": [[3, 2, 3]],
        "sources": [[(0, 100, 0, 3), (1, 101, 0, 2)]],
    }


def test_two_documents_in_one_stream():
    """--no-isolate: the classic GPT stream, only padding is masked."""
    made, *_ = assembler([3, 2], 8, layout(isolate=False), strategy="next-fit")
    assert table(made.rows(0, 1)) == {
        "input_ids": [[1000, 1001, 1002, 1003, 1004, PAD, PAD, PAD]],
        "labels": [[1000, 1001, 1002, 1003, 1004, -100, -100, -100]],
        "position_ids": [[0, 1, 2, 3, 4, 5, 6, 7]],
        "seq_lengths": [[5, 3]],
        "sources": [[(0, 100, 0, 3), (1, 101, 0, 2)]],
    }


@pytest.mark.parametrize(("isolate", "lengths"), [(True, [[3, 2], [4]]), (False, [[5], [4]])])
def test_ragged_rows_hold_no_padding(isolate, lengths):
    """A trainer that derives labels from input_ids must find nothing to mask."""
    look = layout(columns=("input_ids", "seq_lengths"), ragged=True, isolate=isolate)
    made, *_ = assembler([3, 2, 4], 8, look, strategy="next-fit")
    assert table(made.rows(0, 2)) == {
        "input_ids": [[1000, 1001, 1002, 1003, 1004], [1005, 1006, 1007, 1008]],
        "seq_lengths": lengths,
    }


def test_a_document_that_goes_on_in_the_next_pack():
    """Positions restart in a continued segment, its first label is masked, its source says where it goes on."""
    made, *_ = assembler([3, 3], 4, layout(), strategy="concat")
    assert table(made.rows(0, 2)) == {
        "input_ids": [[1000, 1001, 1002, 1003], [1004, 1005, PAD, PAD]],
        "labels": [[-100, 1001, 1002, -100], [-100, 1005, -100, -100]],
        "position_ids": [[0, 1, 2, 0], [0, 1, 0, 1]],
        "seq_lengths": [[3, 1], [2, 2]],
        "sources": [[(0, 100, 0, 3), (1, 101, 0, 1)], [(1, 101, 1, 3)]],
    }


def test_full_rows_have_no_pad_tail():
    """A seq_length of 0 would be one more boundary in cu_seqlens."""
    for isolate in (True, False):
        made, *_ = assembler([4, 4], 4, layout(isolate=isolate), strategy="next-fit")
        assert table(made.rows(0, 2))["seq_lengths"] == [[4], [4]]


def test_the_last_token_of_a_truncated_document_is_not_the_next_one():
    """Ids after the cut belong to nobody: the row goes on with the next document."""
    made, *_ = assembler([5, 2], 6, layout(columns=("input_ids", "sources")), strategy="next-fit", overlong="truncate")
    assert table(made.rows(0, 2))["input_ids"] == [[1000, 1001, 1002, 1003, 1004, PAD], [1005, 1006, *[PAD] * 4]]
    made, *_ = assembler([5, 2], 4, layout(columns=("input_ids", "sources")), strategy="next-fit", overlong="truncate")
    assert table(made.rows(0, 2)) == {
        "input_ids": [[1000, 1001, 1002, 1003], [1005, 1006, PAD, PAD]],
        "sources": [[(0, 100, 0, 4)], [(1, 101, 0, 2)]],
    }


def test_a_pad_id_that_is_eos_does_not_mask_eos():
    """Pad is often EOS: only positions of padding are masked, never the token itself."""
    ids = np.array([7, 2, 8, 2], dtype=np.uint32)
    made = Assembler(make_plan([2, 2], 6, strategy="next-fit"), ids, int64([0, 2]), origin_of(2), layout(pad_id=2))
    found = table(made.rows(0, 1))
    assert found["input_ids"] == [[7, 2, 8, 2, 2, 2]]
    assert found["labels"] == [[-100, 2, -100, 2, -100, -100]]


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_packs_no_batches(name):
    made, *_ = assembler([0, 0], 8, layout(), strategy=name)
    assert list(made.batches()) == []


@pytest.mark.parametrize(("max_len", "rows"), [(2, 1000), (262, 1000), (2048, 128), (65536, 16), (2**24, 16)])
def test_rows_per_batch(max_len, rows):
    """100 to 1000 rows a record batch, fewer only for very long rows: it is part of the bytes."""
    assert rows_per_batch(max_len) == rows


# Against the twin.


@st.composite
def cases(draw):
    """Everything that decides a table; block and batch sizes small enough to be crossed."""
    name = draw(st.sampled_from(sorted(STRATEGIES)))
    return {
        "lengths": draw(st.lists(st.integers(0, 12), max_size=14)),
        "max_len": draw(st.integers(1, 10)),
        "gap": draw(st.sampled_from([0, 0, 2])),
        "options": {
            "strategy": name,
            "overlong": draw(st.sampled_from(["split", "truncate", "drop"])),
            "seed": draw(st.integers(0, 3)),
        },
        "look": layout(
            isolate=draw(st.booleans()),
            ragged=draw(st.booleans()),
            pad_id=draw(st.sampled_from([0, PAD, 1003])),
            columns=tuple(name for name in COLUMNS if name == "input_ids" or draw(st.integers(0, 3))),
        ),
        "block": draw(st.sampled_from([1, 3, 8, assemble.BLOCK_TOKENS])),
        "step": draw(st.integers(1, 4)),
    }


def made_of(case):
    return assembler(case["lengths"], case["max_len"], case["look"], gap=case["gap"], **case["options"])


@settings(PROPERTY, max_examples=250)
@given(case=cases())
def test_assemble_equals_its_slow_twin(case):
    made, plan, ids, starts = made_of(case)
    twin = slow_table(plan, ids, starts, origin_of(len(case["lengths"])), case["look"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "BLOCK_TOKENS", case["block"])
        patch.setattr(assemble, "rows_per_batch", lambda _: case["step"])
        batches = list(made.batches())
    assert sum(batch.num_rows for batch in batches) == plan.num_packs
    assert joined(batches) == (twin if plan.num_packs else {})


@PROPERTY
@given(case=cases(), data=st.data())
def test_any_cut_of_the_rows_is_the_same_table(case, data):
    """Batches are an affair of memory: where they begin may change no row."""
    made, plan, *_ = made_of(case)
    if not plan.num_packs:
        assert joined(made.batches()) == {}
        return
    inner = data.draw(st.sets(st.integers(1, plan.num_packs))) - {plan.num_packs}
    cuts = [0, *sorted(inner), plan.num_packs]
    parts = [made.rows(first, last) for first, last in zip(cuts[:-1], cuts[1:], strict=True)]
    assert joined(parts) == joined([made.rows(0, plan.num_packs)]) == joined(made.batches())


@PROPERTY
@given(case=cases())
def test_a_column_does_not_depend_on_the_others(case):
    made, plan, ids, starts = made_of(case)
    whole = dataclasses.replace(case["look"], columns=COLUMNS)
    every = joined(Assembler(plan, ids, starts, origin_of(len(starts)), whole).batches())
    some = joined(made.batches())
    assert set(some) == (set(case["look"].columns) if plan.num_packs else set())
    assert all(rows == every[name] for name, rows in some.items())


@PROPERTY
@given(case=cases())
def test_types_and_offsets_are_those_of_the_shards(case):
    """Arrow takes the buffers as they are: a wrong width is a wrong column."""
    made, plan, *_ = made_of(case)
    batches = list(made.batches())
    assert bool(batches) == bool(plan.num_packs)
    for batch in batches:
        for name in ("input_ids", "labels", "position_ids", "seq_lengths"):
            column = getattr(batch, name)
            assert (column is not None) == (name in case["look"].columns)
            if column is not None:
                assert column.values.dtype == column.offsets.dtype == np.int32
                assert column.offsets[0] == 0
                assert column.offsets[-1] == len(column.values)
        assert (batch.sources is not None) == ("sources" in case["look"].columns)
        if batch.sources is not None:
            widths = [getattr(batch.sources, name).dtype for name in ("source", "row", "start", "end", "offsets")]
            assert widths == [np.int32, np.int64, np.int32, np.int32, np.int32]


# What consumers rely on, said without the twin.


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("isolate", [True, False])
@settings(PROPERTY, max_examples=25)
@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any), max_len=st.integers(1, 12))
def test_what_a_trainer_reads(name, isolate, lengths, max_len):
    """Real ids are 1000 and more here, padding is 99."""
    made, plan, *_ = assembler(lengths, max_len, layout(isolate=isolate), strategy=name)
    found = joined(made.batches())
    assert len(found["input_ids"]) == plan.num_packs > 0
    for row in range(plan.num_packs):
        ids, labels, positions, spans = (found[c][row] for c in ("input_ids", "labels", "position_ids", "seq_lengths"))
        used = int(plan.pack_tokens[row])
        assert len(ids) == len(labels) == len(positions) == sum(spans) == max_len
        assert min(spans) > 0
        is_pad = [token == PAD for token in ids]
        assert is_pad == [False] * used + [True] * (max_len - used)
        begins = np.cumsum([0, *spans[:-1]]).tolist()
        masked = {place for place, label in enumerate(labels) if label == IGNORE}
        padding = set(range(used, max_len))
        assert all(labels[place] == ids[place] for place in range(max_len) if place not in masked)
        if isolate:
            assert masked == padding | set(begins)
            assert [place for place, position in enumerate(positions) if position == 0] == begins
            assert positions == [place for span in spans for place in range(span)]
            assert len(found["sources"][row]) == len(spans) - bool(padding)
        else:
            assert masked == padding
            assert positions == list(range(max_len))
            assert spans == [span for span in (used, max_len - used) if span]


@pytest.mark.parametrize("name", STRATEGIES)
@settings(PROPERTY, max_examples=25)
@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any), max_len=st.integers(1, 12))
def test_boundaries_from_positions_are_those_from_lengths(name, lengths, max_len):
    """Transformers finds documents where position_ids are 0, TRL by seq_lengths: they must agree on the whole batch."""
    made, plan, *_ = assembler(lengths, max_len, layout(), strategy=name)
    batch = made.rows(0, plan.num_packs)
    cu_seqlens = np.concatenate(([0], np.cumsum(batch.seq_lengths.values)))
    zeros = np.flatnonzero(batch.position_ids.values == 0)
    assert cu_seqlens[:-1].tolist() == zeros.tolist()
    assert cu_seqlens[-1] == len(batch.position_ids.values) == plan.num_packs * max_len


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("overlong", ["split", "truncate", "drop"])
@settings(PROPERTY, max_examples=15)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=12), max_len=st.integers(1, 12))
def test_sources_account_for_every_token_once(name, overlong, lengths, max_len):
    """Provenance: reading the input again at `sources` gives the row again, and nothing is trained on twice."""
    made, _, ids, starts = assembler(lengths, max_len, layout(), gap=3, strategy=name, overlong=overlong)
    found = joined(made.batches())
    seen = []
    for row_ids, sources in zip(found.get("input_ids", []), found.get("sources", []), strict=True):
        again = []
        for source, row, start, end in sources:
            doc = row - 100
            assert source == doc % 2
            assert 0 <= start < end <= lengths[doc]
            again += ids[starts[doc] + start : starts[doc] + end].tolist()
            seen += [(doc, place) for place in range(start, end)]
        assert row_ids == again + [PAD] * (max_len - len(again))
    keeps = {"split": lambda n: n, "truncate": lambda n: min(n, max_len), "drop": lambda n: n if n <= max_len else 0}
    expected = [(doc, place) for doc, length in enumerate(lengths) for place in range(keeps[overlong](length))]
    assert sorted(seen) == expected
    assert expected or overlong == "drop"


@pytest.mark.parametrize("name", STRATEGIES)
@settings(PROPERTY, max_examples=25)
@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any), max_len=st.integers(1, 12))
def test_ragged_rows_are_the_padded_ones_without_their_tail(name, lengths, max_len):
    padded = joined(assembler(lengths, max_len, layout(), strategy=name)[0].batches())
    made, plan, *_ = assembler(lengths, max_len, layout(ragged=True), strategy=name)
    ragged = joined(made.batches())
    used = plan.pack_tokens.tolist()
    assert list(map(len, ragged["input_ids"])) == list(map(sum, ragged["seq_lengths"])) == used
    for column in ("input_ids", "labels", "position_ids"):
        assert ragged[column] == [row[:real] for row, real in zip(padded[column], used, strict=True)]
    assert ragged["sources"] == padded["sources"]


# The fast path: a batch that is one slice of the ids is not copied.


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize("block", [1, 5, assemble.BLOCK_TOKENS])
def test_the_path_without_a_copy_gives_the_same_rows(isolate, block, monkeypatch):
    monkeypatch.setattr(assemble, "BLOCK_TOKENS", block)
    lengths, look = [5, 1, 0, 11, 2, 4, 1], layout(isolate=isolate)  # 24 tokens, three full packs
    fast, plan, ids, starts = assembler(lengths, 8, look, strategy="concat")
    assert plan.num_packs * 8 == len(ids)
    # The same documents, far from each other: every row must be gathered.
    far_ids = np.zeros(1000, dtype=np.uint32)
    far_starts = int64(range(900, 200, -100))
    for start, far, length in zip(starts, far_starts, lengths, strict=True):
        far_ids[far : far + length] = ids[start : start + length]
    gathered = Assembler(plan, far_ids, far_starts, origin_of(len(lengths)), look)
    for first, last in [(0, 3), (0, 1), (1, 3), (2, 3)]:
        one, other = fast.rows(first, last), gathered.rows(first, last)
        assert np.shares_memory(one.input_ids.values, ids)
        assert not np.shares_memory(other.input_ids.values, far_ids)
        assert table(one) == table(other)
    assert ids.tolist() == list(range(1000, 1024))  # labels are masked in a copy


def test_a_padded_row_is_never_written_into_the_ids():
    """The last row of concat is padded: padding in place would overwrite tokens of another split."""
    made, _, ids, _ = assembler([5, 4], 4, layout(), strategy="concat")
    before = ids.copy()
    batch = made.rows(0, 3)
    assert not np.shares_memory(batch.input_ids.values, ids)
    assert batch.labels.values[-3:].tolist() == [IGNORE] * 3
    assert np.array_equal(ids, before)


@PROPERTY
@given(case=cases())
def test_the_ids_of_the_unit_stay_as_they_are(case):
    """Both splits of a unit are made from the same ids."""
    made, _, ids, starts = made_of(case)
    before = ids.copy(), starts.copy()
    first = joined(made.batches())
    assert np.array_equal(ids, before[0])
    assert np.array_equal(starts, before[1])
    assert joined(made.batches()) == first


def test_blocks_of_the_real_size():
    """More positions than BLOCK_TOKENS, and a run longer than a block, with no constant changed."""
    lengths = [assemble.BLOCK_TOKENS * 2 + 5, 3, 70_000, 1, assemble.BLOCK_TOKENS]
    made, plan, ids, starts = assembler(lengths, 75_000, layout(), gap=1, strategy="best-fit")
    assert plan.num_packs * plan.max_len > 2 * assemble.BLOCK_TOKENS
    batch = made.rows(0, plan.num_packs)
    expected = []
    for begin, end in zip(plan.pack_offsets[:-1], plan.pack_offsets[1:], strict=True):
        docs = plan.segments.doc[plan.order[begin:end]]
        parts = [ids[starts[doc] : starts[doc] + lengths[doc]].astype(np.int32) for doc in docs]
        tail = plan.max_len - sum(map(len, parts))
        expected += [(part, np.arange(len(part))) for part in parts]
        expected += [(np.full(tail, PAD), np.arange(tail))]
    assert np.array_equal(batch.input_ids.values, np.concatenate([ids for ids, _ in expected]))
    assert np.array_equal(batch.position_ids.values, np.concatenate([positions for _, positions in expected]))
