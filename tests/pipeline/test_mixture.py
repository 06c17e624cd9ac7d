"""Mixtures: shares of tokens are met in every shard, every document comes as often as it should, everywhere alike."""

import collections
import gzip
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import PACKCLI, tree_hash
from mixtures import documents
from typer.testing import CliRunner

import packcli
from packcli import cli, readers
from packcli.config import PackConfig, read_toml
from packcli.dataset import Output, PackedDataset, read_report
from packcli.errors import BadRowError, MismatchError, NoInputError, UsageError
from packcli.pipeline import mixture
from packcli.pipeline.mixture import num_tokens
from packcli.report import recount
from packcli.seeds import row_hashes
from packcli.verification import verify

WORDS = "the cat sat on the mat and the dog ran after it while seven birds were singing in some other garden".split()


def write_rows(path, count, seed, longest=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            words = draw.choice(WORDS, draw.integers(1, longest))
            file.write(json.dumps({"text": f"{number} " + " ".join(words)}) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    web = write_rows(root / "web.jsonl", 1500, 1)
    write_rows(root / "code" / "a.jsonl", 150, 2)
    write_rows(root / "code" / "b.jsonl", 250, 3)
    return {web: 0.75, str(root / "code"): 0.25}


@pytest.fixture(scope="module")
def made(inputs, tokenizer_dir):
    def make(output, mix=inputs, **settings):
        base = {"tokenizer": str(tokenizer_dir), "max_len": 64, "unit_bytes": 16384, "workers": 1}
        return packcli.pack(output=output, **{"mix": mix, **base, **settings})

    return make


@pytest.mark.parametrize("strategy", ["concat", "best-fit", "next-fit"])
def test_shares_of_tokens_are_met_and_every_document_comes_as_often_as_it_should(tmp_path, made, strategy):
    """Three times the code there is is wanted: every file of it comes twice, and half of them once more."""
    alone = made(tmp_path / "alone").manifest["mix"]["components"]
    wanted = round(2.6 * alone[1]["num_tokens"] / 0.25)
    report = made(tmp_path / "out", tokens=wanted, strategy=strategy)
    web, code = report.as_dict()["mix"]
    assert web["name"] == "web.jsonl"
    assert code["name"] == "code/"
    assert abs(code["reached_ratio"] - 0.25) < 0.002
    assert abs(report.stats.num_tokens_packed / wanted - 1) < 0.002
    assert abs(code["epochs"] - 2.6) < 0.02
    tokens, copies = documents(tmp_path / "out")
    assert {copies[key] for key in copies if key[0] > 0} == {2, 3}
    assert len([key for key in copies if key[0] > 0]) == 400
    assert abs(sum(copies[key] == 3 for key in copies if key[0] > 0) / 400 - 0.6) < 0.1
    assert sum(tokens.values()) == report.stats.num_tokens_packed
    assert sum(copies.values()) == report.stats.num_documents_packed == report.stats.num_documents
    assert sum(tokens[key] for key in tokens if key[0] > 0) == code["num_tokens"]
    assert code["num_documents"] == sum(copies[key] for key in copies if key[0] > 0)


def test_without_tokens_the_scarcest_is_taken_whole_and_nothing_twice(tmp_path, made):
    report = made(tmp_path / "out")
    web, code = report.as_dict()["mix"]
    assert code["epochs"] == 1.0
    assert code["num_documents"] == 400
    assert 0 < web["epochs"] < 1
    # What the disk has to hold, and what is read: not the whole of an input of which little is taken.
    assert abs(num_tokens(report.manifest["mix"]) / report.stats.num_tokens_packed - 1) < 0.01
    assert abs(code["reached_ratio"] - 0.25) < 0.001
    assert set(documents(tmp_path / "out")[1].values()) == {1}


def test_every_shard_holds_the_mixture(tmp_path, made):
    """Not one input after the other: a trainer that reads the rows in order would see the code last."""
    report = made(tmp_path / "out", tokens=150_000, unit_bytes=65536)
    shares = []
    for path in sorted((tmp_path / "out" / "units").iterdir()):
        counts = json.loads(path.read_text(encoding="utf-8"))["stats"]["by_source"]
        tokens = [each["num_tokens_packed"] for _, each in sorted(counts.items())]
        shares.append(sum(tokens[1:]) / sum(tokens))
    assert len(shares) > 4
    assert report.manifest["num_units"] > 2
    assert max(abs(share - 0.25) for share in shares) < 0.06
    rows = PackedDataset(tmp_path / "out")
    for _, batches in rows.shards("train"):  # and within a shard documents of both meet
        batch = next(batches)
        halves = np.array_split(batch.sources.source > 0, 2)
        assert all(0.05 < half.mean() < 0.6 for half in halves)


def test_whatever_reads_a_mixture_is_right(tmp_path, made):
    """verify, by tokenizing again too, knows repeats; recount and exports put copies together."""
    out = made(tmp_path / "out", tokens=60_000, val_fraction=0.1).output
    verdict = verify(out, deep=True)
    assert verdict.problems == []
    report = read_report(out)
    assert verdict.num_documents_compared == report.stats.num_documents
    found = recount(report)
    assert found.differences == {}
    assert "num_documents_split" in found.totals
    packcli.export(out, "unpacked", tmp_path / "documents")
    from datasets import load_from_disk

    rows = load_from_disk(str(tmp_path / "documents"))
    assert sum(map(len, rows.values())) == report.stats.num_documents_packed
    splits = [documents(out, (split,))[1] for split in ("train", "validation")]
    assert not set(splits[0]) & set(splits[1])  # copies of a document stay on one side


def test_a_document_too_often_is_found(tmp_path, made):
    """A mixture that repeats may not hide that a row was packed once more than it says."""
    out = made(tmp_path / "out", tokens=60_000).output
    from packcli.dataset.checks.rows import check_shards

    packed = PackedDataset(out)
    assert check_shards(out, packed).problems == []
    packed.manifest["mix"]["components"][1]["epochs"] -= 1
    assert any("times in the mixture" in each.what for each in check_shards(out, packed).problems)


def test_the_same_bytes_for_any_workers_and_after_any_stop(tmp_path, made, monkeypatch):
    whole = made(tmp_path / "whole", tokens=60_000)
    for workers in (2, 4) if os.environ.get("PACKCLI_KILLS") else (2,):
        made(tmp_path / f"out{workers}", tokens=60_000, workers=workers)
        assert tree_hash(tmp_path / f"out{workers}") == tree_hash(whole.output)
    calls = []

    def dying(self, sidecar, commit=Output.commit):
        calls.append(sidecar)
        if len(calls) > 2:
            raise KeyboardInterrupt
        commit(self, sidecar)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Output, "commit", dying)
        made(tmp_path / "out", tokens=60_000)
    with monkeypatch.context() as patch:
        patch.setattr(mixture, "count", None)  # what was counted is kept
        report = made(tmp_path / "out", tokens=60_000)
        assert (report.status, report.run["resumed_parts"]) == ("resumed", 2)
        assert made(tmp_path / "out", tokens=60_000).status == "up to date"
    assert tree_hash(tmp_path / "out") == tree_hash(whole.output)
    made(tmp_path / "seed", tokens=60_000, seed=1)
    assert documents(tmp_path / "seed")[1] != documents(whole.output)[1]


def test_a_killed_run_is_resumed(tmp_path, made, inputs, tokenizer_dir):
    whole = made(tmp_path / "whole", tokens=60_000).output
    flags = [f"--mix={path}={weight}" for path, weight in inputs.items()]
    command = [*PACKCLI, "pack", *flags, "--tokens", "60k", "-o", str(tmp_path / "out"), "-q", "-w", "1"]
    command += ["--tokenizer", str(tokenizer_dir), "--max-len", "64", "--unit-bytes", "16KiB"]
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None and not list((tmp_path / "out" / "units").glob("*.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert made(tmp_path / "out", tokens=60_000).status == "resumed"
    assert tree_hash(tmp_path / "out") == tree_hash(whole)


def test_changed_inputs_and_other_shares_are_refused(tmp_path, made, inputs):
    copies = {}
    for path, weight in inputs.items():
        target = tmp_path / "in" / os.path.basename(path)
        (shutil.copytree if os.path.isdir(path) else shutil.copy)(
            path, tmp_path.joinpath("in").mkdir(exist_ok=True) or target
        )
        copies[str(target)] = weight
    made(tmp_path / "out", copies, tokens=30_000)
    with pytest.raises(MismatchError, match=r"mix.tokens was 30000, now it is 40000"):
        made(tmp_path / "out", copies, tokens=40_000)
    with pytest.raises(MismatchError, match=r"mix.components\[0\].share was 0.75"):
        made(tmp_path / "out", dict.fromkeys(copies, 0.5), tokens=30_000)
    file = tmp_path / "in" / "code" / "a.jsonl"
    file.touch()
    assert made(tmp_path / "out", copies, tokens=30_000).status == "up to date"
    file.write_bytes(file.read_bytes().replace(b"birds", b"stone"))
    with pytest.raises(MismatchError):
        made(tmp_path / "out", copies, tokens=30_000)


def test_compressed_parquet_and_masked_inputs(tmp_path, tokenizer_dir):
    """Inputs that can only be read from their beginning make one unit; its parts hold the mixture all the same."""
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"prompt": f"{number} the cat sat", "completion": " on the mat" * (number % 9 + 1)} for number in range(600)
    ]
    with gzip.open(tmp_path / "one.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows[:200]), tmp_path / "two.parquet", row_group_size=20)
    report = packcli.pack(
        output=tmp_path / "out",
        mix={str(tmp_path / "one.jsonl.gz"): 1, str(tmp_path / "two.parquet"): 1},
        tokens=30_000,
        tokenizer=str(tokenizer_dir),
        max_len=64,
        unit_bytes=8192,
        workers=1,
    )
    assert report.manifest["num_units"] == 1
    assert report.stats.num_parts > 2
    one, two = report.as_dict()["mix"]
    assert abs(one["reached_ratio"] - 0.5) < 0.005
    assert two["epochs"] > 1
    for path in (tmp_path / "out" / "units").iterdir():
        counts = json.loads(path.read_text(encoding="utf-8"))["stats"]["by_source"]
        assert (
            abs(counts["0"]["num_tokens_packed"] / sum(each["num_tokens_packed"] for each in counts.values()) - 0.5)
            < 0.1
        )
    assert verify(tmp_path / "out", deep=True).problems == []


def run(*arguments, **settings):
    return CliRunner().invoke(cli.app, [str(each) for each in arguments], **settings)


def test_command_line_and_toml(tmp_path, inputs, tokenizer_dir, monkeypatch):
    flags = [flag for path, weight in inputs.items() for flag in ("--mix", f"{path}={weight}")]
    common = ["--tokenizer", tokenizer_dir, "--max-len", 64, "-w", 1, "--unit-bytes", "16KiB"]
    result = run("pack", *flags, "--tokens", "30k", "-o", tmp_path / "out", "--json", *common)
    assert result.exit_code == 0
    assert [each["name"] for each in json.loads(result.stdout)["mix"]] == ["web.jsonl", "code/"]
    assert "75.00% wanted" in result.stderr
    assert "% of the tokens" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    stats = json.loads((tmp_path / "out" / "stats.json").read_text(encoding="utf-8"))
    assert stats["mix"] == json.loads(result.stdout)["mix"]
    monkeypatch.chdir(tmp_path)
    listed = ", ".join(json.dumps(flag) for flag in flags[1::2])
    (tmp_path / "packcli.toml").write_text(f'[pack]\nmix = [{listed}]\ntokens = "30k"\n', encoding="utf-8")
    assert read_toml(tmp_path / "packcli.toml")["tokens"] == 30_000
    assert run("pack", "-q", *common).exit_code == 0
    assert tree_hash(tmp_path / "mixture-packed") == tree_hash(tmp_path / "out")
    result = run("stats", next(iter(inputs)), "--max-len", 64)
    assert result.exit_code == 2
    assert "plans no mixtures" in result.stderr
    result = run("merge", "out", "mixture-packed", "-o", "merged")
    assert result.exit_code == 2
    assert "is a mixture" in result.stderr


def test_mistakes_in_mixtures(tmp_path, made, inputs):
    web, code = inputs
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="some of its files are in another input"):
        made(tmp_path / "out", {code: 1, f"{code}/a.jsonl": 1})
    with pytest.raises(NoInputError, match="no document to pack"):
        made(tmp_path / "out", {web: 1, str(tmp_path / "empty.jsonl"): 1})
    with pytest.raises(UsageError, match="less than one document"):
        made(tmp_path / "out", tokens=1)
    with pytest.raises(UsageError, match="times its"):
        made(tmp_path / "out", tokens=10**12)
    with pytest.raises(UsageError, match="there is none"):
        PackConfig(tokens=5)
    with pytest.raises(UsageError, match="inputs of a mixture have shares"):
        packcli.pack(web, tmp_path / "out", mix=inputs)
    assert not (tmp_path / "out").exists()


def test_a_worker_that_dies_while_counting_is_told(tmp_path, made, monkeypatch):
    """A traceback would say nothing of memory, or of what to do."""
    from packcli.errors import PackcliError
    from packcli.pipeline import engines

    def lose(work, items, *, workers, emit):
        raise engines.LostWorkerError(items[0])
        yield

    for name in engines.LOCAL_ENGINES:
        monkeypatch.setitem(engines.LOCAL_ENGINES, name, lose)
    with pytest.raises(PackcliError, match=r"died 3 times over unit 0 \(of .*, perhaps for want of memory"):
        made(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def spoiled(path, number):
    """Rows of which every fifth is bad in one of four ways; the numbers of the bad ones."""
    bad = ["{broken", '{"text": null}', '{"text": "\udcff"}', json.dumps({"text": "x" * 5000})]
    rows = [json.dumps({"text": f"{row} " + " ".join(WORDS[row % 7 : row % 19])}) for row in range(number)]
    for row in range(0, number, 5):
        rows[row] = bad[row // 5 % 4]
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogateescape") + b"\n\n")
    return list(range(0, number, 5))


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "prompts"])
def test_bad_rows_are_rejected_as_often_as_they_are_taken(tmp_path, tokenizer_dir, kind):
    """A row that an epoch leaves out is neither read nor rejected; one that it takes twice is both twice."""
    path = tmp_path / f"in.{kind}"
    bad = spoiled(path, 600)
    settings = {}
    if kind == "jsonl.gz":
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    if kind in ("parquet", "prompts"):
        texts = [None if row % 5 == 0 else f"{row} {WORDS[row % 20]} " * 3 for row in range(600)]
        table = pa.table({"text": texts, "answer": ["yes"] * 600})
        path = tmp_path / "in.parquet"
        pq.write_table(table, path, row_group_size=100)
        if kind == "prompts":
            settings = {"field": ["prompt=text", "completion=answer"]}
    good = write_rows(tmp_path / "good.jsonl", 100, 4)
    if kind == "prompts":
        good = str(tmp_path / "good.parquet")
        pq.write_table(table.slice(1, 4), good)

    def pack(name, **more):
        return packcli.pack(
            output=tmp_path / name,
            mix={str(path): 0.9, good: 0.1},
            tokenizer=str(tokenizer_dir),
            max_len=64,
            unit_bytes=8192,
            workers=1,
            on_error="skip",
            max_bad="100%",
            max_line_bytes=4000,
            **settings,
            **more,
        )

    available = pack("alone").manifest["mix"]["components"][0]["num_tokens"]
    report = pack("out", tokens=round(2.4 * available / 0.9))
    component = report.manifest["mix"]["components"][0]
    assert component["epochs"] == 2
    taken = row_hashes(np.arange(600), readers.hash_seed(report.manifest["config"]["seed"], 0)) < component["threshold"]
    assert 100 < taken.sum() < 400
    entries = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    expected = {row: 2 + int(taken[row]) for row in bad}
    assert collections.Counter(each["row"] for each in entries if each["source"] == path.name) == expected
    if kind == "jsonl":
        lines = path.read_bytes().split(b"\n")
        starts = np.cumsum([0, *(len(line) + 1 for line in lines)])
        assert all(each["byte"] == starts[each["row"]] for each in entries)
        assert {each["cause"] for each in entries} == {"not-json", "null", "not-utf8", "too-long"}
    stats = report.stats
    assert stats.num_rows_rejected == len(entries)
    assert stats.num_rows_read == stats.num_documents + len(entries)
    copies = documents(tmp_path / "out")[1]
    assert {copies[0, row] - int(taken[row]) for row in range(600) if row % 5} == {2}
    assert verify(tmp_path / "out", deep=True).problems == []


def test_a_bad_row_ends_a_mixture_before_anything_is_written(tmp_path, made):
    path = tmp_path / "in.jsonl"
    spoiled(path, 50)
    with pytest.raises(BadRowError, match=r"in\.jsonl:1: not valid JSON"):
        made(tmp_path / "out", mix={str(path): 1.0})
    assert not (tmp_path / "out").exists()


def test_max_bad_counts_every_copy(tmp_path, made):
    """The rows of the inputs are no bound of what a mixture reads: it may be over the limit at their number, and end
    below it, or the other way round."""
    path = tmp_path / "in.jsonl"
    spoiled(path, 50)
    mix, settings = {str(path): 1.0}, {"on_error": "skip", "max_line_bytes": 4000}
    one = made(tmp_path / "one", mix=mix, max_bad="20%", **settings)
    tokens = 3 * one.stats.num_tokens_packed
    report = made(tmp_path / "out", mix=mix, max_bad="20%", tokens=tokens, **settings)
    assert (report.stats.num_rows_read, report.stats.num_rows_rejected) == (150, 30)
    with pytest.raises(BadRowError, match="over --max-bad 19%"):
        made(tmp_path / "less", mix=mix, max_bad="19%", tokens=tokens, **settings)


def test_ranks_share_a_mixture_out(tmp_path, made, inputs, tokenizer_dir):
    """The plan holds what every unit takes of each component: the bytes are those of one process."""
    made(tmp_path / "whole", tokens=150_000)
    mix = [part for path, weight in inputs.items() for part in ("--mix", f"{path}={weight}")]
    output = str(tmp_path / "out")
    settings = ["--tokenizer", str(tokenizer_dir), "--max-len", "64", "--unit-bytes", "16384", "--tokens", "150k"]
    planned = run("units", "plan", *mix, "-o", output, *settings, "-w", "1", "-q")
    assert planned.exit_code == 0, planned.output
    for rank in range(2):
        assert run("units", "run", output, "--rank", str(rank), "--world-size", "2", "-w", "1", "-q").exit_code == 0
    assert run("units", "finish", output, "-w", "1", "-q").exit_code == 0
    assert tree_hash(tmp_path / "out") == tree_hash(tmp_path / "whole")
    assert made(tmp_path / "out", tokens=150_000).status == "up to date"
