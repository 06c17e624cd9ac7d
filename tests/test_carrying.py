"""Documents that wait for the next part: none is lost or packed twice, whatever stops the run; and what it gains."""

import gzip
import io
import json
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from helpers import SAMPLE, tree_hash
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import packcli
from packcli import tokenizing, work
from packcli.assemble import Origin
from packcli.carrying import MAX_MOVES, MIN_PACKS, Carried, divide, may_carry
from packcli.collecting import read_unit
from packcli.config import PackConfig, RunOptions
from packcli.manifest import Output
from packcli.measuring import measure
from packcli.overlong import kept_lengths
from packcli.planner import check_plan, make_plan
from packcli.readers.units import PIPED_UNITS
from packcli.recount import recount
from packcli.report import read_report
from packcli.sidecars import read_sidecar
from packcli.stats import Stats
from packcli.strategies import STRATEGIES
from packcli.tokens import TokenBatch
from packcli.verify import verify
from packcli.what_if import compare

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def plan_of(lengths, **options):
    return make_plan(np.array(lengths, dtype=np.int64), 10, **options)


def divided(lengths, moves=None, **options):
    """The lengths that stay in packs, pack by pack, and the indices of those that go."""
    moves = np.zeros(len(lengths), dtype=np.uint8) if moves is None else np.array(moves, dtype=np.uint8)
    plan, goes = divide(plan_of(lengths, **options), np.array(lengths, dtype=np.int64), moves)
    packs = [
        sorted(plan.segments.length[plan.order[begin:end]].tolist())
        for begin, end in zip(plan.pack_offsets[:-1], plan.pack_offsets[1:], strict=True)
    ]
    return sorted(packs), np.flatnonzero(goes).tolist()


def test_the_example_of_the_module():
    packs, gone = divided([6, 4, 6, 4, 6])
    assert packs == [[4, 6], [4, 6]]
    assert len(gone) == 1
    assert gone[0] in (0, 2, 4)
    assert divided([6, 4]) == ([[4, 6]], [])


def test_of_a_document_that_is_cut_the_full_packs_go_along():
    """Its rest alone would leave a document in two parts, which no sidecar could account for."""
    assert divided([23, 6, 4]) == ([[4, 6]], [0])


def test_the_emptiest_packs_go_first_and_no_more_than_the_bound():
    """All lengths of 1,025: everything would be dragged through the whole file."""
    _, gone = divided([9, *[6] * 20])
    assert 0 not in gone
    assert len(gone) == MIN_PACKS * 10 // 6 == 6  # a quarter is 32 tokens, less than four packs
    assert len(divided([6] * 1000)[1]) == 6000 // 4 // 6 == 250


def test_a_document_goes_a_bounded_number_of_times():
    """It would be dragged along for ever, and a sample of verify would have to read the whole file."""
    assert divided([6], [MAX_MOVES - 1]) == ([], [0])
    assert divided([6], [MAX_MOVES]) == ([[6]], [])
    assert divided([3, 3], [0, MAX_MOVES]) == ([[3, 3]], [])  # it would leave an emptier pack


