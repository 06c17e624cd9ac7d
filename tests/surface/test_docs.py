"""packcli/json.md names every key that --json prints, and no other."""

import csv
import io
import json
import re
import subprocess
import sys

import pytest
from helpers import ROOT, SAMPLE
from typer.testing import CliRunner

import packcli
from packcli import cli
from packcli.config.bad_rows import CAUSES
from packcli.dataset import Output
from packcli.report import Chart, Table, to_csv, to_markdown
from packcli.report.tables import CSV_COLUMNS, Cell, bars

REJECTED_KEYS = "source row place byte cause message num_bytes raw raw_base64".split()
"""Of a line of rejected.jsonl; test_bad_rows.py looks at real ones."""
DOCUMENT = (ROOT / "packcli" / "json.md").read_text(encoding="utf-8")


def told(*arguments):
    return json.loads(CliRunner().invoke(cli.app, list(map(str, arguments))).stdout)


def rank_groups(output, tokenizer_dir):
    """What the verbs for ranks print."""
    told("units", "plan", SAMPLE, "-o", output, "--tokenizer", tokenizer_dir, "--json")
    ran = told("units", "run", output, "--rank", 0, "--world-size", 1, "--json")
    with Output(output).lock.join_as_rank(1, 2):
        status = told("units", "status", output, "--json")
    return [ran, status, status["ranks"][0]]


def test_every_key_is_described(tmp_path, tokenizer_dir):
    packcli.pack(str(SAMPLE), tmp_path / "out", tokenizer=str(tokenizer_dir), workers=1)
    report = told("stats", tmp_path / "out", "--recount", "--json")
    several = told("stats", tmp_path / "out", tmp_path / "out", "--json")
    found = told("stats", SAMPLE, "--sample", 0.5, "--tokenizer", tokenizer_dir, "-w", 1, "--json")
    (row,) = told("inspect", tmp_path / "out", "--json")["rows"]
    verdict = told("verify", tmp_path / "out", "--row", 0, "--json")
    what_if = found["what_if"]
    groups = [report, report["derived"], report["totals"], report["recount"], report["sources"][0], several, found]
    groups += [report["derived"]["layouts"], report["derived"]["layouts"]["packed"], what_if, row, row["segments"][0]]
    groups += [what_if[name][0] for name in ("outcomes", "caps", "overlong", "sources", "orders")]
    groups.append(row["segments"][0]["runs"][0])
    groups += [verdict, verdict["restored"]]
    mixed = told(
        *(
            "pack",
            "--mix",
            f"{SAMPLE}=1",
            "--tokenizer",
            tokenizer_dir,
            "-o",
            tmp_path / "mixed",
            "-w",
            1,
            "--json",
            "-q",
        )
    )
    groups += [mixed, mixed["mix"][0], mixed["sources"][0]]
    merged = told("merge", tmp_path / "out", "-o", tmp_path / "merged", "--json", "-q")
    groups += [merged, {key: value for key, value in merged["run"].items() if "shards_" in key or "bytes_" in key}]
    groups += rank_groups(tmp_path / "ranks", tokenizer_dir)
    keys = {key for group in groups for key in group}
    described = set(re.findall(r"`([a-z][a-z_0-9-]*)`", DOCUMENT)) | set(re.findall(r'"([a-z_]+)"', DOCUMENT))
    assert keys - described == set()
    others = {"what", "cause", "replay"}  # a value, and of problems and absent documents, of which there are none
    others |= {*CAUSES, *REJECTED_KEYS, "rows", "table", "row", "column", "value", "low", "high", "num_", "sum_"}
    assert described - keys - others == set()
    assert {*CAUSES, *REJECTED_KEYS} <= described
    assert report["schema_version"] == several["schema_version"] == found["schema_version"] == 1
    assert "`schema_version` is 1" in DOCUMENT


