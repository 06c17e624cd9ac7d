"""Which engine works, and what workers on other machines must see. Ray itself is in tests/integrations/ray."""

import importlib.util
import os
import re
import shutil

import pytest
from helpers import SAMPLE, tree_hash

import packcli
from packcli import errors
from packcli.config import RunOptions
from packcli.pipeline import Job, Progress, engines, finish, prepare
from packcli.pipeline.engines import NodeRequirements, RequiredFile, cluster_check, open_executor
from packcli.pipeline.engines.base import merged
from packcli.pipeline.engines.cluster_check import MOST_FILES, PACKAGES, sees
from packcli.readers import find_sources


def chosen(num_units, **options):
    with open_executor(RunOptions(**options), num_units, cpus=4, requirements=None, warn=None) as executor:
        return executor.engine, executor.workers, executor.threads


def test_the_executor_for_a_number_of_units():
    """Few units would leave cores idle, and none would start Ray for nothing."""
    assert chosen(1) == ("serial", 1, 4)
    assert chosen(2) == ("processes", 2, 2)
    assert chosen(9) == ("processes", 4, 1)
    assert chosen(9, workers=1) == ("serial", 1, 1)
    assert chosen(9, engine="serial") == ("serial", 1, 4)
    assert chosen(1, engine="processes") == ("processes", 1, 4)
    assert chosen(0, engine="ray") == ("serial", 1, 4)


def test_every_engine_gives_the_same_bytes(tmp_path, tokenizer_dir):
    settings = {"max_len": 256, "unit_bytes": 60_000, "tokenizer": str(tokenizer_dir), "workers": 2}
    reports = {
        engine: packcli.pack(SAMPLE, tmp_path / engine, engine=engine, **settings) for engine in ("serial", "processes")
    }
    assert {name: (each.run["engine"], each.run["workers"]) for name, each in reports.items()} == {
        "serial": ("serial", 1),
        "processes": ("processes", 2),
    }
    assert len({tree_hash(each.output) for each in reports.values()}) == 1


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.UsageError) as caught:
        packcli.pack(SAMPLE, tmp_path / "out", engine="ray")
    assert caught.value.hint == "pip install 'packcli[ray]'"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".packcli"], "the run has not begun"
    assert packcli.pack(SAMPLE, tmp_path / "out", max_len=64, engine="serial").status == "packed"


def test_a_worker_that_dies_beside_the_units_is_told(tmp_path, tokenizer_dir, monkeypatch):
    """Rows are counted, and sidecars read, by the same engine: a traceback would say nothing of memory."""

    def lose(work, items, *, workers, emit):
        raise engines.LostWorkerError(next(iter(items)))
        yield

    out = packcli.pack(SAMPLE, tmp_path / "out", tokenizer=str(tokenizer_dir), unit_bytes=60_000, workers=1).output
    monkeypatch.setitem(engines.LOCAL_ENGINES, "processes", lose)
    monkeypatch.setattr(finish, "RANGE_UNITS", 2)
    with pytest.raises(errors.PackcliError, match="died 3 times over the sidecars of units 0 to 1, perhaps"):
        finish.collect(out, 4, workers=2)
    monkeypatch.setattr(prepare, "ALONE_BYTES", 1)
    paths = [str(shutil.copy(SAMPLE, tmp_path / name)) for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(errors.PackcliError, match=r"died 3 times over a\.jsonl, perhaps"):
        prepare.cut_units(find_sources(paths, []), 60_000, 2)


# --- what every node must see ---


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_check, "PATIENCE_S", 0.0)
    (tmp_path / "state").mkdir()
    (tmp_path / "data.jsonl").write_text("rows\n")
    return tmp_path