@given(
    LENGTHS,
    st.sampled_from(["best-fit", "shuffle-fit"]),
    st.sampled_from(["split", "truncate", "drop"]),
    st.integers(0, 5),
    st.data(),
)
def test_what_stays_is_a_plan_and_what_goes_is_bounded(lengths, strategy, overlong, max_docs, data):
    moves = np.array(data.draw(st.lists(st.integers(0, MAX_MOVES), min_size=len(lengths), max_size=len(lengths))))
    moves = moves.astype(np.uint8)
    docs = np.array(lengths, dtype=np.int64)
    whole = plan_of(lengths, strategy=strategy, overlong=overlong, max_docs_per_pack=max_docs)
    plan, goes = divide(whole, docs, moves)
    kept = kept_lengths(docs, 10, overlong)
    check_plan(plan, kept[~goes])
    assert plan.num_packs + -(-kept[goes] // 10).sum() >= whole.num_packs  # no pack is gone without its documents
    assert not goes[kept == 0].any()
    assert not goes[moves >= MAX_MOVES].any()
    assert docs[goes].sum() <= max(docs[moves == 0].sum() // 4, MIN_PACKS * 10)
    again, same = divide(whole, docs, moves)
    assert np.array_equal(goes, same)
    assert np.array_equal(plan.order, again.order)


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(1, MAX_MOVES)), max_size=9), st.booleans())
def test_what_is_kept_is_read_back(docs, masked):
    lengths = np.array([length for length, _, _ in docs], dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    ids = np.arange(offsets[-1], dtype=np.uint32) * 7
    tokens = TokenBatch(ids, offsets, ids % 3 == 0 if masked else None)
    origin = Origin(np.arange(len(docs), dtype=np.int32), np.arange(len(docs), dtype=np.int64) << 33)
    split, moves = (np.array([each[place] for each in docs], dtype=np.uint8) for place in (1, 2))
    carried = Carried(tokens, origin, split, moves)
    back = Carried.from_bytes(carried.to_bytes())
    assert back.to_bytes() == carried.to_bytes()
    assert np.array_equal(back.tokens.ids, ids)
    assert np.array_equal(back.tokens.lengths, lengths)
    assert np.array_equal(back.origin.row, origin.row)
    assert (back.tokens.loss is not None) == (masked and len(docs) > 0)
    both = tokens.take(np.arange(len(docs) - 1, -1, -1, dtype=np.int64))
    assert both.lengths.tolist() == lengths[::-1].tolist()


def test_only_strategies_that_pair_freely_carry():
    """A curriculum would be shuffled between parts."""
    assert {name for name in STRATEGIES if may_carry(name)} == {"best-fit", "shuffle-fit"}


@pytest.mark.parametrize(
    ("stats", "message"),
    [
        ({"num_tokens_carried_in": 1}, "tokens in"),
        ({"num_tokens_in": 1, "num_tokens_carried_out": 1}, "handed over"),
        ({"num_documents_carried_in": 1}, "documents"),
    ],
)
def test_a_document_that_is_handed_on_and_never_arrives_is_noticed(stats, message):
    with pytest.raises(AssertionError, match=message):
        Stats(**stats).check(10, whole=True)


@pytest.fixture(scope="module")
def zipped(tmp_path_factory):
    path = tmp_path_factory.mktemp("carrying") / "docs.jsonl.gz"
    path.write_bytes(gzip.compress(SAMPLE.read_bytes(), mtime=0))
    return path


@pytest.fixture(scope="module")
def pack(tokenizer_dir):
    """Packs with a small tokenizer, which is loaded once."""
    spec = tokenizing.find_tokenizer(PackConfig(tokenizer=str(tokenizer_dir)), allow_network=False)
    choice = tokenizing.choose_engine(spec, "tokenizers", [])

    def run(source, output, **config):
        config = {"max_len": 256, "strategy": "best-fit", "unit_bytes": 20_000, **config}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizing, "choose_engine", lambda *arguments, **options: choice)
            made = PackConfig(tokenizer=str(tokenizer_dir), **config)
            return packcli.pack(source, output, config=made, options=RunOptions(workers=1))

    return run


def documents(output):
    """(source, row) -> the spans of every document in the packs."""
    found = {}
    for shard in sorted(output.glob("**/data-*.arrow")):
        for row in pa.ipc.open_stream(shard.read_bytes()).read_all().column("sources").to_pylist():
            for each in row:
                found.setdefault((each["source"], each["row"]), []).append((each["start"], each["end"]))
    return found