def test_the_table_in_readme_is_what_packcli_prints():
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "docs" / "make.py", "--check"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](tests/docs/report.png)" in readme
    assert (ROOT / "tests" / "docs" / "report.png").stat().st_size < 300_000


def test_csv_columns_are_described():
    assert all(f"`{column}`" in DOCUMENT for column in CSV_COLUMNS)


HOSTILE = Table("t", "a|b", ("", "<b>"), [(Cell("=1+1"), Cell(0.5, "ratio")), (Cell("x|y\n# z"), Cell(None))])


def test_csv_is_plain_and_inert_in_a_spreadsheet():
    rows = list(csv.reader(io.StringIO(to_csv([HOSTILE]), newline="")))
    assert rows == [list(CSV_COLUMNS), ["t", "'=1+1", "<b>", "0.5", "", ""], ["t", "x|y\n# z", "<b>", "", "", ""]]


def test_markdown_escapes_cells():
    lines = to_markdown([HOSTILE]).splitlines()
    assert lines[0] == r"## a\|b"
    assert lines[2] == r"|  | &lt;b&gt; |"
    assert lines[4:] == [r"| =1+1 | 50.00% |", r"| x\|y\\n\# z | - |"]


def test_bars_by_hand():
    assert bars({3: 1, 4: 2, 11: 1}, 3) == [(0, 4, 3), (5, 9, 0), (10, 11, 1)]
    assert bars({}, 3) == []
    assert bars({7: 9}, 4) == [(7, 7, 9)]
    tail = {1: 500, 2: 400, 3: 100, 900: 1}
    assert bars(tail, 8) == [(1, 1, 500), (2, 2, 400), (3, 3, 100), (4, 4, 0), (5, 5, 0), (6, 900, 1)]
    assert Chart("n", "t", "tokens", "segments").bars == []


def test_cells_are_read_as_people_write():
    shown = [Cell(1234567, "count"), Cell(0.12345, "ratio"), Cell(1.5, "times"), Cell(None), Cell("x")]
    assert [str(cell) for cell in shown] == ["1,234,567", "12.35%", "1.50", "-", "x"]
    assert [str(Cell(size, "bytes")) for size in (5, 1500, 123456789, 2e12)] == ["5 B", "1.5 kB", "123 MB", "2 TB"]
    assert Cell(5, "count", low=4, high=6).interval == "4 to 6"
    assert Cell(5, "count").interval == "-"


@pytest.mark.parametrize("settings", [{}, {"val_fraction": 0.3}, {"columns": "compact"}])
def test_the_dataset_card_is_what_the_hub_reads(tmp_path, tokenizer_dir, settings):
    """`datasets` parses the card's head into the features, splits and files that are there."""
    from datasets import DatasetInfo, load_from_disk
    from huggingface_hub import DatasetCard

    report = packcli.pack(str(SAMPLE), tmp_path / "out", tokenizer=str(tokenizer_dir), workers=1, **settings)
    card = DatasetCard.load(tmp_path / "out" / "README.md", ignore_metadata_errors=False)
    head = card.data.to_dict()
    info = DatasetInfo._from_yaml_dict(head["dataset_info"])
    data = load_from_disk(str(tmp_path / "out"))
    parts = data if settings.get("val_fraction") else {"train": data}
    seen = []
    for split, rows in parts.items():
        assert info.features == rows.features
        assert info.splits[split].num_examples == len(rows)
        (pattern,) = (each["path"] for each in head["configs"][0]["data_files"] if each["split"] == split)
        shards = list((tmp_path / "out").glob(pattern))
        assert sum(shard.stat().st_size for shard in shards) > 1000
        seen += shards
    assert sorted(seen) == sorted((tmp_path / "out").rglob("*.arrow"))
    derived = report.derived
    for figure in (derived["utilisation"], derived["padding_ratio_unpacked"], derived["attention_ratio"]):
        assert f"{figure:.2%}" in card.text
    assert report.manifest["fingerprint"] in card.text
    assert str(tmp_path) not in card.content
