"""Ranks share out the units of one output: the bytes are those of one process, whoever dies, comes twice, or moves."""

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from helpers import PACKCLI, SAMPLE, big_input, tree_hash
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from packcli import cli, errors
from packcli.api.units import find_rank
from packcli.cli.exit import InterruptedRunError
from packcli.dataset import Output
from packcli.pipeline import ranks
from packcli.pipeline.ranks import status
from packcli.pipeline.ranks.plan import read_plan
from packcli.pipeline.ranks.run import _Share
from packcli.storage import SILENCE_S, Heartbeat, heartbeats, read_heartbeat

run = importlib.import_module("packcli.pipeline.ranks.run")

KILLS = int(os.environ.get("PACKCLI_RANK_KILLS", "3"))
"""SIGKILLs of ranks; `make stress` asks for 20 and more."""

SETTINGS = ["--unit-bytes", "60kB", "--strategy", "best-fit", "--max-len", "256", "--val-fraction", "0.2"]


def told(*arguments, code=0):
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result


def start(*arguments):
    return subprocess.Popen([*PACKCLI, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return big_input(tmp_path_factory.mktemp("input") / "big.jsonl", copies=3)


@pytest.fixture(scope="module")
def settings(tokenizer_dir):
    return [*SETTINGS, "--tokenizer", tokenizer_dir]


@pytest.fixture(scope="module")
def whole(source, settings, tmp_path_factory):
    """The tree of one process."""
    output = tmp_path_factory.mktemp("whole") / "out"
    told("pack", source, "-o", output, *settings, "-w", 1, "-q")
    assert len(list(output.glob("units/*.json"))) > 10
    return tree_hash(output)


@pytest.fixture(scope="module")
def plan(source, settings, tmp_path_factory):
    output = tmp_path_factory.mktemp("plan") / "out"
    told("units", "plan", source, "-o", output, *settings, "-q")
    return output


@pytest.fixture
def planned(tmp_path, plan):
    return shutil.copytree(plan, tmp_path / "out")


def test_three_ranks_in_processes_of_their_own_give_the_bytes_of_one_process(planned, whole):
    """Side by side on one output, one of them with two workers, one of them twice at once."""
    calls = [(0, 1), (1, 2), (2, 1), (2, 1)]
    running = [start("units", "run", planned, "--rank", rank, "--world-size", 3, "-w", w, "-q") for rank, w in calls]
    assert [process.communicate()[1] for process in running] == [""] * 4
    found = status(planned)
    assert (found.state, found.num_units_done, found.ranks) == ("complete", found.num_units, [])
    finishing = [start("units", "finish", planned, "-q") for _ in range(2)]  # one wins, or both, one after the other
    said = [process.communicate()[1] for process in finishing]
    codes = [process.returncode for process in finishing]
    assert 0 in codes
    assert set(codes) <= {0, 5}, said
    assert tree_hash(planned) == whole
    assert status(planned).state == "finished"
    assert told("verify", planned, "--deep").exit_code == 0


def test_ranks_that_are_killed_at_random_and_started_again_give_the_same_bytes(planned, whole):
    """Whatever a rank leaves half done must be done again, and nothing of it may stay."""
    moments = random.Random(0)
    for kill in range(KILLS):
        rank = kill % 3
        before = len(list(planned.glob("units/[!.]*.json")))
        process = start("units", "run", planned, "--rank", rank, "--world-size", 3, "-w", 1 + kill % 2, "-q")
        while process.poll() is None and len(list(planned.glob("units/[!.]*.json"))) == before and kill % 4:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.communicate()
        if status(planned).state == "complete":
            shutil.rmtree(planned / "units")  # there must be something left to be killed over
            (planned / "units").mkdir()
    for rank in range(3):
        ranks.run(planned, rank, 3, workers=1)
    assert status(planned).ranks == []  # of the dead, no note is left
    ranks.finish(planned, workers=1)
    assert tree_hash(planned) == whole
    assert not [path for path in planned.rglob("*") if path.name.endswith(".tmp")]


def test_pack_goes_on_with_what_ranks_began_and_ranks_with_what_pack_began(planned, source, settings, whole, tmp_path):
    ranks.run(planned, 1, 2, workers=1)
    result = told("pack", source, "-o", planned, *settings, "-w", 1, "--json", "-q")
    assert json.loads(result.stdout)["status"] == "resumed"
    assert tree_hash(planned) == whole
    other = tmp_path / "other"
    shutil.copytree(planned, other)
    (other / "manifest.json").unlink()
    for name in ("00003-000", "00004-000"):
        (other / "units" / f"{name}.json").unlink()
    told("units", "plan", source, "-o", other, *settings, "-q")
    assert ranks.run(other, 0, 1, workers=1).num_units_done == 2
    assert ranks.finish(other).status == "finished"
    assert ranks.finish(other).status == "up to date"
    assert tree_hash(other) == whole


def test_a_rank_needs_nothing_but_the_directory_and_its_inputs_wherever_they_are(
    tmp_path, source, settings, whole, tokenizer_dir
):
    """Tokenizer gone, packcli.toml elsewhere, inputs copied to this machine: --input-root says where."""
    place, directory = tmp_path / "there", tmp_path / tokenizer_dir.name
    shutil.copytree(tokenizer_dir, directory)
    place.mkdir()
    shutil.copy(source, place / source.name)
    output = tmp_path / "out"
    told("units", "plan", place, "-o", output, *settings[:-1], directory, "-q")
    shutil.rmtree(directory)
    ranks.run(output, 0, 2, workers=1)
    moved = tmp_path / "here"
    place.rename(moved)
    result = told("units", "run", output, "--rank", 1, "--world-size", 2, code=6)
    assert "--input-root says where the inputs are" in result.output
    told("units", "run", output, "--rank", 1, "--world-size", 2, "--input-root", moved, "-w", 1)
    ranks.finish(output)
    assert tree_hash(output) == whole  # names of tokenizer and input are the same


def test_finish_is_refused_while_a_rank_runs_and_while_units_are_left(planned):
    """To sweep beside a living rank would take its half-written files away."""
    result = told("units", "finish", planned, code=3)
    assert "units are not done" in result.output
    assert "packcli units run --rank 0 --world-size 1" in result.output
    ranks.run(planned, 0, 1, workers=1)
    with Output(planned).lock.join_as_rank(4, 16, state="running"):
        for verb in (("units", "finish", planned), ("units", "plan", SAMPLE, "-o", planned, "--overwrite")):
            result = told(*verb, code=5)
            assert "a rank still runs there: rank 4 of 16" in result.output
        result = told("pack", SAMPLE, "-o", planned, "--overwrite", code=5)
    told("units", "finish", planned)


def test_a_rank_is_refused_beside_pack_plan_and_finish(planned):
    with Output(planned).lock.held():
        result = told("units", "run", planned, "--rank", 0, "--world-size", 2, code=5)
    assert "another packcli works there alone now" in result.output
    assert status(planned).ranks == []  # it never began


def test_a_living_rank_and_its_half_written_files_are_left_alone(planned, monkeypatch):
    """A rank that fails sweeps only when nobody else could be writing."""
    mine = planned / ".data-00000-000.arrow.1.0123456789ab.tmp"
    mine.write_bytes(b"x")
    monkeypatch.setattr(run, "read_unit", lambda *arguments: 1 / 0)
    with Output(planned).lock.join_as_rank(1, 2, state="running"), pytest.raises(ZeroDivisionError):
        ranks.run(planned, 0, 2)
    assert mine.exists()
    with pytest.raises(ZeroDivisionError):
        ranks.run(planned, 0, 2)
    assert not mine.exists()
    (failed,) = status(planned).ranks
    assert (failed.state, failed.rank, failed.error) == ("failed", 0, "ZeroDivisionError: division by zero")


def test_what_went_wrong_is_shown_until_the_rank_is_run_again(planned, source):
    """A thousand ranks: nobody reads a thousand logs."""
    lines = source.read_bytes().splitlines(keepends=True)
    bad = lines[-1][:-3].ljust(len(lines[-1]) - 1) + b"\n"
    source.write_bytes(b"".join([*lines[:-1], bad]))
    try:
        last = (status(planned).num_units - 1) % 2  # whose unit the last row is in
        told("units", "run", planned, "--rank", 1 - last, "--world-size", 2, "-w", 1)
        told("units", "run", planned, "--rank", last, "--world-size", 2, "-w", 1, code=4)
        shown = told("units", "status", planned)
        assert "1 failed" in shown.output
        assert "big.jsonl:900" in shown.output
        found = json.loads(told("units", "status", planned, "--json").stdout)
        assert (found["state"], found["num_units_done"]) == ("stopped", found["num_units"] - 1)
        assert "big.jsonl:900" in found["ranks"][0]["error"]
    finally:
        source.write_bytes(b"".join(lines))
    told("units", "run", planned, "--rank", 0, "--world-size", 1, "-w", 1)  # another share: it is made good
    assert status(planned).ranks == []
    told("units", "finish", planned)


def test_a_rank_that_dies_is_seen(planned):
    """It cannot say so itself."""
    process = start("units", "run", planned, "--rank", 0, "--world-size", 1, "-w", 1, "-q")
    while not list(planned.glob("units/[!.]*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    (found,) = status(planned).ranks
    assert (found.state, found.pid) == ("running", process.pid)
    process.kill()
    process.communicate()
    found = status(planned)
    assert (found.state, found.ranks[0].state, found.ranks[0].error) == ("stopped", "died", None)


def test_a_rank_that_is_interrupted_says_so(planned, monkeypatch):
    """Preempted by the scheduler, that is: nothing is wrong, it is to be run again."""

    def interrupt(*arguments):
        raise InterruptedRunError(signal.SIGTERM)

    monkeypatch.setattr(run, "refuse_changed_rows", interrupt)
    with pytest.raises(InterruptedRunError):
        ranks.run(planned, 1, 2)
    (found,) = status(planned).ranks
    assert (found.state, found.error) == ("failed", "interrupted by signal 15")


def test_an_output_that_was_begun_anew_gets_nothing_from_an_old_rank(planned):
    """Its shard would have the name of another's."""
    share = _Share(Output(planned), read_plan(Output(planned), slice(0, 2)), lambda event: None)
    plan = planned / ".packcli" / "plan.json"
    text = plan.read_bytes()
    plan.unlink()
    plan.write_bytes(text)
    os.utime(plan, ns=(1, 1))
    with pytest.raises(errors.MismatchError, match="begun anew"):
        list(share._hand_out(share._rank_plan.spec.units))


def test_inputs_and_plans_that_are_not_those_of_the_plan_are_refused(tmp_path, source, settings):
    copy = tmp_path / "big.jsonl"
    shutil.copy(source, copy)
    output = tmp_path / "out"
    told("units", "plan", copy, "-o", output, *settings)
    ranks.run(output, 0, 2, workers=1)
    text = copy.read_bytes()
    copy.write_bytes(text + text[: text.index(b"\n") + 1])
    assert "bytes, and had" in told("units", "run", output, "--rank", 1, "--world-size", 2, code=3).output
    copy.write_bytes(text.replace(b"a", b"b", 1))  # the same size: the rows of unit 0 are compared
    assert "was made from other rows" in told("units", "run", output, "--rank", 0, "--world-size", 2, code=3).output
    copy.write_bytes(text)
    state = output / ".packcli"
    tokenizer = (state / "tokenizer.json").read_bytes()
    (state / "tokenizer.json").write_bytes(tokenizer[:-1])
    assert "not the tokenizer of the run" in told("units", "run", output, "--rank", 1, "--world-size", 2, code=6).output
    (state / "tokenizer.json").write_bytes(tokenizer)
    (state / "job.json").write_text("{}")
    assert "damaged" in told("units", "run", output, "--rank", 1, "--world-size", 2, code=2).output
    (state / "job.json").unlink()
    assert "no plan for ranks" in told("units", "run", output, "--rank", 1, "--world-size", 2, code=2).output
    assert "not an output" in told("units", "finish", tmp_path / "nowhere", code=2).output
    assert not (tmp_path / "nowhere").exists()
    assert "no run was begun" in told("units", "status", tmp_path, code=2).output
    assert "standard input" in told("units", "plan", "-", "-o", tmp_path / "new", code=2).output


@pytest.mark.parametrize(
    ("given_", "environment", "expected"),
    [
        ((3, 8), {}, (3, 8)),
        ((3, 8), {"SLURM_ARRAY_TASK_ID": "5"}, (3, 8)),
        ((None, 8), {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "4"}, (5, 8)),
        ((None, 8), {"JOB_COMPLETION_INDEX": "0"}, (0, 8)),
        (
            (None, None),
            dict(zip(["SLURM_ARRAY_TASK_" + x for x in ("ID", "COUNT", "MIN", "MAX")], "4414", strict=True)),
            (3, 4),
        ),
        (
            (None, None),
            dict(zip(["SLURM_ARRAY_TASK_" + x for x in ("ID", "COUNT", "MIN", "MAX")], "4214", strict=True)),
            None,
        ),
        ((None, None), {"JOB_COMPLETION_INDEX": "0"}, None),
        ((None, 8), {}, None),
        ((None, 8), {"SLURM_ARRAY_TASK_ID": "x"}, None),
        ((2, None), {}, None),
    ],
)
def test_the_rank_as_schedulers_tell_it(given_, environment, expected):
    """A wrong guess would leave units undone without a word."""
    if expected is None:
        with pytest.raises(errors.UsageError):
            find_rank(*given_, environment)
    else:
        assert find_rank(*given_, environment) == expected


def test_a_rank_out_of_range_is_refused(planned):
    assert "--rank 2 is not in 0..1" in told("units", "run", planned, "--rank", 2, "--world-size", 2, code=2).output


def test_notes_tell_the_living_from_the_dead(tmp_path):
    """On this machine by the process, from another by silence; clocks of machines do not matter."""
    path = tmp_path / "note.json"
    with Heartbeat(path, {"rank": 1}) as note:
        assert read_heartbeat(path, note.now).is_alive
        (tmp_path / "other.json").write_text(json.dumps({**note.facts, "place": "elsewhere/b/c", "pid": 1}))
        made = (tmp_path / "other.json").stat().st_mtime
        assert read_heartbeat(tmp_path / "other.json", made + SILENCE_S - 1).is_alive
        assert not read_heartbeat(tmp_path / "other.json", made + SILENCE_S + 1).is_alive
        for lie in ({"born": "1"}, {"pid": 2**22 + 1}, {"place": f"{note.facts['place'].split('/')[0]}/boot/x"}):
            path.with_name("lie.json").write_text(json.dumps({**note.facts, **lie}))
            if note.facts["place"]:  # only Linux tells
                assert not read_heartbeat(path.with_name("lie.json"), note.now).is_alive
    assert read_heartbeat(path, 0.0) is None
    path.write_text("[")
    assert read_heartbeat(path, 0.0) is None


def test_a_note_is_touched_while_its_process_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeats, "TOUCH_S", 0.01)
    with Heartbeat(tmp_path / "note.json") as note:
        os.utime(note.path, (1, 1))
        deadline = time.monotonic() + 30
        while note.path.stat().st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@given(st.integers(0, 40), st.integers(1, 12))
def test_every_unit_has_one_rank(num_units, world_size):
    shares = [range(num_units)[rank::world_size] for rank in range(world_size)]
    assert sorted(unit for share in shares for unit in share) == list(range(num_units))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_the_plan_is_read_back_as_it_was(tmp_path, tokenizer_dir):
    """Chats: a template, a mask, fields that may be absent; a tuple that came back as a list would be another job."""
    chats, output, other = SAMPLE.parent / "chat.jsonl", tmp_path / "out", tmp_path / "other"
    settings = ["--unit-bytes", "16kB", "--tokenizer", tokenizer_dir, "--chat-template", "chatml", "-q"]
    told("units", "plan", chats, "-o", output, *settings)
    ranks.run(output, 0, 1, workers=1)
    ranks.finish(output)
    told("pack", chats, "-o", other, "-w", 1, *settings)
    assert tree_hash(output) == tree_hash(other)
    planned = read_plan(Output(output), slice(1, None, 2))
    assert [unit.index for unit in planned.spec.units] == list(range(1, planned.spec.run["num_units"], 2))
    assert isinstance(planned.spec.fields.optional, frozenset)
    assert hash((planned.spec.fields, planned.spec.tokenizer, tuple(planned.spec.units)))
    assert 0 < sum(planned.sizes) < chats.stat().st_size
    assert planned.tokenizer_path == str(tokenizer_dir / "tokenizer.json")
