"""The command line as a user meets it, through typer's runner; real processes are in tests/system."""

import json
import os
import re
import shutil

import pyarrow
import pyarrow.ipc
import pytest
from helpers import SAMPLE
from typer.testing import CliRunner

from packcli import cli, errors
from packcli.config import parse_size


def invoke(*arguments):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLE, tmp_path / "docs.jsonl")
    return tmp_path


def stored(directory, column):
    """A column of the only shard, row by row."""
    (shard,) = directory.glob("*.arrow")
    with pyarrow.ipc.open_stream(shard) as reader:
        return reader.read_all()[column].to_pylist()


def group_ratio(directory):
    """Attention cost of the dearest eight rows over the mean of all groups, from the rows as they are stored."""
    costs = [sum(length**2 for length in lengths) for lengths in stored(directory, "seq_lengths")]
    groups = [sum(costs[first : first + 8]) for first in range(0, len(costs) - 7, 8)]
    return max(groups) / (sum(groups) / len(groups))


def test_balanced_rows_cost_alike(here):
    """The whole way: the rows on the disk are balanced as stats.json says, and they are the same rows."""
    common = ["docs.jsonl", "--strategy", "best-fit", "--max-len", 256, "--columns", "compact", "-w", 1, "--json"]
    result = invoke("pack", *common, "-o", "balanced", "--balance")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    on_disk = json.loads((here / "balanced" / "stats.json").read_text(encoding="utf-8"))
    assert on_disk["derived"] == report["derived"]
    derived, totals = on_disk["derived"], on_disk["totals"]
    assert 1.0 <= derived["group_cost_max_ratio"] < derived["group_cost_max_ratio_unbalanced"]
    assert derived["num_packs_for_windows"] == 0
    assert totals["num_groups"] == totals["num_packs"] // 8 > 4
    assert sum(totals["plans_by_planner"].values()) == totals["num_parts"] == 1
    assert all(planner.startswith("best-fit: ") for planner in totals["plans_by_planner"])
    said = re.sub(r"\s+", " ", result.stderr)
    assert f"the most expensive 8 rows cost {derived['group_cost_max_ratio']:.2f} times the mean" in said
    assert f"without --balance {derived['group_cost_max_ratio_unbalanced']:.2f}" in said

    plain = invoke("pack", *common, "-o", "plain", "--no-balance")
    unbalanced = json.loads(plain.stdout)["derived"]
    assert unbalanced["group_cost_max_ratio"] == unbalanced["group_cost_max_ratio_unbalanced"]
    assert unbalanced["group_cost_max_ratio"] == derived["group_cost_max_ratio_unbalanced"]
    assert "without --balance" not in plain.stderr
    balanced_rows, rows = (stored(here / name, "input_ids") for name in ("balanced", "plain"))
    assert sorted(balanced_rows) == sorted(rows)
    assert balanced_rows != rows
    assert group_ratio(here / "balanced") == pytest.approx(derived["group_cost_max_ratio"], abs=1e-6)
    assert group_ratio(here / "plain") == pytest.approx(unbalanced["group_cost_max_ratio"], abs=1e-6)


def test_effort_reaches_the_planner_and_the_settings_file(here):
    """A flag that changes nothing; or one that the packcli.toml beside the output forgets."""
    found = {}
    for effort in ("fast", "max"):
        arguments = ["docs.jsonl", "--strategy", "bfd", "--max-len", 700, "--effort", effort, "-w", 1, "--json", "-q"]
        found[effort] = json.loads(invoke("pack", *arguments, "-o", effort).stdout)
        assert f'effort = "{effort}"' in (here / effort / ".packcli" / "packcli.toml").read_text(encoding="utf-8")
        again = invoke(
            "pack", "docs.jsonl", "-o", effort, "--config", f"{effort}/.packcli/packcli.toml", "--json", "-q"
        )
        assert json.loads(again.stdout)["status"] == "up to date"
    assert found["fast"]["totals"]["plans_by_planner"] == {"best-fit: decreasing": 1}
    assert found["max"]["totals"]["num_packs"] <= found["fast"]["totals"]["num_packs"]
    assert found["fast"]["fingerprint"] != found["max"]["fingerprint"]


