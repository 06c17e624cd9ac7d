"""A run that passes bad rows over: the same packs, the same tree, and every rejected row on the disk."""

import json
import subprocess

import pytest
from bad_lines import LINES
from helpers import PACKCLI, tree_hash
from rejected_rows import pack, raw_of, rejected

import packcli
from packcli import errors
from packcli.config import PackConfig
from packcli.verification import verify

# --- the same figures for any number of processes, after any end ---

GOOD = b"".join(b'{"text":"the cat %d sat on the mat and the dog ran"}\n' % number for number in range(600))


def mixed(path):
    """600 good rows, and bad ones between them; returns how many bad ones."""
    lines = GOOD.splitlines(keepends=True)
    bad = [line for line, _, _, lenient in LINES.values() if lenient is None and len(line) < 1000]
    for number, line in enumerate(bad):
        lines.insert(7 + number * 17, line + b"\n")
    path.write_bytes(b"".join(lines))
    return len(bad)


def test_packs_are_those_of_the_input_without_its_bad_rows(tmp_path, tokenizer_dir):
    """And the report adds up."""
    num_bad = mixed(tmp_path / "bad.jsonl")
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    bad = pack(tmp_path / "bad.jsonl", tmp_path / "bad", tokenizer_dir, max_len=128, strategy="best-fit")
    good = pack(tmp_path / "good.jsonl", tmp_path / "good", tokenizer_dir, max_len=128, strategy="best-fit")
    stats = bad.stats
    assert (stats.num_rows_read, stats.num_rows_rejected, stats.num_documents) == (600 + num_bad, num_bad, 600)
    assert not (tmp_path / "good" / "rejected.jsonl").exists()
    assert sum(stats.rejected_by_cause.values()) == len(rejected(tmp_path / "bad")) == num_bad > 25
    one, other = (packcli.load(str(tmp_path / name), row_type="list") for name in ("bad", "good"))
    lines = (tmp_path / "bad.jsonl").read_bytes().split(b"\n")
    rows = [number for number, line in enumerate(lines) if line and line in set(GOOD.split(b"\n"))]
    assert len(one) == len(other) > 50
    for left, right in zip(one, other, strict=True):
        assert left["input_ids"] == right["input_ids"]
        assert left["labels"] == right["labels"]
        assert [each["row"] for each in left["sources"]] == [rows[each["row"]] for each in right["sources"]]
    assert good.stats.num_tokens_in == stats.num_tokens_in


def test_the_tree_is_the_same_for_any_workers_and_after_a_resume(tmp_path, tokenizer_dir):
    """rejected.jsonl comes from many units, in the order of the input."""
    mixed(tmp_path / "a.jsonl")
    options = {"max_len": 128, "unit_bytes": 4096}
    whole = pack(tmp_path / "a.jsonl", tmp_path / "whole", tokenizer_dir, **options)
    assert whole.stats.num_parts > 5
    want = tree_hash(tmp_path / "whole")
    entries = rejected(tmp_path / "whole")
    assert [entry["row"] for entry in entries] == sorted(entry["row"] for entry in entries)
    command = [*PACKCLI, "pack", str(tmp_path / "a.jsonl"), "-o", str(tmp_path / "two"), "-w", "2", "-q"]
    command += ["--on-error", "skip", "--max-bad", "100%", "--max-len", "128", "--unit-bytes", "4096"]
    command += ["--tokenizer", str(tokenizer_dir), "--tokenizer-engine", "tokenizers"]
    subprocess.run(command, check=True)
    assert tree_hash(tmp_path / "two") == want
    for lost in ("units/00002-000.json", "units/00003-000.rejected.jsonl"):
        (tmp_path / "two" / lost).unlink()  # a part that was not committed
        (tmp_path / "two" / "manifest.json").unlink()
        resumed = pack(tmp_path / "a.jsonl", tmp_path / "two", tokenizer_dir, **options)
        assert resumed.status == "resumed"
        assert tree_hash(tmp_path / "two") == want
    assert verify(tmp_path / "two").is_sound