def test_a_node_that_sees_all_has_no_problem_and_leaves_a_file_that_is_taken_away(here):
    sha256 = "a97b3ee61eb26dc08d4b1c3a48e16cd7d0d2a1f2b4d4f2ac1a5a3a3a3a3a3a3a"
    files = [RequiredFile(str(here / "data.jsonl"), 5), RequiredFile("s3://bucket/rows.jsonl", 7)]
    with NodeRequirements.of(here / "state", files).marked() as marked:
        seen = marked.look(write=True)
        assert seen.problems == ()
        assert sees(marked.folder, seen.wrote, marked.mark)
        assert not sees(marked.folder, seen.wrote, "another")
        assert marked.look().wrote is None
        assert len(list((here / "state").iterdir())) == 2
        wrong = NodeRequirements.of(here / "state", [RequiredFile(str(here / "data.jsonl"), 5, sha256)]).look()
        assert [problem.endswith("holds something else there") for problem in wrong.problems] == [True]
    assert list((here / "state").iterdir()) == []


def test_a_node_that_sees_something_else_says_what(here, monkeypatch):
    """Its shards would go to a disk of its own, or hold other rows."""
    files = [RequiredFile(str(here / "data.jsonl"), 6), RequiredFile(str(here / "gone.jsonl"), 1)]
    with NodeRequirements.of(here / "state", files).marked() as marked:
        (here / "state" / marked.mark).unlink()
        monkeypatch.setattr(cluster_check, "versions", lambda: tuple((name, "9") for name, _ in marked.versions))
        seen = marked.look(write=True)
    assert seen.wrote is None
    said = "\n".join(seen.problems)
    for name in ("Python", *PACKAGES):
        assert re.search(rf"^{name} is 9 there and [\w.]+ here$", said, re.MULTILINE)
    assert f"it does not see the output: {here / 'state'}" in said
    assert "data.jsonl has 5 bytes there and 6 here" in said
    assert re.search(r"cannot read .*gone\.jsonl: No such file", said)
    assert len(seen.problems) == 8


def test_a_directory_of_the_same_name_is_not_the_same_directory(here):
    with NodeRequirements.of(here / "state", []).marked() as marked:
        (here / "state" / marked.mark).write_text("ray-of-another")
        assert "another directory" in marked.look(write=True).problems[0]


def test_of_many_inputs_some_from_everywhere_are_looked_for():
    """A million of them, on a thousand nodes, would be a billion questions to the file system."""
    files = [RequiredFile(f"/data/{number:06d}.jsonl", 1) for number in range(1000)]
    looked = NodeRequirements.of("/out", files).files
    assert len(looked) == MOST_FILES
    assert looked[0] == files[0]
    assert int(looked[-1].path[-12:-6]) > 960


def test_an_output_in_an_object_store_is_seen_by_everybody():
    with NodeRequirements.of("s3://bucket/out", []).marked() as marked:
        assert (marked.folder, marked.mark, marked.look(write=True).problems) == ("s3://bucket/out", "", ())


# --- what travels ---


def test_events_are_added_up():
    """A long unit gives a million of them; what travels must not grow with it."""
    events = []
    for event in (Progress(1, 2), Progress(3, 4), "a word", "another", Progress(5, 6), Progress(7, 8)):
        events = merged(events, event)
    assert events == [Progress(4, 6), "a wordanother", Progress(12, 14)]
    assert merged([object], None) == [object, None]


def test_a_job_for_other_machines_has_absolute_paths(tmp_path, tokenizer_dir, monkeypatch):
    """A worker has another current directory: it would write there."""
    jobs = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("packcli.pipeline.workers.run_unit", lambda job, unit, emit: jobs.append(job) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packcli.pack(SAMPLE, "out", tokenizer=os.path.relpath(tokenizer_dir), engine="serial")
    (job,) = jobs
    assert isinstance(job, Job)
    there = job.anywhere()
    assert str(there.root) == str(tmp_path / "out")
    assert there.recipe.tokenizer.path == str(tokenizer_dir / "tokenizer.json")
    assert all(os.path.isabs(source.path) for source in there.recipe.sources)
    assert there.anywhere() == there