@settings(max_examples=6)
@given(
    unit_bytes=st.integers(1024, 60_000),
    max_len=st.sampled_from([32, 256, 2048]),
    strategy=st.sampled_from(["best-fit", "shuffle-fit"]),
    overlong=st.sampled_from(["split", "truncate", "drop"]),
    val_fraction=st.sampled_from([0.0, 0.2]),
    max_docs=st.sampled_from([0, 3]),
)
def test_every_document_is_in_exactly_one_pack(
    pack, tmp_path_factory, unit_bytes, max_len, strategy, overlong, val_fraction, max_docs
):
    assume((max_len, overlong) != (32, "drop"))  # it leaves nothing
    folder = tmp_path_factory.mktemp("any")
    rows = SAMPLE.read_bytes().splitlines(keepends=True)[:80]
    source = folder / "docs.jsonl.gz"
    source.write_bytes(gzip.compress(b"".join(rows), mtime=0))
    config = {"unit_bytes": unit_bytes, "max_len": max_len, "strategy": strategy, "overlong": overlong}
    report = pack(source, folder / "out", val_fraction=val_fraction, max_docs_per_pack=max_docs, **config)
    verdict = verify(folder / "out", against=[str(source)], tokenizer_engine="tokenizers")
    assert verdict.problems == []
    assert verdict.num_documents_compared == len(rows)
    found = documents(folder / "out")
    assert len(found) == report.stats.num_documents_packed == len(rows) - report.stats.num_documents_overlong
    for spans in found.values():
        spans.sort()
        assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert recount(read_report(folder / "out")).differences == {}
    assert not list((folder / "out" / ".packcli").glob("carry-*"))
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("strategy", "unit_bytes", "max_docs"),
    [("best-fit", 5_000, 0), ("shuffle-fit", 20_000, 0), ("best-fit", 20_000, 4)],
)
def test_carrying_never_takes_more_packs(pack, zipped, tmp_path, monkeypatch, strategy, unit_bytes, max_docs):
    config = {"strategy": strategy, "unit_bytes": unit_bytes, "max_docs_per_pack": max_docs}
    carried = pack(zipped, tmp_path / "carried", **config).stats
    monkeypatch.setattr(work, "may_carry", lambda strategy: False)
    alone = pack(zipped, tmp_path / "alone", **config).stats
    assert carried.num_documents_carried_out == carried.num_documents_carried_in > 0 == alone.num_documents_carried_out
    assert carried.num_packs < alone.num_packs
    assert carried.num_tokens_packed == alone.num_tokens_packed


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"best-fit", "shuffle-fit"}))
def test_the_other_strategies_plan_every_part_as_before(pack, zipped, tmp_path, strategy):
    plain = pack(SAMPLE, tmp_path / "plain", strategy=strategy)
    other = pack(zipped, tmp_path / "zipped", strategy=strategy)
    assert other.stats.num_documents_carried_out == 0
    shards = [sorted((tmp_path / name).glob("data-*.arrow")) for name in ("plain", "zipped")]
    assert len(shards[0]) == other.stats.num_parts > 5
    # The names differ, data-00003-000 and data-00000-003; the rows do not.
    assert [each.read_bytes() for each in shards[0]] == [each.read_bytes() for each in shards[1]]
    assert plain.stats.num_packs == other.stats.num_packs


@pytest.fixture
def pipe(monkeypatch):
    """Puts bytes on standard input."""
    return lambda data: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_long_stream_carries_within_its_units(pack, pipe, tmp_path):
    """Or a stream would leave a badly filled pack for every window, however long it is."""
    data = SAMPLE.read_bytes()
    config = {"unit_bytes": 4_000}
    pipe(data)
    piped = pack("-", tmp_path / "piped", **config).stats
    assert piped.num_parts == 4 * PIPED_UNITS
    assert piped.num_documents_carried_out == piped.num_documents_carried_in > 0
    plain = pack(SAMPLE, tmp_path / "plain", **config).stats
    assert plain.num_parts == piped.num_parts
    assert piped.num_packs < plain.num_packs
    assert piped.num_tokens_packed == plain.num_tokens_packed
    assert recount(read_report(tmp_path / "piped")).differences == {}
    kept = tmp_path / "kept-elsewhere.jsonl"
    kept.write_bytes(data)
    verdict = verify(tmp_path / "piped", deep=True, against=[str(kept)], tokenizer_engine="tokenizers")
    assert verdict.problems == []
    assert verdict.num_documents_compared == piped.num_documents


@pytest.mark.parametrize("strategy", ["concat", "next-fit"])
def test_a_stream_gives_the_rows_of_a_file_where_the_order_is_kept(pack, pipe, tmp_path, strategy):
    pack(SAMPLE, tmp_path / "plain", strategy=strategy, unit_bytes=4_000)
    pipe(SAMPLE.read_bytes())
    pack("-", tmp_path / "piped", strategy=strategy, unit_bytes=4_000)
    shards = [sorted((tmp_path / name).glob("data-*.arrow")) for name in ("plain", "piped")]
    assert [each.read_bytes() for each in shards[0]] == [each.read_bytes() for each in shards[1]]