def test_over_the_limit_is_exit_4_and_a_larger_one_resumes(tmp_path, tokenizer_dir):
    """The verdict is the same on every run; what was done stays; nobody need begin anew."""
    num_bad = mixed(tmp_path / "a.jsonl")
    source, out = tmp_path / "a.jsonl", tmp_path / "out"
    options = {"max_len": 128, "unit_bytes": 4096}
    for limit in (None, "1%", 3, num_bad - 1):
        with pytest.raises(errors.BadRowError) as caught:
            pack(source, out, tokenizer_dir, **options, max_bad=limit)
        assert caught.value.exit_code == 4
        named = "1%" if limit is None else limit
        assert f"rows cannot be used, over --max-bad {named}" in caught.value.message
        assert "allow more with --max-bad" in caught.value.hint
        assert not (out / "manifest.json").exists()
    assert f"{num_bad} of {600 + num_bad} rows cannot be used, over --max-bad {num_bad - 1}; " in caught.value.message
    assert "most often not-json (" in caught.value.message
    assert "): a.jsonl:" in caught.value.message
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("data-*.arrow")}
    assert len(kept) > 5
    report = pack(source, out, tokenizer_dir, **options, max_bad=num_bad)
    assert report.status == "resumed"
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("data-*.arrow")} == kept
    assert pack(source, out, tokenizer_dir, **options, max_bad="50%").status == "up to date"
    with pytest.raises(errors.BadRowError, match=f"over --max-bad {num_bad - 1}"):
        pack(source, out, tokenizer_dir, **options, max_bad=num_bad - 1)
    assert (out / "manifest.json").exists()


def test_a_limit_that_is_surely_exceeded_ends_the_run_early(tmp_path, tokenizer_dir):
    """Of a terabyte of bad rows not each would be kept."""
    (tmp_path / "a.jsonl").write_bytes(b'{"text":"one"}\n' + b"x\n" * 20000)
    for limit in ("10", "0.1%"):
        with pytest.raises(errors.BadRowError, match="over --max-bad"):
            pack(tmp_path / "a.jsonl", tmp_path / "out", tokenizer_dir, max_bad=limit, unit_bytes=4096)
        assert len(list((tmp_path / "out" / "units").glob("*.json"))) <= 1
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".tmp")]


def test_settings_that_contradict_each_other(tmp_path, tokenizer_dir):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    with pytest.raises(errors.UsageError, match="--max-bad says how many rows may be skipped, and none is skipped"):
        pack(tmp_path / "a.jsonl", tmp_path / "out", tokenizer_dir, on_error="stop", max_bad=3)
    assert PackConfig().on_error == "stop"
    pack(tmp_path / "a.jsonl", tmp_path / "out", tokenizer_dir, max_bad=None)
    for change, said in (({"on_error": "stop"}, 'on_error was "skip"'), ({"lenient": True}, "lenient was false")):
        with pytest.raises(errors.MismatchError, match=said):
            pack(tmp_path / "a.jsonl", tmp_path / "out", tokenizer_dir, **{"max_bad": None, **change})
    with pytest.raises(errors.MismatchError, match="max_line_bytes was 67108864, now it is 100"):
        pack(tmp_path / "a.jsonl", tmp_path / "out", tokenizer_dir, max_line_bytes=100)


def test_all_rows_bad_is_nothing_to_pack(tmp_path, tokenizer_dir):
    (tmp_path / "a.jsonl").write_bytes(b'{"text":null,"more":"x"}\n' * 3)
    with pytest.raises(errors.NoInputError, match="no document to pack: 0 read.*; 3 rows cannot be used"):
        pack(tmp_path / "a.jsonl", tmp_path / "out", tokenizer_dir, text_field="text")


# --- what is on the disk ---


