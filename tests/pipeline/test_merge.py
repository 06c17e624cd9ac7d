"""Several outputs as one: the same shards under new names, and everything that counts inputs counts on."""

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from datasets import load_from_disk
from helpers import PACKCLI, tree_hash
from typer.testing import CliRunner

import packcli
from packcli import cli
from packcli.dataset import Output, PackedDataset, read_manifest, read_report
from packcli.dataset.fingerprint import sealed_bytes
from packcli.errors import LockedError, MismatchError, NoInputError, OutputError, StorageError, UsageError
from packcli.report import recount
from packcli.verification import verify


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return str(tokenizer_dir)


def write_rows(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def words(first, count):
    return [f"{number} the cat sat on the mat " * (number % 7 + 1) for number in range(first, first + count)]


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tokenizer):
    """Three outputs: of one file, of two, and of one that has the name of the first one's. Nobody may change them."""
    root = tmp_path_factory.mktemp("packed")
    inputs = [
        [write_rows(root / "a" / "x.jsonl", words(0, 30))],
        [write_rows(root / "b" / "y.jsonl", words(30, 20)), write_rows(root / "b" / "z.jsonl", ["", *words(50, 25)])],
        [write_rows(root / "c" / "x.jsonl", words(75, 10))],
    ]
    made = []
    for number, files in enumerate(inputs):
        report = packcli.pack(
            files, root / f"out{number}", tokenizer=tokenizer, max_len=32, unit_bytes=1024, workers=1, val_fraction=0.2
        )
        made.append(report.output)
    before = [tree_hash(each) for each in made]
    yield made
    assert [tree_hash(each) for each in made] == before


def segments(root, split="train"):
    """(name of the input by the manifest, its index, row, start, end) of every segment, as PackedDataset reads them."""
    packed = PackedDataset(root)
    names = [each["name"] for each in packed.manifest["inputs"]]
    out = []
    for _, batches in packed.shards(split):
        for batch in batches:
            found = batch.sources
            columns = (found.source, found.row, found.start, found.end)
            out += [(names[source], source, *rest) for source, *rest in np.stack(columns, 1).tolist()]
    return out


def test_merged_rows_stand_in_order_and_name_their_inputs(tmp_path, packed):
    report = packcli.merge(packed, tmp_path / "out")
    assert report.status == "merged"
    assert [each["name"] for each in report.manifest["inputs"]] == ["x.jsonl", "y.jsonl", "z.jsonl", "x.jsonl"]
    for split in ("train", "validation"):
        expected = []
        for root, first in zip(packed, (0, 1, 3), strict=True):
            expected += [(name, source + first, *rest) for name, source, *rest in segments(root, split)]
        assert segments(tmp_path / "out", split) == expected
        alone = [list(load_from_disk(str(each))[split]["input_ids"]) for each in packed]
        assert list(load_from_disk(str(tmp_path / "out"))[split]["input_ids"]) == sum(alone, [])
    parts = [read_report(each).stats for each in packed]
    assert report.stats.num_documents == 86
    assert report.stats.num_packs == sum(each.num_packs for each in parts)
    assert [report.stats.by_source[index]["num_documents"] for index in range(4)] == [30, 20, 26, 10]
    assert report.manifest["num_units"] == sum(read_report(each).manifest["num_units"] for each in packed)


def test_whatever_reads_sources_is_right(tmp_path, packed):
    """verify by rows, by tokenizing again and against inputs elsewhere; recount; inspect; exports; load."""
    out = packcli.merge(packed, tmp_path / "out").output
    verdict = verify(out, deep=True)
    assert (verdict.problems, verdict.num_documents_compared) == ([], 85)
    root = packed[0].parent
    paths = [str(root / name) for name in ("a/x.jsonl", "b/y.jsonl", "b/z.jsonl", "c/x.jsonl")]
    found = verify(out, against=paths)
    assert found.problems == []
    assert [(each.source, each.row, each.cause) for each in found.absent] == [("z.jsonl", 0, "empty")]
    assert "inputs are 2 files, and were 4" in verify(out, against=paths[:2]).problems[0].what
    swapped = verify(out, against=paths[::-1]).problems
    assert "x.jsonl" in swapped[0].what
    assert recount(read_report(out)).differences == {}
    rows = packcli.load(out, row_type="list")["train"]
    assert [segment["source"] for row in rows for segment in row["sources"]] == [each[1] for each in segments(out)]
    packcli.export(out, "parquet", tmp_path / "parquet")
    import pyarrow.parquet as pq

    table = pq.read_table(sorted((tmp_path / "parquet").rglob("train*.parquet")))
    assert [segment["source"] for row in table["sources"].to_pylist() for segment in row] == [
        each[1] for each in segments(out)
    ]


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


