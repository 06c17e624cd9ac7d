"""The command line as real processes: what they print and read, their exit codes, and signals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers import BUILTIN, PACKCLI, SAMPLE, big_input
from tokenizer_files import IS_0, Oracle


def run(*arguments, **options):
    options.setdefault("env", {**os.environ, "NO_COLOR": "1"})
    return subprocess.run([*PACKCLI, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", **options)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLE, tmp_path / "docs.jsonl")
    return tmp_path


def test_the_shortest_command(here):
    """`packcli pack data.jsonl` is all that a new user types."""
    result = run("pack", "docs.jsonl", "--max-len", 512)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert (here / "docs-packed" / "manifest.json").is_file()
    for line in (
        r"documents +300 from 1 file",
        r"packs +\d+ of 512 tokens \(concat\)",
        r"utilisation +9\d\.\d\d%",
        r"padding ratio +\d\.\d\d%; one document a row: \d\d\.\d\d%",
        r"dropped +0 documents",
        r"truncated +0 documents",
        r"split +\d+ documents",
        r"tokenizer +builtin .*--tokenizer",
        r"engine +tokenizers [\w.-]+: not fastokens: to load it takes longer than to encode 301 kB"
        + r"|engine +fastokens [\d.]+: equal to tokenizers on" * (not IS_0),  # a pre-release is compared
        r"time +\d+\.\d\d s, [\d,]+ tokens/s",
        r"output +docs-packed \(packed\)",
        r'load +datasets\.load_from_disk\("docs-packed"\)',
    ):
        assert re.search(line, result.stderr), (line, result.stderr)
    assert "\x1b" not in result.stderr

    again = run("pack", "docs.jsonl", "--max-len", 512)
    assert again.returncode == 0
    assert "up to date" in again.stderr


def test_json_goes_to_stdout_and_nothing_else(here):
    result = run("pack", "docs.jsonl", "--json", "-w", 1)
    report = json.loads(result.stdout)
    assert report["totals"]["num_documents"] == 300
    assert "utilisation" in result.stderr
    quiet = run("pack", "docs.jsonl", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    shown = run("stats", "docs-packed", "--json")
    assert json.loads(shown.stdout)["totals"] == report["totals"]


def test_stats_prints_the_report_again(here):
    run("pack", "docs.jsonl", "--strategy", "bfd", "--max-len", 128, "-w", 1)
    result = run("stats", "docs-packed")
    assert result.returncode == 0
    for word in (
        "padding ratio",
        "utilisation",
        "Segments a pack",
        "Segment lengths",
        "Without packing",
        "p50",
        "above the proven minimum",
    ):
        assert word in result.stderr
    assert "(recorded)" in result.stderr


def test_windows_are_named_with_their_price(here):
    """Who plans in small parts must see what that costs."""
    result = run(
        "pack", "docs.jsonl", "--strategy", "bfd", "--max-len", 512, "--unit-bytes", "64KiB", "--json", "-w", 1
    )
    report = json.loads(result.stdout)
    assert report["totals"]["num_parts"] > 1
    price = report["derived"]["num_packs_for_windows"]
    assert 0 <= price <= report["totals"]["num_parts"] - 1
    said = re.sub(r"\s+", " ", result.stderr)
    assert f"{report['totals']['num_parts']} parts of up to 0.0625 MiB" in said
    assert f"{price} pack" in said


def test_stdin_is_packed_like_a_file(here):
    text = SAMPLE.read_text(encoding="utf-8")
    result = run("pack", "-", "-w", 1, "-q", input=text)
    assert result.returncode == 0, result.stderr
    assert run("pack", "docs.jsonl", "-w", 1, "-q").returncode == 0
    piped, named = here / "stdin-packed", here / "docs-packed"
    shards = [path.name for path in sorted(named.glob("*.arrow"))]
    assert shards
    for name in shards:
        assert (piped / name).read_bytes() == (named / name).read_bytes()
    assert not (piped / ".packcli" / "stdin.jsonl").exists()
    assert "up to date" in run("pack", "-", input=text).stderr
    refused = run("pack", "-", input=text + '{"text": "more"}\n')
    assert refused.returncode == 3


def test_a_config_file_and_flags_that_win(here):
    (here / "packcli.toml").write_text('[pack]\nmax-len = 64\nstrategy = "ff"\nworkers = 1\nunit_bytes = "1MiB"\n')
    result = run("pack", "docs.jsonl", "--max-len", 96, "--json", "-q")
    report = json.loads(result.stdout)
    assert (report["max_len"], report["strategy"]) == (96, "first-fit")
    (here / "packcli.toml").unlink()
    again = run("pack", "docs.jsonl", "--config", "docs-packed/.packcli/packcli.toml", "--json", "-q")
    assert json.loads(again.stdout)["status"] == "up to date"


def test_templates_understand_escapes(here):
    (here / "qa.jsonl").write_text('{"q": "one {x}", "a": "two"}\n')
    result = run("pack", "qa.jsonl", "--text-template", "{q}\\n\\t{a}", "--json", "-q", "-w", 1)
    assert result.returncode == 0, result.stderr
    from packcli.training import load

    ids = load(here / "qa-packed")[0]["input_ids"]

    engine = Oracle(BUILTIN)
    assert engine.decode(ids[: ids.index(0)]) == "one {x}\n\ttwo"


@pytest.mark.parametrize("environment", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, {}])
def test_a_terminal_without_unicode(here, environment):
    os.rename(here / "docs.jsonl", here / "döcs.jsonl")
    result = run("pack", "döcs.jsonl", "-w", 1, env={**os.environ, **environment})
    assert result.returncode == 0, result.stderr
    assert "cs-packed" in result.stderr


def test_a_closed_pipe_is_no_error_of_ours(here):
    pipe = "docs.jsonl --json -q -w 1 | head -c 1 >/dev/null; echo ${PIPESTATUS[0]}"
    command = ["bash", "-c", f"{sys.executable} -m packcli pack {pipe}"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Traceback" not in result.stderr
    assert result.stdout.strip() in ("0", "141")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_what_is_committed_and_says_so(here, number, code):
    big_input(here / "big.jsonl")
    process = subprocess.Popen(
        [*PACKCLI, "pack", "big.jsonl", "-w", "2", "--unit-bytes", "200kB"], stderr=subprocess.PIPE, text=True
    )
    units = here / "big-packed" / "units"
    deadline = time.monotonic() + 60
    while not (units.is_dir() and any(units.glob("*.json"))):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == code
    line = "interrupted: committed units are kept, resume with: packcli pack big.jsonl -w 2 --unit-bytes 200kB\n"
    assert said == line
    assert not list((here / "big-packed").rglob("*.tmp"))
    assert run("pack", "big.jsonl", "-w", 1, "--unit-bytes", "200kB", "--json", "-q").returncode == 0
