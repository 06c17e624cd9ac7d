"""What must hold for every row: the vectorised look against an obvious one, on right rows and on wrong ones."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from packcli.config.choices import COLUMNS, IGNORE
from packcli.dataset.checks.invariants import Rules, SourceSegments, check_documents, check_rows
from packcli.packing import Assembler, Lists, Origin, PackBatch, RowLayout, Sources, make_plan

VOCAB, PAD, EOS = 50, 1, 0


def lists(*rows):
    flat = [value for row in rows for value in row]
    return Lists(np.array(flat, dtype=np.int32), np.cumsum([0, *map(len, rows)]).astype(np.int32))


def sources(*rows):
    flat = np.array([entry for row in rows for entry in row], dtype=np.int64).reshape(-1, 4)
    source, row, start, end = flat.T
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return Sources(source.astype(np.int32), row, start.astype(np.int32), end.astype(np.int32), offsets)


RULES = Rules(
    max_len=8,
    isolate=True,
    ragged=False,
    masked=False,
    pad_id=PAD,
    vocab_size=VOCAB,
    sources=range(2),
    max_docs_per_pack=0,
)


def example(**changed):
    """The pack of the docstring of assemble: documents of 3 and 2 tokens in 8 positions."""
    columns = {
        "input_ids": lists([10, 11, 0, 12, 0, 1, 1, 1]),
        "labels": lists([-100, 11, 0, -100, 0, -100, -100, -100]),
        "position_ids": lists([0, 1, 2, 0, 1, 0, 1, 2]),
        "seq_lengths": lists([3, 2, 3]),
        "sources": sources([(0, 7, 0, 3), (1, 2, 0, 2)]),
    }
    return PackBatch(1, **{**columns, **changed})


def said(batch, rules=RULES):
    return [broken.what for broken in check_rows(batch, rules).broken]


def test_the_example_by_hand():
    checked = check_rows(example(), RULES)
    assert (checked.broken, checked.num_rows, checked.num_tokens) == ([], 1, 5)
    assert checked.per_row.tolist() == [2]
    assert checked.segments.row.tolist() == [7, 2]
    assert checked.segments.first_id.tolist() == [10, 12]
    assert checked.segments.last_id.tolist() == [0, 0]


WRONG = {
    "a row too short": ({"input_ids": lists([10, 11, 0, 12, 0, 1, 1])}, "not 8 positions"),
    "an id out of the vocabulary": ({"input_ids": lists([10, 50, 0, 12, 0, 1, 1, 1])}, "not in 0..49"),
    "a negative id": ({"input_ids": lists([-1, 11, 0, 12, 0, 1, 1, 1])}, "not in 0..49"),
    "padding with text in it": ({"input_ids": lists([10, 11, 0, 12, 0, 1, 9, 1])}, "padding is not the pad id"),
    "a label on padding": ({"labels": lists([-100, 11, 0, -100, 0, 1, -100, -100])}, "padding is not -100"),
    "a label on a first token": ({"labels": lists([10, 11, 0, -100, 0, -100, -100, -100])}, "first token"),
    "a label at a boundary": ({"labels": lists([-100, 11, 0, 12, 0, -100, -100, -100])}, "first token"),
    "another label": ({"labels": lists([-100, 11, 3, -100, 0, -100, -100, -100])}, "neither its id nor masked"),
    "a masked label": ({"labels": lists([-100, -100, 0, -100, 0, -100, -100, -100])}, "neither its id nor masked"),
    "labels shifted": ({"labels": lists([11, 0, -100, 0, -100, -100, -100, -100])}, "neither its id nor masked"),
    "labels too short": ({"labels": lists([-100, 11, 0, -100, 0, -100, -100])}, "labels is not as long"),
    "positions that run on": ({"position_ids": lists([0, 1, 2, 3, 4, 0, 1, 2])}, "position_ids do not restart"),
    "positions that skip": ({"position_ids": lists([0, 1, 3, 0, 1, 0, 1, 2])}, "do not count by one"),
    "positions that begin at 1": ({"position_ids": lists([1, 2, 3, 0, 1, 0, 1, 2])}, "position_ids do not restart"),
    "a sum of 9": ({"seq_lengths": lists([3, 2, 4])}, "do not sum"),
    "a length of 0": ({"seq_lengths": lists([3, 0, 2, 3])}, "below 1"),
    "other lengths": ({"seq_lengths": lists([2, 3, 3])}, "not those of sources"),
    "one length too many": ({"seq_lengths": lists([3, 1, 1, 3])}, "not those of sources"),
    "no source": ({"sources": sources([])}, "sources is empty"),
    "a source that is none": ({"sources": sources([(2, 7, 0, 3), (1, 2, 0, 2)])}, "a source is not in 0..1"),
    "a row that is none": ({"sources": sources([(0, -7, 0, 3), (1, 2, 0, 2)])}, "row number"),
    "a start below 0": ({"sources": sources([(0, 7, -1, 2), (1, 2, 0, 2)])}, "begins below 0"),
    "a source without tokens": ({"sources": sources([(0, 7, 3, 3), (1, 2, 0, 2)])}, "has no token"),
    "more tokens than the row": ({"sources": sources([(0, 7, 0, 7), (1, 2, 0, 2)])}, "more or fewer tokens"),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_thing_wrong_is_found_and_called_by_its_name(name):
    changed, what = WRONG[name]
    assert any(what in each for each in said(example(**changed))), said(example(**changed))


def test_a_loss_mask_allows_more_minus_hundreds_and_nothing_else():
    masked = dataclasses.replace(RULES, masked=True)
    assert said(example(labels=lists([-100, -100, 0, -100, -100, -100, -100, -100])), masked) == []
    assert said(example(labels=lists([-100, 3, 0, -100, 0, -100, -100, -100])), masked)
    assert said(example(labels=lists([10, 11, 0, -100, 0, -100, -100, -100])), masked)


def test_a_limit_of_documents_is_held():
    assert said(example(), dataclasses.replace(RULES, max_docs_per_pack=2)) == []
    assert said(example(), dataclasses.replace(RULES, max_docs_per_pack=1)) == ["more than 1 segments in a pack"]


def test_the_row_is_named():
    first, second = example(), example(labels=lists([-100, 3, 0, -100, 0, -100, -100, -100]))
    both = PackBatch(
        2,
        *(
            Lists(np.concatenate([getattr(each, name).values for each in (first, second)]), offsets)
            for name, offsets in (("input_ids", [0, 8, 16]), ("labels", [0, 8, 16]), ("position_ids", [0, 8, 16]))
        ),
        None,
        None,
    )
    for name in ("input_ids", "labels", "position_ids"):
        column = getattr(both, name)
        object.__setattr__(column, "offsets", np.array(column.offsets, dtype=np.int32))
    (broken,) = check_rows(both, RULES).broken
    assert (broken.row, broken.num_rows) == (1, 1)


# --- against an obvious twin ---


def is_right(ids, labels, positions, lengths, spans, rules):
    """The rules for one row with all columns, one after the other."""
    if len(ids) != rules.max_len or not len(labels) == len(positions) == len(ids):
        return False
    if not all(0 <= token < rules.vocab_size for token in ids):
        return False
    if not spans or any(start < 0 or end <= start or row < 0 for _, row, start, end in spans):
        return False
    if any(source not in rules.sources for source, _, _, _ in spans):
        return False
    real = sum(end - start for _, _, start, end in spans)
    if real > rules.max_len:
        return False
    tail = [rules.max_len - real] * (real < rules.max_len)
    segments = [end - start for _, _, start, end in spans]
    if lengths != ([*segments, *tail] if rules.isolate else [real, *tail]):
        return False
    runs = [*segments, *tail] if rules.isolate else [rules.max_len]
    if positions != [at for run in runs for at in range(run)]:
        return False
    if ids[real:] != [rules.pad_id] * (rules.max_len - real):
        return False
    begins = set(np.cumsum([0, *segments]).tolist())
    for at, (token, label) in enumerate(zip(ids, labels, strict=True)):
        must_ignore = at >= real or (rules.isolate and at in begins)
        if must_ignore and label != IGNORE:
            return False
        if not must_ignore and label != token and not (rules.masked and label == IGNORE):
            return False
    return True


def rows_of(batch):
    def of(column, row):
        return column.values[column.offsets[row] : column.offsets[row + 1]].tolist()

    for row in range(batch.num_rows):
        low, high = batch.sources.offsets[row : row + 2]
        spans = [
            tuple(int(getattr(batch.sources, name)[at]) for name in ("source", "row", "start", "end"))
            for at in range(low, high)
        ]
        yield (*(of(getattr(batch, name), row) for name in COLUMNS[:4]), spans)


def packed(lengths, *, strategy, isolate, max_len=12, columns=COLUMNS, ragged=False):
    """Batches of documents with the given lengths, ids 2.. and EOS."""
    lengths = np.array(lengths, dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    ids = (np.arange(offsets[-1]) % (VOCAB - 2) + 2).astype(np.uint32)
    ids[offsets[1:] - 1] = EOS
    plan = make_plan(lengths, max_len, strategy=strategy)
    origin = Origin(np.zeros(len(lengths), dtype=np.int32), np.arange(len(lengths)))
    layout = RowLayout(columns=columns, pad_id=PAD, isolate=isolate, ragged=ragged)
    rules = dataclasses.replace(RULES, max_len=max_len, isolate=isolate, ragged=ragged)
    return list(Assembler(plan, ids, offsets[:-1], origin, layout).batches()), rules


PLANS = st.tuples(
    st.lists(st.integers(1, 30), min_size=1, max_size=12),
    st.sampled_from(["concat", "best-fit", "next-fit", "pad"]),
    st.booleans(),
)


@given(plan=PLANS)
def test_what_assemble_makes_is_right(plan):
    lengths, strategy, isolate = plan
    batches, rules = packed(lengths, strategy=strategy, isolate=isolate)
    found = [check_rows(batch, rules) for batch in batches]
    assert [each.broken for each in found] == [[]] * len(batches)
    assert sum(each.num_tokens for each in found) == sum(lengths)
    table, wrong = check_documents(
        SourceSegments.joined([each.segments for each in found]), bos_id=None, eos_id=EOS, cut_at=None
    )
    assert list(wrong) == []
    assert table.length.tolist() == lengths
    assert table.num_segments.sum() == sum(len(each.segments.row) for each in found)


@given(
    plan=PLANS,
    columns=st.sets(st.sampled_from(COLUMNS[1:])).map(
        lambda chosen: tuple(c for c in COLUMNS if c in {*chosen, "input_ids"})
    ),
)
def test_any_columns_of_what_assemble_makes_are_right(plan, columns):
    """Without some columns nobody knows where padding begins: then nothing may be called wrong."""
    lengths, strategy, isolate = plan
    batches, rules = packed(
        lengths, strategy=strategy, isolate=isolate, columns=columns, ragged="labels" not in columns
    )
    for batch in batches:
        assert said(batch, rules) == []


@given(plan=PLANS, masked=st.booleans(), data=st.data())
def test_a_change_is_found_exactly_where_the_twin_finds_one(plan, masked, data):
    lengths, strategy, isolate = plan
    (batch,), rules = packed(lengths, strategy=strategy, isolate=isolate)
    rules = dataclasses.replace(rules, masked=masked)
    name = data.draw(st.sampled_from([*COLUMNS[:4], "source", "row", "start", "end"]))
    column = getattr(batch, name) if name in COLUMNS else batch.sources
    values = column.values if name in COLUMNS else getattr(column, name)
    at = data.draw(st.integers(0, len(values) - 1))
    value = data.draw(st.sampled_from([-101, -100, -1, 0, 1, 2, 3, 49, 50, 2**31 - 1]) | st.integers(-3, 30))
    assume(values[at] != value)
    new = values.copy()
    new[at] = value
    changed = dataclasses.replace(column, **{"values" if name in COLUMNS else name: new})
    batch = dataclasses.replace(batch, **{name if name in COLUMNS else "sources": changed})
    expected = [is_right(*row, rules) for row in rows_of(batch)]
    broken = check_rows(batch, rules).broken
    assert bool(broken) == (not all(expected)), broken
    if broken:
        assert expected.index(False) == min(each.row for each in broken)


# --- documents ---


def segments(*entries, first=5, last=EOS):
    source, row, start, end = np.array(entries, dtype=np.int64).reshape(-1, 4).T
    ids = np.full(len(row), first, dtype=np.int32), np.full(len(row), last, dtype=np.int32)
    return SourceSegments(source, row, start, end, *ids)


def wrong_documents(*entries, bos_id=None, eos_id=EOS, cut_at=None, **ids):
    return list(check_documents(segments(*entries, **ids), bos_id=bos_id, eos_id=eos_id, cut_at=cut_at)[1])


def test_documents_by_hand():
    """Twice, missing at the beginning, missing inside, overlapping; and the order of the segments says nothing."""
    assert wrong_documents((0, 1, 8, 10), (0, 2, 0, 4), (0, 1, 0, 8)) == []
    assert wrong_documents((0, 1, 0, 4), (1, 1, 0, 4)) == []
    assert wrong_documents((0, 1, 0, 4), (0, 1, 0, 4)) == [
        "source 0 row 1: token 0 to 3 is there twice (1 such places)"
    ]
    assert wrong_documents((0, 1, 2, 4)) == ["source 0 row 1: token 0 to 1 is missing (1 such places)"]
    assert wrong_documents((0, 1, 0, 4), (0, 1, 6, 9)) == ["source 0 row 1: token 4 to 5 is missing (1 such places)"]
    assert wrong_documents((0, 1, 0, 4), (0, 1, 3, 9)) == [
        "source 0 row 1: token 3 to 3 is there twice (1 such places)"
    ]
    assert wrong_documents() == []


def test_bos_and_eos_of_documents():
    assert wrong_documents((0, 1, 0, 4), bos_id=5) == []
    assert wrong_documents((0, 1, 0, 4), bos_id=6) == ["source 0 row 1 does not begin with BOS (1 such documents)"]
    assert wrong_documents((0, 1, 0, 4), last=9) == ["source 0 row 1 does not end with EOS (1 such documents)"]
    assert wrong_documents((0, 1, 0, 4), last=9, cut_at=4) == []
    assert wrong_documents((0, 1, 0, 3), last=9, cut_at=4) != []