def test_inspect_finds_documents_of_every_member(tmp_path, packed):
    out = packcli.merge(packed, tmp_path / "out").output
    result = run("inspect", out, "--doc", "z.jsonl:7", "--json")
    (row, *_) = json.loads(result.stdout)["rows"]
    assert {each["source"] for each in row["segments"]} <= {"z.jsonl", ""}
    text = "".join(run["text"] for each in row["segments"] for run in each["runs"])
    assert "56 the" in text
    result = run("inspect", out, "--doc", "x.jsonl:3")
    assert result.exit_code == 2
    assert "2 inputs are called 'x.jsonl'" in result.stderr
    assert "number: 0, 3" in result.stderr
    found = [
        run("inspect", out, "--doc", "3:3", "--split", split, "--json").stdout for split in ("train", "validation")
    ]
    rows = json.loads(max(found, key=len))["rows"]
    assert "78 the" in "".join(run["text"] for each in rows[0]["segments"] for run in each["runs"])


def test_merging_equals_packing_together_where_units_are_files(tmp_path, tokenizer):
    """The plain proof that numbers are right: with one unit a file, concat gives the same rows either way."""
    files = [
        write_rows(tmp_path / f"{name}.jsonl", words(first, 12)) for name, first in (("a", 0), ("b", 12), ("c", 24))
    ]
    settings = {"tokenizer": tokenizer, "max_len": 32, "unit_bytes": 2048, "workers": 1}
    packcli.pack(files, tmp_path / "whole", **settings)
    assert json.loads((tmp_path / "whole" / "manifest.json").read_text())["num_units"] == 3
    parts = [packcli.pack(file, f"{file}-packed", **settings).output for file in files]
    packcli.merge(parts, tmp_path / "merged")
    assert verify(tmp_path / "merged", same_as=tmp_path / "whole").problems == []
    packcli.merge(parts[::-1], tmp_path / "turned")
    assert verify(tmp_path / "turned", same_as=tmp_path / "whole").problems


def test_merging_in_steps_gives_the_same_bytes(tmp_path, packed):
    one, two, three = packed
    packcli.merge(packed, tmp_path / "once")
    packcli.merge([one, two], tmp_path / "left")
    packcli.merge([tmp_path / "left", three], tmp_path / "steps")
    packcli.merge([two, three], tmp_path / "right")
    packcli.merge([one, tmp_path / "right"], tmp_path / "other")
    assert tree_hash(tmp_path / "steps") == tree_hash(tmp_path / "once") == tree_hash(tmp_path / "other")
    assert verify(tmp_path / "steps", deep=True).problems == []
    packcli.merge(packed[::-1], tmp_path / "turned")
    assert tree_hash(tmp_path / "turned") != tree_hash(tmp_path / "once")


def test_no_token_is_copied_and_inputs_may_go(tmp_path, packed):
    copies = [shutil.copytree(each, tmp_path / each.name) for each in packed]
    report = packcli.merge(copies, tmp_path / "out")
    shards = sorted((tmp_path / "out").rglob("data-*.arrow"))
    assert report.run["num_shards_linked"] == len(shards) > 5
    assert report.run["num_shards_copied"] == 0
    assert all(shard.stat().st_nlink == 2 for shard in shards)
    for each in copies:
        shutil.rmtree(each)
    assert verify(tmp_path / "out", deep=True).problems == []


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.ENOTSUP])
def test_shards_are_copied_where_there_are_no_links(tmp_path, packed, monkeypatch, error):
    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))

    expected = packcli.merge(packed, tmp_path / "linked")
    monkeypatch.setattr(os, "link", refuse)
    report = packcli.merge(packed, tmp_path / "copied")
    assert report.run["num_shards_linked"] == 0
    assert report.run["num_bytes_copied"] == sum(path.stat().st_size for path in report.output.rglob("data-*.arrow"))
    assert tree_hash(report.output) == tree_hash(expected.output)


def test_a_copy_that_is_not_what_was_packed_is_refused(tmp_path, packed, monkeypatch):
    """A bit that flipped since: links carry it on until verify, but what is read anyway is looked at."""
    one = shutil.copytree(packed[0], tmp_path / "one")
    shard = flip(one)

    def refuse(*_, **__):
        raise OSError(errno.EXDEV, "")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match="has changed since it was packed") as caught:
        packcli.merge([one, packed[1]], tmp_path / "out")
    assert shard.name in str(caught.value)
    assert not list((tmp_path / "out").rglob("*.tmp"))