def test_masks_go_along(pack, tmp_path):
    """A loss mask that stays behind would train on prompts."""
    rows = SAMPLE.with_name("prompt_completion.jsonl").read_bytes()
    source = tmp_path / "rows.jsonl.gz"
    source.write_bytes(gzip.compress(rows, mtime=0))
    config = {"max_len": 512, "unit_bytes": 4000, "val_fraction": 0.1}
    carried = pack(source, tmp_path / "out", **config)
    assert carried.stats.num_documents_carried_out > 0
    assert verify(tmp_path / "out", against=[str(source)], tokenizer_engine="tokenizers").problems == []
    plain = pack(SAMPLE.with_name("prompt_completion.jsonl"), tmp_path / "plain", **config)
    assert carried.stats.num_tokens_loss == plain.stats.num_tokens_loss > 0
    assert recount(read_report(tmp_path / "out")).differences == {}


@pytest.mark.parametrize("n", range(1, 6))
def test_a_sample_knows_what_earlier_parts_handed_on(pack, zipped, tmp_path_factory, n):
    output = tmp_path_factory.getbasetemp() / "sampled"
    if not output.exists():
        pack(zipped, output, val_fraction=0.2)
    counts = [each.stats.num_documents for each in (sidecar for sidecar, _ in read_unit(output, 0))]
    verdict = verify(output, deep=True, sample=(n, 5), tokenizer_engine="tokenizers")
    assert verdict.problems == []
    assert verdict.num_documents_compared == sum(counts[n - 1 :: 5])


def test_deep_finds_a_document_that_got_lost_between_two_parts(pack, zipped, tmp_path, monkeypatch):
    """The counts agree with one another there: only the inputs tell."""
    real = work._write_part

    def losing(*arguments):
        shards, stats, waiting = real(*arguments)
        if len(waiting) > 1:
            keep = np.arange(len(waiting) - 1)
            origin = Origin(waiting.origin.source[keep], waiting.origin.row[keep])
            lost = waiting.num_tokens
            waiting = Carried(waiting.tokens.take(keep), origin, waiting.split[keep], waiting.moves[keep])
            lost -= waiting.num_tokens
            stats.num_documents_carried_out -= 1
            stats.num_tokens_carried_out -= lost
            stats.num_documents -= 1
            stats.num_rows_read -= 1
            stats.num_tokens_in -= lost
        return shards, stats, waiting

    monkeypatch.setattr(work, "_write_part", losing)
    pack(zipped, tmp_path / "out")
    assert verify(tmp_path / "out").problems == []
    problems = verify(tmp_path / "out", deep=True, tokenizer_engine="tokenizers").problems
    assert any("0 of its tokens are packed" in each.what for each in problems)


def test_what_if_carries_too(pack, zipped, tmp_path, tokenizer_dir):
    config = PackConfig(tokenizer=str(tokenizer_dir), unit_bytes=20_000)
    lengths = measure([str(zipped)], config, RunOptions(workers=1), emit=lambda event: None)
    for told in compare(lengths, [256], ["best-fit", "shuffle-fit", "concat"]).outcomes:
        stats = pack(zipped, tmp_path / told.strategy, strategy=told.strategy).stats
        assert told.num_packs == stats.num_packs
        assert told.num_packs_above_lower_bound == stats.num_packs - stats.sum_lower_bound
        assert told.num_documents_cut == stats.num_documents_split


class DiesError(RuntimeError):
    """Stands for the death of the process."""