BAD = {
    "missing file": (["pack", "dosc.jsonl"], 2, ["dosc.jsonl: no such file", "docs.jsonl?"]),
    "no match": (["pack", "*.parquet"], 2, ["*.parquet: no file matches"]),
    "wrong field": (["pack", "docs.jsonl", "--text-field", "txt"], 2, ["no field 'txt'", "'text'", "id (string)"]),
    "several fields": (["pack", "qa.jsonl"], 2, ["several fields", "q (string), a (string)", "--text-template"]),
    "wrong type": (["pack", "null.jsonl"], 4, ["null.jsonl:2:", "Expected `str`, got `null`"]),
    "malformed": (["pack", "broken.jsonl"], 4, ["broken.jsonl:3:", "not valid JSON", '{"text": "c']),
    "bad UTF-8": (["pack", "latin.jsonl"], 4, ["latin.jsonl:2:", "not UTF-8", "byte 10"]),
    "empty file": (["pack", "empty.jsonl"], 2, ["every input file is empty"]),
    "only empty": (["pack", "blank.jsonl"], 2, ["no document to pack", "2 of them empty"]),
    "foreign output": (["pack", "docs.jsonl", "-o", "foreign"], 2, ["not an output of packcli", "-o"]),
    "unknown strategy": (["pack", "docs.jsonl", "--strategy", "best_fit"], 2, ["did you mean 'best-fit'", "known:"]),
    "unknown column": (["pack", "docs.jsonl", "--columns", "labls"], 2, ["did you mean 'labels'"]),
    "unknown policy": (["pack", "docs.jsonl", "--overlong", "cut"], 2, ["overlong policy 'cut'", "truncate"]),
    "max-len": (["pack", "docs.jsonl", "--max-len", "1"], 2, ["--max-len 1: a pack holds at least 2 tokens"]),
    "cap": (["pack", "docs.jsonl", "--max-docs-per-pack", "4"], 2, ["cannot be kept by strategy 'concat'", "best-fit"]),
    "unknown effort": (["pack", "docs.jsonl", "--effort", "fats"], 2, ["effort 'fats'", "did you mean 'fast'", "max"]),
    "balance": (["pack", "docs.jsonl", "--balance"], 2, ["--balance cannot be kept by strategy 'concat'", "best-fit"]),
    "balance of a stream": (
        ["pack", "docs.jsonl", "--balance", "--strategy", "sequential"],
        2,
        ["--balance cannot be kept by strategy 'next-fit', whose packs stand in the order of the input", "pad"],
    ),
    "not a tokenizer": (["pack", "docs.jsonl", "--tokenizer", "docs.jsonl"], 2, ["not a tokenizer.json"]),
    "no tokenizer": (["pack", "docs.jsonl", "--tokenizer", "./nowhere"], 2, ["./nowhere: no such file"]),
    "not in the hub cache": (
        ["pack", "docs.jsonl", "--tokenizer", "a/b"],
        2,
        ["not in the hub cache", "--allow-network"],
    ),
    "size": (["pack", "docs.jsonl", "--unit-bytes", "big"], 2, ["'big' is not a size", "64MiB"]),
    "truncated zst": (["pack", "cut.jsonl.gz"], 6, ["cut.jsonl.gz", "damaged"]),
    "stats of nothing": (["stats", "foreign"], 2, ["not an output of packcli"]),
    "config key": (["pack", "docs.jsonl", "--config", "bad.toml"], 2, ["unknown key 'max-lenn'", "max_len"]),
    "suffix": (["pack", "data.csv"], 2, ["cannot tell the format", ".jsonl"]),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_mistake_gets_what_where_and_which_option(here, name):
    """A traceback, or a message that leaves the user guessing."""
    import gzip

    (here / "qa.jsonl").write_text('{"q": "a", "a": "b"}\n')
    (here / "null.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    (here / "broken.jsonl").write_text('{"text": "a"}\n\n{"text": "c\n')
    (here / "latin.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xe9"}\n')
    (here / "empty.jsonl").write_text("")
    (here / "blank.jsonl").write_text('{"text": ""}\n{"text": ""}\n')
    (here / "data.csv").write_text("text\na\n")
    (here / "bad.toml").write_text("[pack]\nmax-lenn = 3\n")
    (here / "cut.jsonl.gz").write_bytes(gzip.compress(SAMPLE.read_bytes())[:-5000])
    (here / "foreign").mkdir()
    (here / "foreign" / "file").write_text("")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    arguments, code, parts = BAD[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        result = invoke(*arguments)
    finally:
        del os.environ["HF_HUB_OFFLINE"]
    assert result.exit_code == code, result.output
    said = re.sub(r"\s+", " ", result.stderr)
    for part in parts:
        assert part in said
    assert "Traceback" not in result.output
    for path, content in before.items():
        assert path.read_bytes() == content


def test_debug_shows_the_traceback_and_bugs_always_do(here, monkeypatch):
    result = invoke("pack", "dosc.jsonl", "--debug")
    assert isinstance(result.exception, errors.NoInputError)
    import packcli.pipeline.run

    def bug(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(packcli.pipeline, "pack", bug)
    assert isinstance(invoke("pack", "docs.jsonl").exception, RuntimeError)


def test_names_and_text_cannot_write_to_the_terminal(here):
    (here / "a\x1b[31mb.jsonl").write_text('{"text": "a\x1b"}\n')
    result = invoke("pack", "a\x1b[31mb.jsonl")
    assert result.exit_code == 4
    assert "\x1b" not in result.output
    assert "\\x1b[31m" in result.output


def test_sizes():
    assert parse_size("128MiB") == 128 * 2**20
    assert parse_size("1.5 GB") == 1_500_000_000
    assert parse_size("64k") == 64_000
    assert parse_size("4096") == 4096
    for bad in ("", "MiB", "-1", "1 PB", "0x10"):
        with pytest.raises(errors.UsageError):
            parse_size(bad)