def test_hostile_rows_are_inert_and_whole(tmp_path, tokenizer_dir):
    lines = [b'\x1b[31m"', "\u202e{".encode(), b"\x00\x01", b"<script>", b"x" * (1 << 20) + b"\xc3\xa9yz"]
    lines.append(b"\xff" + b"y" * (1 << 20))
    (tmp_path / "a.jsonl").write_bytes(b'{"text":"a"}\n' + b"\n".join(lines))
    pack(tmp_path / "a.jsonl", tmp_path / "out", tokenizer_dir)
    data = (tmp_path / "out" / "rejected.jsonl").read_bytes()
    assert all(byte == 10 or 32 <= byte < 127 for byte in data)
    entries = rejected(tmp_path / "out")
    assert [entry["num_bytes"] for entry in entries] == [len(line) for line in lines]
    assert [raw_of(entry) for entry in entries[:4]] == lines[:4]
    assert raw_of(entries[4]) == lines[4][: 1 << 20]
    assert raw_of(entries[5]) == lines[5][: 1 << 20]
    assert "raw" in entries[4]
    assert "raw_base64" in entries[5]


def test_verify_knows_rejected_rows(tmp_path, tokenizer_dir):
    """A lost, edited, added or swapped entry is found, and so is a count that is not theirs."""
    mixed(tmp_path / "a.jsonl")
    out = tmp_path / "out"
    pack(tmp_path / "a.jsonl", out, tokenizer_dir, max_len=128, unit_bytes=4096)
    assert verify(out, deep=True).is_sound
    parts = sorted(out.glob("units/*.rejected.jsonl"))
    assert len(parts) > 5
    for path in (out / "rejected.jsonl", parts[0]):
        before = path.read_bytes()
        for after in (before[:-1], before.replace(b"not-json", b"not-utf8", 1), before * 2, b"", b"\xff" + before[1:]):
            path.write_bytes(after)
            assert path.name in {problem.file.split("/")[-1] for problem in verify(out).problems}
        path.unlink()
        assert any("is missing" in problem.what for problem in verify(out).problems)
        path.write_bytes(before)
    (out / "units" / "00099-000.rejected.jsonl").write_bytes(b"{}\n")
    assert ["is not of this run" in problem.what for problem in verify(out).problems] == [True]
    (out / "units" / "00099-000.rejected.jsonl").unlink()
    (tmp_path / "a.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes().replace(b'"text":null', b'"text":true'))
    assert any("have changed" in problem.what for problem in verify(out, deep=True).problems)


def test_overwrite_and_restart_leave_no_rejected_rows(tmp_path, tokenizer_dir):
    """The next run has none, and would seem to have some."""
    mixed(tmp_path / "a.jsonl")
    out = tmp_path / "out"
    pack(tmp_path / "a.jsonl", out, tokenizer_dir)
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    pack(tmp_path / "a.jsonl", out, tokenizer_dir, overwrite=True)
    assert not list(out.rglob("*rejected*"))
    assert verify(out).is_sound


def test_stats_of_raw_input_leaves_bad_rows_out_and_says_so(tmp_path, tokenizer_dir):
    num_bad = mixed(tmp_path / "a.jsonl")
    (tmp_path / "packcli.toml").write_text('[pack]\non-error = "skip"\nmax_bad = 7\n')
    command = [*PACKCLI, "stats", "a.jsonl", "--json", "-w", "1", "--tokenizer", str(tokenizer_dir)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["what_if"]["num_documents"] == 600
    assert f"{num_bad} rows cannot be used, and are left out" in result.stderr


def test_views_show_what_was_rejected(tmp_path, tokenizer_dir):
    num_bad = mixed(tmp_path / "a.jsonl")
    command = [*PACKCLI, "pack", "a.jsonl", "-o", "out", "--on-error", "skip", "--max-bad", "10%", "-w", "1"]
    said = subprocess.run([*command, "--tokenizer", str(tokenizer_dir)], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert f"rejected       {num_bad} of {600 + num_bad} rows (" in said.stderr
    assert f"- rejected: {num_bad} of {600 + num_bad} rows (" in (tmp_path / "out" / "README.md").read_text()
    for flag in ("--csv", "--markdown"):
        shown = subprocess.run(
            [*PACKCLI, "stats", "out", flag], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert "rows rejected: not-json" in shown.stdout
