"""What packing would give: the very figures that packing then gives; with a sample, intervals that hold them."""

import csv
import dataclasses
import io
import json
import math
import re

import numpy as np
import pytest
from helpers import SAMPLE
from rich.console import Console
from typer.testing import CliRunner

import packcli
from packcli import cli, pipeline
from packcli.cli.views.stats import show_what_if
from packcli.config import PackConfig, RunOptions
from packcli.dataset import Stats
from packcli.errors import UsageError
from packcli.packing.strategies import STRATEGIES
from packcli.pipeline import Lengths, measure
from packcli.pipeline.measure import PartLengths
from packcli.report import compare, what_if_tables
from packcli.report.what_if import DOCUMENT_CAPS


def invoke(*arguments):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "200", "NO_COLOR": "1"})


def lengths_of(docs, *, sample=1.0, total=None, sources=None):
    docs = np.array(docs, dtype=np.int64)
    where = np.zeros(len(docs), dtype=np.int32) if sources is None else np.array(sources, dtype=np.int32)
    stats = Stats(num_documents=len(docs))
    part = PartLengths(0, 0, docs, where, len(docs) if total is None else total, stats=stats)
    config = PackConfig().resolved("text", "2026-01-01")
    names = [f"{index}.jsonl" for index in range(int(where.max()) + 1)]
    return Lengths([part], names, config, sample, "some", "fastokens")


@pytest.fixture(scope="module")
def config(tokenizer_dir):
    return PackConfig(tokenizer=str(tokenizer_dir), add_bos=False, unit_bytes=100_000)


@pytest.fixture(scope="module")
def measured(config):
    return measure([str(SAMPLE)], config, RunOptions(workers=1), emit=lambda event: None)


@pytest.mark.parametrize("overlong", ["split", "truncate", "drop"])
def test_the_figures_are_those_of_packing(tmp_path, config, measured, overlong):
    assert len(measured.parts) > 2
    max_lens = [256, 1024] if overlong == "split" else [512]
    found = compare(measured, max_lens, overlong=overlong)
    assert [(each.max_len, each.strategy) for each in found.outcomes] == [(n, s) for n in max_lens for s in STRATEGIES]
    for each in found.outcomes:
        out = tmp_path / f"{each.strategy}-{each.max_len}"
        settings = {"max_len": each.max_len, "strategy": each.strategy, "overlong": overlong}
        made = dataclasses.replace(config, **settings)
        report = pipeline.pack(str(SAMPLE), out, config=made, options=RunOptions(workers=1))
        stats, told = report.stats, each
        assert told.num_packs == stats.num_packs
        assert told.num_packs_above_lower_bound == report.derived["num_packs_above_lower_bound"]
        assert round(told.utilisation, 6) == report.derived["utilisation"]
        assert round(told.padding_ratio, 6) == report.derived["padding_ratio"]
        cut = (stats.num_documents_split, stats.num_documents_truncated)
        if each.strategy == "concat":  # cuts truncated documents, too
            assert max(cut) <= told.num_documents_cut <= sum(cut)
        else:
            assert told.num_documents_cut == sum(cut)
        assert told.num_documents_dropped == stats.num_documents_overlong
        assert told.num_tokens_lost == stats.num_tokens_dropped
        in_whole_documents = stats.num_tokens_in + stats.num_tokens_special - stats.num_documents
        with_loss = stats.num_tokens_packed - stats.num_segments
        assert told.num_loss_tokens_lost == in_whole_documents - with_loss
        num_bytes = sum(path.stat().st_size for path in out.glob("*.arrow"))
        assert told.num_bytes == pytest.approx(num_bytes, rel=0.02)
        assert told.intervals == {}


def test_processes_measure_the_same(config, measured):
    again = measure([str(SAMPLE)], config, RunOptions(workers=2), emit=lambda event: None)
    assert [part.lengths.tolist() for part in again.parts] == [part.lengths.tolist() for part in measured.parts]