@pytest.fixture(scope="module")
def whole(pack, zipped, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    report = pack(zipped, output, val_fraction=0.2)
    assert report.stats.num_parts > 6
    return tree_hash(output)


def die_at(monkeypatch, pack, zipped, output, part, place):
    """Ends a run after the carry of a part is kept and before its sidecar is there, or after its sidecar is."""
    real = Output.commit

    def dying(self, sidecar):
        if place == "before" and sidecar.part == part:
            raise DiesError
        real(self, sidecar)
        if place == "after" and sidecar.part == part:
            raise DiesError

    with monkeypatch.context() as patch, pytest.raises(DiesError):
        patch.setattr(Output, "commit", dying)
        pack(zipped, output, val_fraction=0.2)


def carries(output):
    return sorted((output / ".packcli").glob("carry-*"))


DAMAGES = {
    "none": lambda path: None,
    "removed": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "a bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "another's": lambda path: path.write_bytes(Carried.nothing().to_bytes() + b"{}"),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_run_that_died_gives_the_same_tree(pack, zipped, whole, tmp_path, monkeypatch, place, damage):
    output = tmp_path / "out"
    die_at(monkeypatch, pack, zipped, output, 3, place)
    assert carries(output)
    for path in carries(output):
        DAMAGES[damage](path)
    last = 3 if place == "after" else 2
    is_needed = read_sidecar(output / f"units/00000-00{last}.json").carry is not None
    assert is_needed
    committed = [each.part for each in (sidecar for sidecar, _ in read_unit(output, 0))]
    # Without its carry a part is done again, and so is the one before: nothing is packed without.
    assert committed == (list(range(last + 1)) if damage == "none" else [])
    report = pack(zipped, output, val_fraction=0.2)
    assert report.run["resumed_parts"] == len(committed)
    assert tree_hash(output) == whole
    assert not carries(output)


def test_a_part_that_is_lost_afterwards_is_done_again_with_those_before_it(pack, zipped, whole, tmp_path):
    """What they handed on is gone since the end of the run."""
    output = tmp_path / "out"
    pack(zipped, output, val_fraction=0.2)
    (output / "units/00000-003.json").unlink()
    (output / "units/00000-005.json").write_text("{}")
    assert [each.part for each in (sidecar for sidecar, _ in read_unit(output, 0))] == []
    report = pack(zipped, output, val_fraction=0.2)
    assert report.run["resumed_parts"] == 0
    assert tree_hash(output) == whole
    assert not carries(output)


def test_a_unit_whose_carry_is_damaged_meanwhile_is_done_again(pack, zipped, whole, tmp_path, monkeypatch):
    """Between the look at what is committed and the work on it; packing without it would lose documents."""
    output = tmp_path / "out"
    die_at(monkeypatch, pack, zipped, output, 3, "after")
    real = Output.begin

    def damaging(self, *arguments):
        real(self, *arguments)
        carries(output)[-1].write_bytes(b"\n")

    monkeypatch.setattr(Output, "begin", damaging)
    pack(zipped, output, val_fraction=0.2)
    assert tree_hash(output) == whole


def test_restart_and_overwrite_leave_no_carry(pack, zipped, tmp_path, monkeypatch):
    output = tmp_path / "out"
    die_at(monkeypatch, pack, zipped, output, 3, "after")
    assert carries(output)
    Output(output).clear()
    assert not carries(output)


DYING_WORKER = """
import os, pickle, signal, sys
from packcli import work
from packcli.manifest import Output

job, unit, in_the_end = pickle.load(sys.stdin.buffer)
commit = Output.commit

def dying(self, sidecar):
    commit(self, sidecar)
    if sidecar.is_last if in_the_end else sidecar.part == 4:
        os.kill(os.getpid(), signal.SIGKILL)

Output.commit = dying
work.run_unit(job, unit, lambda event: None)
"""


@pytest.mark.parametrize("in_the_end", [False, True])
def test_a_worker_that_takes_up_a_unit_begins_where_the_run_began(
    pack, zipped, whole, tmp_path, monkeypatch, in_the_end
):
    """A worker dies after it committed parts; the next one is told of none of them, and needs the first carry."""
    output = tmp_path / "out"
    die_at(monkeypatch, pack, zipped, output, 1, "after")
    real = work.run_unit

    def twice(job, unit, emit):
        told = pickle.dumps((job, unit, in_the_end))
        assert subprocess.run([sys.executable, "-c", DYING_WORKER], input=told).returncode == -signal.SIGKILL
        return real(job, unit, emit)

    monkeypatch.setattr("packcli.pipeline.run_unit", twice)
    report = pack(zipped, output, val_fraction=0.2)
    assert report.run["resumed_parts"] == 2
    assert tree_hash(output) == whole


def test_the_report_names_window_carry_and_price(pack, zipped, tmp_path):
    report = pack(zipped, tmp_path / "out")
    stats = report.stats
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"planned in {stats.num_parts} parts of up to 20,000 bytes" in card
    assert f"next part {stats.num_documents_carried_out} times" in card
    assert json.loads((tmp_path / "out" / "stats.json").read_bytes())["totals"]["num_tokens_carried_out"] > 0