def flip(root):
    shard = min(root.rglob("data-*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink()
    shard.write_bytes(data)
    return shard


def test_verify_looks_at_every_row_first(tmp_path, packed):
    one = shutil.copytree(packed[0], tmp_path / "one")
    flip(one)
    with pytest.raises(StorageError, match="has changed: sha256"):
        packcli.merge([one, packed[1]], tmp_path / "out", verify=True)
    assert packcli.merge([packed[0], packed[1]], tmp_path / "out", verify=True).status == "merged"
    packcli.merge([one, packed[1]], tmp_path / "other")
    assert "has changed: sha256" in verify(tmp_path / "other").problems[0].what


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ({"max_len": 64}, "max_len is 32 in the first, 64 in the other"),
        ({"strategy": "best-fit"}, "strategy"),
        ({"seed": 3}, "seed"),
        ({"columns": "compact"}, "columns"),
        ({"add_eos": False}, "tokenizer.eos"),
        ({"text_template": "{text}!"}, "text.template"),
        ({"val_fraction": 0.0}, "val_fraction"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, packed, tokenizer, setting, place):
    settings = {"tokenizer": tokenizer, "max_len": 32, "unit_bytes": 1024, "workers": 1, "val_fraction": 0.2}
    other = packcli.pack(write_rows(tmp_path / "x.jsonl", words(0, 9)), tmp_path / "other", **settings | setting)
    with pytest.raises(MismatchError, match="cannot be merged with") as caught:
        packcli.merge([packed[0], other.output], tmp_path / "out")
    assert place in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_is_not_whole_is_refused(tmp_path, packed):
    copy = shutil.copytree(packed[1], tmp_path / "copy")
    with pytest.raises(OutputError, match="not an output of packcli"):
        packcli.merge([packed[0], tmp_path / "nothing"], tmp_path / "out")
    shard = max(copy.rglob("data-*.arrow"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-8])
    with pytest.raises(StorageError, match=f"{shard.name}: has .* bytes, had"):
        packcli.merge([packed[0], copy], tmp_path / "out")
    shard.unlink()
    with pytest.raises(StorageError, match="is missing"):
        packcli.merge([packed[0], copy], tmp_path / "out")
    shard.write_bytes(data)
    sidecar = max((copy / "units").iterdir())
    sidecar.write_bytes(sidecar.read_bytes().replace(b'"num_packs": ', b'"num_packs": 1', 1))
    with pytest.raises(StorageError, match=sidecar.name):
        packcli.merge([packed[0], copy], tmp_path / "out")
    (copy / "manifest.json").unlink()
    with pytest.raises(OutputError, match="a run that is not finished"):
        packcli.merge([packed[0], copy], tmp_path / "out")
    with pytest.raises(UsageError, match="nothing to merge"):
        packcli.merge([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_in_an_input_is_refused(tmp_path, packed):
    for inside in (packed[0], packed[0] / "more", packed[0].parent):
        with pytest.raises(OutputError):
            packcli.merge(packed, inside)


def test_the_same_input_twice_is_said_and_right(tmp_path, packed):
    told = []
    again = shutil.copytree(packed[0], tmp_path / "again")
    out = packcli.merge([packed[0], packed[1], again], tmp_path / "out", on_event=told.append).output
    (event,) = told
    assert event.message == f"x.jsonl is an input of {packed[0]} and of {again}: it is there twice"
    verdict = verify(out, deep=True)
    assert (verdict.problems, verdict.num_documents_compared) == ([], 30 + 45 + 30)
    shutil.rmtree(again / ".packcli")  # then only the rows tell
    told.clear()
    packcli.merge([packed[0], packed[1], again], tmp_path / "other", on_event=told.append)
    assert told[0].message.startswith(f"x.jsonl of {again} has the rows of x.jsonl of {packed[0]}")
    assert tree_hash(tmp_path / "other") == tree_hash(out)
    assert packcli.merge(packed, tmp_path / "plain", on_event=told.append)
    assert len(told) == 1 + len(told[1:])


def test_up_to_date_other_list_and_overwrite(tmp_path, packed):
    out = packcli.merge(packed, tmp_path / "out").output
    manifest = out / "manifest.json"
    os.utime(manifest, (1, 1))
    before = tree_hash(out)
    assert packcli.merge(packed, out).status == "up to date"
    assert manifest.stat().st_mtime > 1
    assert tree_hash(out) == before
    with pytest.raises(MismatchError, match="--overwrite"):
        packcli.merge(packed[:2], out)
    assert tree_hash(out) == before
    packcli.merge(packed[:2], out, overwrite=True)
    packcli.merge(packed[:2], tmp_path / "fresh")
    assert tree_hash(out) == tree_hash(tmp_path / "fresh")


def test_damaged_and_foreign_outputs(tmp_path, packed):
    """A plan that cannot be read is another run; an export is not ours to clear."""
    out = packcli.merge(packed[:1], tmp_path / "out").output
    whole = tree_hash(out)
    (out / ".packcli" / "plan.json").write_text("{", encoding="utf-8")
    with pytest.raises(MismatchError, match="plan.json: damaged"):
        packcli.merge(packed[:1], out)
    assert packcli.merge(packed[:1], out, overwrite=True).status == "merged"
    assert tree_hash(out) == whole
    packcli.export(out, "parquet", tmp_path / "exported")
    with pytest.raises(OutputError, match="holds an export"):
        packcli.merge(packed[:1], tmp_path / "exported", overwrite=True)


def test_a_merged_output_is_not_packed_over(tmp_path, packed, tokenizer):
    out = packcli.merge(packed, tmp_path / "out").output
    with pytest.raises(MismatchError):
        packcli.pack(write_rows(tmp_path / "x.jsonl", words(0, 9)), out, tokenizer=tokenizer, workers=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(OutputError, match="nothing in it was touched"):
        packcli.merge(packed, tmp_path / "mine", overwrite=True)
    with Output(out).lock.held(), pytest.raises(LockedError):
        packcli.merge(packed, out)


@pytest.mark.parametrize("stop", [1, 2, 5, 9])
def test_an_interrupted_merge_is_resumed(tmp_path, packed, monkeypatch, stop):
    whole = packcli.merge(packed, tmp_path / "whole").output
    calls = []

    def dying(self, sidecar, commit=Output.commit):
        calls.append(sidecar)
        if len(calls) > stop:
            raise KeyboardInterrupt
        commit(self, sidecar)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Output, "commit", dying)
        packcli.merge(packed, tmp_path / "out")
    with pytest.raises(OutputError):
        read_manifest(tmp_path / "out")
    with pytest.raises(MismatchError):
        packcli.merge(packed[:2], tmp_path / "out")
    report = packcli.merge(packed, tmp_path / "out")
    assert (report.status, report.run["resumed_parts"]) == ("resumed", stop)
    assert tree_hash(tmp_path / "out") == tree_hash(whole)


def test_a_killed_merge_is_resumed(tmp_path, packed):
    """A real process, killed at any moment: the next one gives the tree of a whole run."""
    whole = packcli.merge(packed, tmp_path / "whole").output
    command = [*PACKCLI, "merge", *map(str, packed), "-o", str(tmp_path / "out"), "-q"]
    kills = 0
    for number in range(int(os.environ.get("PACKCLI_KILLS", 2))):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        process = subprocess.Popen(command)
        while process.poll() is None and not (tmp_path / "out" / "units").exists():
            time.sleep(0.002)
        time.sleep(0.004 * (number % 7))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        packcli.merge(packed, tmp_path / "out")
        assert tree_hash(tmp_path / "out") == tree_hash(whole)
    assert kills


def test_an_edited_first_source_is_found(tmp_path, packed):
    """Even with a seal that holds: rows would name other inputs."""
    out = packcli.merge(packed, tmp_path / "out").output
    for path in [max((out / "units").iterdir()), out / "manifest.json"]:
        data = json.loads(path.read_text(encoding="utf-8"))
        for shards in data.get("shards", {}), *data.get("splits", {}).values():
            for shard in shards.values() if isinstance(shards, dict) else shards:
                shard["first_source"] = 0
        del data["sha256"]
        path.write_bytes(sealed_bytes(data))
    assert any("first_source of" in each.what for each in verify(out).problems)


def test_command_line(tmp_path, packed):
    result = run("merge", *packed, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["status"] == "merged"
    assert report["run"]["num_bytes_copied"] == 0
    assert [each["num_documents"] for each in report["sources"]] == [30, 20, 26, 10]
    assert "3 outputs" in result.stderr
    assert run("verify", tmp_path / "out", "-q").exit_code == 0
    assert run("stats", tmp_path / "out", "--recount").exit_code == 0
    assert "3 outputs" in run("stats", tmp_path / "out").stderr
    glob = f"{packed[0].parent}/out[01]"
    assert run("merge", glob, "-o", tmp_path / "two", "-q").exit_code == 0
    assert len(read_report(tmp_path / "two").manifest["merged"]) == 2
    assert run("merge", f"{packed[0].parent}/none*", "-o", tmp_path / "none").exit_code == NoInputError.exit_code
    assert run("merge", packed[0], "-o", tmp_path / "two").exit_code == MismatchError.exit_code
    assert run("merge", packed[0], tmp_path, "-o", tmp_path / "three").exit_code == 2


def test_compact_columns_and_no_sources(tmp_path, tokenizer):
    """Without the column `sources` there is nothing to number."""
    parts = [
        packcli.pack(
            write_rows(tmp_path / f"{number}.jsonl", words(number * 9, 9)),
            tmp_path / f"out{number}",
            tokenizer=tokenizer,
            max_len=32,
            columns="compact",
            workers=1,
        ).output
        for number in range(2)
    ]
    out = packcli.merge(parts, tmp_path / "merged").output
    assert verify(out).problems == []
    rows = [packcli.load(each, row_type="list")[:]["labels"] for each in (*parts, out)]
    assert rows[2] == rows[0] + rows[1]


def test_rejected_rows_are_taken_over(tmp_path, tokenizer):
    """Renumbered with their parts, and together in rejected.jsonl; a member without any makes no difference."""
    outs = []
    for number in range(3):
        path = tmp_path / f"{number}.jsonl"
        rows = [json.dumps({"text": text}) for text in words(number * 40, 40)]
        for row in range(0, 40, 7) if number != 1 else ():
            rows[row] = f"{{broken {number}"
        path.write_text("\n".join(rows) + "\n")
        settings = {"tokenizer": tokenizer, "max_len": 32, "unit_bytes": 1024, "workers": 1}
        out = tmp_path / f"out{number}"
        outs.append(packcli.pack(path, out, on_error="skip", max_bad="50%", **settings).output)
    report = packcli.merge(outs, tmp_path / "merged")
    joined = b"".join((out / "rejected.jsonl").read_bytes() for out in outs if (out / "rejected.jsonl").exists())
    assert (tmp_path / "merged" / "rejected.jsonl").read_bytes() == joined
    assert (report.stats.num_rows_rejected, report.stats.num_rows_read) == (12, 120)
    found = verify(tmp_path / "merged", against=[str(tmp_path / f"{number}.jsonl") for number in range(3)])
    assert found.problems == []
    absent = [(f"{number}.jsonl", row, "rejected: not-json") for number in (0, 2) for row in range(0, 40, 7)]
    assert [(each.source, each.row, each.cause) for each in found.absent] == absent
    assert packcli.merge(outs, tmp_path / "merged").status == "up to date"
    steps = packcli.merge([packcli.merge(outs[:2], tmp_path / "two").output, outs[2]], tmp_path / "steps")
    assert tree_hash(steps.output) == tree_hash(tmp_path / "merged")
    first = min((tmp_path / "merged" / "units").glob("*.rejected.jsonl"))
    first.unlink()
    assert packcli.merge(outs, tmp_path / "merged").status == "resumed"
    assert tree_hash(steps.output) == tree_hash(tmp_path / "merged")
    with pytest.raises(MismatchError, match="max_line_bytes"):
        other = packcli.pack(tmp_path / "1.jsonl", tmp_path / "o", on_error="skip", max_line_bytes=9999, **settings)
        packcli.merge([outs[0], other.output], tmp_path / "no")


def test_samples_of_members_of_several_parts_are_compared(tmp_path, tokenizer):
    """Parts name inputs as their member did; verify must find them all the same."""
    outs = []
    for number in range(2):
        path = tmp_path / f"{number}.jsonl.gz"
        rows = "".join(json.dumps({"text": text}) + "\n" for text in words(number * 400, 400))
        path.write_bytes(gzip.compress(rows.encode(), mtime=0))
        settings = {"tokenizer": tokenizer, "max_len": 96, "unit_bytes": 4096, "workers": 1, "strategy": "best-fit"}
        outs.append(packcli.pack(path, tmp_path / f"out{number}", val_fraction=0.1, **settings))
    assert all(each.stats.num_parts > 1 for each in outs)
    packcli.merge([each.output for each in outs], tmp_path / "merged")
    assert verify(tmp_path / "merged", deep=True).problems == []
    for sample in range(1, 8):
        found = verify(tmp_path / "merged", sample=(sample, 7), against=[str(tmp_path / "*.gz")])
        assert (found.problems, found.absent) == ([], [])


def test_what_is_in_an_object_store_is_not_merged(tmp_path, packed):
    for directories, output in ((["s3://bucket/one", packed[0]], tmp_path / "out"), (packed, "s3://bucket/out")):
        with pytest.raises(UsageError, match="s3://bucket.*only directories can be merged"):
            packcli.merge(directories, output)