def test_the_questions_of_a_training_team():
    """marin-community/marin#4426: baseline, lengths, caps, length by subset, truncation, order, subsets alone."""
    docs = np.random.default_rng(0).integers(1, 3000, 600)
    sources = np.repeat([0, 1, 2], 200)
    found = compare(lengths_of(docs, sources=sources), [512, 2048])
    assert {each.max_len for each in found.outcomes} == {512, 2048}
    for max_len in (512, 2048):
        caps = {each.max_docs_per_pack: each.num_packs for each in found.caps if each.max_len == max_len}
        assert set(caps) == {*DOCUMENT_CAPS, 0}
        assert caps[1] == sum(-(-int(length) // max_len) for length in docs)
        assert sorted(caps[cap] for cap in DOCUMENT_CAPS) == [caps[cap] for cap in reversed(DOCUMENT_CAPS)]
        (over,) = (each for each in found.overlong if each["max_len"] == max_len)
        assert over["num_documents_over"] == sum(docs > max_len)
        assert over["num_tokens_truncated"] == sum(max(int(length) - max_len, 0) for length in docs)
        assert over["num_tokens_dropped"] == docs[docs > max_len].sum()
    of_two = [each for each in found.sources if each["name"] == "1.jsonl" and each["max_len"] == 2048]
    mine = np.sort(docs[200:400])
    assert [(each["num_documents"], each["num_tokens"]) for each in of_two] == [(200, int(mine.sum()))]
    assert of_two[0]["length_p50"] == mine[99]
    assert of_two[0]["length_p95"] == mine[189]
    assert of_two[0]["num_documents_over"] == sum(mine > 2048)
    plan = packcli.plan(docs[200:400], 2048, effort="fast")
    assert of_two[0]["utilisation_alone"] == pytest.approx(plan.utilisation, abs=0.01)
    order = {(each["max_len"], each["strategy"]): each for each in found.orders}
    for (max_len, strategy), each in order.items():
        assert each["utilisation"] == round(packcli.plan(docs, max_len, strategy=strategy).utilisation, 6)
        assert each["shuffled_low"] <= each["shuffled_high"]
        longest = packcli.plan(np.sort(docs)[::-1], max_len, strategy=strategy)
        assert each["longest_first"] == round(longest.utilisation, 6)
    assert len(order) == 2


def test_a_sample_is_the_same_whatever_the_workers_and_near_the_whole(config, measured):
    one = measure([str(SAMPLE)], config, RunOptions(workers=1), sample=0.4, emit=lambda event: None)
    two = measure([str(SAMPLE)], config, RunOptions(workers=2), sample=0.4, emit=lambda event: None)
    assert [part.lengths.tolist() for part in one.parts] == [part.lengths.tolist() for part in two.parts]
    assert one.num_documents == measured.num_documents == 300
    assert 90 <= len(one.all) <= 150
    whole, position = measured.all.tolist(), 0
    for length in one.all.tolist():  # a subsequence
        position = whole.index(length, position) + 1


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """40 populations of 4000 documents, a tenth of each: 95 % intervals should hold packs and padding in most."""
    held = {"num_packs": 0, "utilisation": 0, "num_documents_cut": 0}
    for seed in range(40):
        generator = np.random.default_rng(seed)
        docs = np.minimum(np.exp(generator.normal(5.0, 1.0, 4000)).astype(np.int64) + 1, 4000)
        taken = np.sort(generator.choice(4000, 400, replace=False))
        (truth,) = compare(lengths_of(docs), [1024], ["next-fit"]).outcomes
        (told,) = compare(lengths_of(docs[taken], sample=0.1, total=4000), [1024], ["next-fit"]).outcomes
        for name in held:
            low, high = told.intervals[name]
            held[name] += low <= getattr(truth, name) <= high
            assert math.isclose((low + high) / 2, getattr(told, name), rel_tol=0.2)
    assert all(34 <= count <= 40 for count in held.values()), held


def test_tables_json_csv_and_markdown_tell_the_same(tokenizer_dir):
    arguments = [
        "stats",
        SAMPLE,
        "--max-len",
        "512,2048",
        "--strategy",
        "bfd,pad",
        "--tokenizer",
        tokenizer_dir,
        "-w",
        1,
    ]
    told = json.loads(invoke(*arguments, "--json").stdout)
    assert told["schema_version"] == 1
    found = told["what_if"]
    assert [(each["max_len"], each["strategy"]) for each in found["outcomes"]] == [
        (512, "best-fit"),
        (512, "pad"),
        (2048, "best-fit"),
        (2048, "pad"),
    ]
    lines = list(csv.DictReader(io.StringIO(invoke(*arguments, "--csv").stdout, newline="")))
    packs = {line["row"]: line["value"] for line in lines if (line["table"], line["column"]) == ("strategies", "packs")}
    assert packs == {f"{each['max_len']} {each['strategy']}": str(each["num_packs"]) for each in found["outcomes"]}
    markdown = invoke(*arguments, "--markdown").stdout
    shown = invoke(*arguments).stderr
    for each in found["outcomes"]:
        assert f"| {each['max_len']} {each['strategy']} | {each['num_packs']:,.0f} |" in markdown
        assert f"{each['utilisation']:.2%}" in shown


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_tables_fit_any_terminal_and_nothing_is_cut(measured, width):
    found = compare(measured, [512], ["best-fit"])
    out = io.StringIO()
    show_what_if(Console(file=out, width=width, color_system=None, highlight=False), found)
    assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) <= width
    words = re.sub(r"\s+", "", out.getvalue())
    for table in what_if_tables(found):
        assert all(re.sub(r"\s+", "", str(cell)) in words for row in table.rows for cell in row)


def test_a_sample_shows_its_intervals(tokenizer_dir):
    result = invoke("stats", SAMPLE, "--sample", 0.5, "--tokenizer", tokenizer_dir, "-w", 1)
    assert "of them measured" in result.stderr
    assert "95 % intervals" in result.stderr
    tables = what_if_tables(compare(lengths_of([5, 6, 7] * 50, sample=0.5, total=300), [16]))
    assert "intervals" in [table.name for table in tables]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "0"], "--sample 0.0 is not in 0 < F <= 1"),
        (["--max-len", "1"], "a pack holds at least 2 tokens"),
        (["--max-len", "2k"], "not a list of numbers"),
        (["--strategy", "best-fti"], "did you mean 'best-fit'"),
        (["--overlong", "error", "--max-len", "16"], "is over --max-len 16"),
        (["--html", "x.html"], "--html needs packed directories"),
        (["--recount"], "--recount needs packed directories"),
        (["--json", "--csv"], "given together"),
    ],
)
def test_mistakes_are_told(arguments, message):
    result = invoke("stats", SAMPLE, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_packed_and_raw_do_not_mix(tmp_path, tokenizer_dir):
    packcli.pack(str(SAMPLE), tmp_path / "out", tokenizer=str(tokenizer_dir), workers=1)
    result = invoke("stats", tmp_path / "out", SAMPLE)
    assert result.exit_code == 2
    assert "is packed and" in result.stderr
    result = invoke("stats", tmp_path / "missing.jsonl")
    assert result.exit_code == 2
    result = invoke("stats", "-")
    assert result.exit_code == 2


def test_nothing_to_measure(tmp_path, config):
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(UsageError, match="no document to measure: 1 read"):
        measure([str(tmp_path / "empty.jsonl")], config, RunOptions(workers=1), emit=lambda event: None)
