"""What goes wrong around a run: two writers, another run, signals, closed pipes, full disks, dying workers."""

import errno
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import PACKCLI, SAMPLE, big_input, die_over, members, tree_hash

import packcli
from packcli import errors, pipeline, tokenization
from packcli.dataset import Output, shards
from packcli.pipeline import engines
from packcli.pipeline import run as pipeline_run
from packcli.storage import look_for_room, space
from packcli.verification import verify

fingerprint = importlib.import_module("packcli.dataset.fingerprint")

STARTS = int(os.environ.get("PACKCLI_STARTS", "3"))
"""Simultaneous starts on one output; `make stress` asks for 50."""


@pytest.fixture
def pack(tokenizer_dir):
    def run(output, inputs=SAMPLE, **settings):
        settings = {
            "max_len": 256,
            "workers": 1,
            "unit_bytes": 50_000,
            "tokenizer": str(tokenizer_dir),
            "tokenizer_engine": "tokenizers",
            **settings,
        }
        return packcli.pack(inputs, output, **settings)

    return run


def start(*arguments, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([*PACKCLI, *map(str, arguments)], **options)


def finish(*arguments, **options):
    """(exit code, what it said on stderr)"""
    process = start(*arguments, **options)
    said = process.communicate()[1]
    return process.returncode, said


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- one writer at a time ---


def test_of_simultaneous_starts_exactly_one_runs(tmp_path):
    """Two writers would mix the rows of two runs. Whoever has the lock waits for its standard input."""
    output = tmp_path / "out"
    running = [start("pack", "-", "-o", output, "-w", 1, stdin=subprocess.PIPE) for _ in range(STARTS)]
    deadline = time.monotonic() + 10 + 2 * STARTS
    while len([each for each in running if each.poll() is None]) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (owner,) = (each for each in running if each.poll() is None)
    for each in running:
        if each is not owner:
            said = each.communicate()[1]
            assert each.returncode == 5, said
            assert re.search(rf"another packcli writes there now \(process {owner.pid} on \S+, since 20\d\d-", said), (
                said
            )
    assert owner.communicate('{"text": "a document"}\n')[1].count("documents") >= 1
    assert owner.returncode == 0
    assert not (output / ".packcli" / "owner.json").exists()


def test_a_locked_output_is_refused_at_once_and_a_dead_owner_has_no_lock(tmp_path, pack, monkeypatch):
    """Not after a look at terabytes of input; and nobody should have to remove a lock file."""
    output = tmp_path / "out"
    owner = start("pack", "-", "-o", output, stdin=subprocess.PIPE)
    wait_for((output / ".packcli" / "owner.json").is_file, owner)
    with monkeypatch.context() as patch:
        patch.setattr(tokenization, "find_tokenizer", None)
        began = time.monotonic()
        with pytest.raises(errors.LockedError, match=rf"process {owner.pid} on "):
            pack(output)
        assert time.monotonic() - began < 1
    owner.kill()
    owner.communicate()
    assert (output / ".packcli" / "owner.json").is_file()
    assert pack(output).status == "packed"


def test_an_owner_that_nobody_can_read_is_no_other_error(tmp_path):
    output = Output(tmp_path)
    with output.lock.held():
        for text in ("", "[]", '{"pid": "x"}', "\udcff"):
            (tmp_path / ".packcli" / "owner.json").write_text(text, errors="surrogateescape")
            with pytest.raises(errors.LockedError, match="writes there now\n"):
                output.lock.refuse()
    output.lock.refuse()


# --- another run ---


@pytest.fixture
def unfinished(tmp_path, pack, monkeypatch):
    """An output with two units of six, and whether a run can be made to stop after two."""
    done = []
    commit = Output.commit

    def stop_after_two(self, sidecar):
        commit(self, sidecar)
        done.append(sidecar)
        if len(done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Output, "commit", stop_after_two)
        pack(tmp_path / "out")
    assert len(list((tmp_path / "out" / "units").iterdir())) == 2
    return tmp_path / "out"


def test_restart_begins_an_unfinished_output_anew(tmp_path, pack, unfinished):
    with pytest.raises(errors.MismatchError, match="max_len was 256, now it is 128") as caught:
        pack(unfinished, max_len=128)
    assert "--restart" in caught.value.hint
    assert "--overwrite" not in caught.value.hint
    assert pack(unfinished, max_len=128, restart=True).status == "packed"
    assert tree_hash(unfinished) == tree_hash(pack(tmp_path / "other", max_len=128).output)


def test_restart_trusts_nothing_that_is_there(pack, unfinished):
    """For whoever fears that a disk has damaged it: also a run of the same settings begins anew."""
    shard = unfinished / "data-00000-000.arrow"
    data = bytearray(shard.read_bytes())
    data[-20] ^= 1
    shard.write_bytes(data)
    assert pack(unfinished, restart=True).run["resumed_parts"] == 0
    assert verify(unfinished).problems == []


def test_restart_leaves_a_finished_output_alone(tmp_path, pack):
    pack(tmp_path / "out")
    before = tree_hash(tmp_path / "out")
    assert pack(tmp_path / "out", restart=True).status == "up to date"
    with pytest.raises(errors.MismatchError) as caught:
        pack(tmp_path / "out", restart=True, max_len=128)
    assert "--overwrite" in caught.value.hint
    assert tree_hash(tmp_path / "out") == before


@pytest.mark.parametrize("how", ["overwrite", "restart"])
def test_neither_touches_what_is_not_ours(tmp_path, pack, unfinished, how):
    """A thesis beside the shards, or in a directory that is called like one of ours."""
    kept = [unfinished / "thesis.tex", unfinished / "train" / "model.bin", unfinished / "units" / "notes.txt"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")
    pack(unfinished, max_len=128, **{how: True})
    assert [path.read_text() for path in kept] == ["precious"] * 3


def test_a_directory_with_our_lock_alone_is_not_ours(tmp_path, pack):
    """A run that failed before it began leaves .packcli; what somebody puts beside it later is theirs."""
    (tmp_path / "out" / ".packcli").mkdir(parents=True)
    (tmp_path / "out" / "README.md").write_text("precious")
    for settings in ({}, {"overwrite": True}, {"restart": True}):
        with pytest.raises(errors.OutputError, match="not an output of packcli"):
            pack(tmp_path / "out", **settings)
    assert (tmp_path / "out" / "README.md").read_text() == "precious"
    (tmp_path / "out" / "README.md").unlink()
    assert pack(tmp_path / "out").status == "packed"


def test_another_format_version_is_refused(tmp_path, pack, monkeypatch):
    pack(tmp_path / "out")
    monkeypatch.setattr(fingerprint, "FORMAT_VERSION", 99)
    with pytest.raises(errors.MismatchError, match="format_version was 3, now it is 99"):
        pack(tmp_path / "out")


def test_another_tokenizer_is_refused(tmp_path, pack, tokenizer_dir):
    shutil.copytree(tokenizer_dir, tmp_path / "model")
    pack(tmp_path / "out", tokenizer=str(tmp_path / "model"))
    path = tmp_path / "model" / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(errors.MismatchError, match=r'tokenizer.sha256 was "\w{64}", now it is "\w{64}"'):
        pack(tmp_path / "out", tokenizer=str(tmp_path / "model"))


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"fingerprint": 3}', b"\xff", b"[" * 100_000, b"3"])
def test_a_damaged_plan_can_be_overwritten(tmp_path, pack, damage):
    pack(tmp_path / "out")
    expected = tree_hash(tmp_path / "out")
    (tmp_path / "out" / ".packcli" / "plan.json").write_bytes(damage)
    with pytest.raises(errors.MismatchError, match=r"plan\.json: damaged|belongs to another run"):
        pack(tmp_path / "out")
    assert pack(tmp_path / "out", overwrite=True).status == "packed"
    assert tree_hash(tmp_path / "out") == expected


def test_a_damaged_sidecar_is_done_again(tmp_path, pack):
    """Its counts would go into the report."""
    pack(tmp_path / "out")
    expected = tree_hash(tmp_path / "out")
    sidecar = tmp_path / "out" / "units" / "00001-000.json"
    whole = sidecar.read_bytes()
    for damage in (
        b"",
        b"[]",
        whole[:100],
        whole.replace(b'"num_documents": ', b'"num_documents": 1', 1),
        b"[" * 100_000,
    ):
        sidecar.write_bytes(damage)
        assert pack(tmp_path / "out").status == "resumed"
        assert tree_hash(tmp_path / "out") == expected


@pytest.mark.parametrize(
    "spelling", ["{out}/data-00000-000.arrow", "{out}/../out/data-00000-000.arrow", "{link}/x.jsonl"]
)
def test_an_input_inside_the_output_is_refused(tmp_path, pack, spelling):
    """--overwrite would remove its own input."""
    out = pack(tmp_path / "out").output
    (out / "x.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "link").symlink_to(out)
    before = tree_hash(out)
    for settings in ({}, {"overwrite": True}):
        with pytest.raises(errors.OutputError, match="is an input, and lies in the output"):
            pack(out, spelling.format(out=out, link=tmp_path / "link"), **settings)
    assert tree_hash(out) == before


def test_an_output_inside_the_input_is_no_input(tmp_path, pack):
    (tmp_path / "in").mkdir()
    shutil.copy(SAMPLE, tmp_path / "in" / "docs.jsonl")
    one = pack(tmp_path / "in" / "packed", tmp_path / "in")
    assert pack(tmp_path / "in" / "packed", tmp_path / "in").status == "up to date"
    assert one.stats.num_documents == 300


# --- signals ---

SIGNALLED = """
import sys, threading, time, hashlib
from packcli.cli import exit as signals
signals.GRACE_S = 0.3
what = sys.argv[1]
with signals.caught(lambda: print("last words", flush=True)):
    threading.Timer(0.2, lambda: print("ready", flush=True)).start()
    try:
        if what == "library":  # works on for long, and lets other threads run
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        if what == "cleaning":
            signals.GRACE_S = 60
            time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("what", ["sleeping", "library", "cleaning"])
def test_signals_end_a_process_in_time(what, number, code):
    """A library may not come back for minutes; and who presses Ctrl-C twice does not want to wait."""
    child = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    began = time.monotonic()
    child.send_signal(number)
    if what == "library":
        assert child.stdout.readline() == "last words\n"
    else:
        assert child.stdout.readline() == "cleaning\n"
    if what == "cleaning":
        time.sleep(0.1)
        assert child.poll() is None
        child.send_signal(number)
    said = child.communicate(timeout=10)[1]
    assert time.monotonic() - began < 3
    if what == "sleeping":
        assert "InterruptedRunError" in said
    else:
        assert child.returncode == code


def test_after_a_signal_no_temporary_file_and_no_worker_is_left(tmp_path):
    """And the line that is printed is the command that resumes."""
    big_input(tmp_path / "big file.jsonl")
    command = ["pack", "big file.jsonl", "-w", "2", "--unit-bytes", "200kB", "-q"]
    process = start(*command, cwd=tmp_path, start_new_session=True)
    units = tmp_path / "big file-packed" / "units"
    wait_for(lambda: units.is_dir() and any(units.glob("*.json")), process)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it too
    said = process.communicate(timeout=20)[1]
    assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert said == f"interrupted: committed units are kept, resume with: packcli {' '.join(command)}\n".replace(
        "big file.jsonl", "'big file.jsonl'"
    )
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    began = time.monotonic()
    while members(process.pid):
        assert time.monotonic() - began < 2, members(process.pid)
        time.sleep(0.02)


# --- pipes ---


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_is_no_error_of_ours(tmp_path, pack, stream):
    """`packcli stats --json out | head -1` and `packcli pack ... 2>&1 | head -1`."""
    pack(tmp_path / "out")
    arguments = ["stats", tmp_path / "out", *(["--json"] if stream == "stdout" else [])]
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*arguments, **{stream: writing})
    os.close(writing)
    out, err = process.communicate()
    assert process.returncode == 141, (out, err)
    assert not out
    assert not err


# --- disks ---


def test_what_cannot_fit_is_refused_before_the_work(tmp_path, pack, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    needed = []
    look = look_for_room
    monkeypatch.setattr(pipeline_run, "look_for_room", lambda root, size: needed.append(size) or look(root, size))
    free = 10**12
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: usage._replace(free=free))
    output = pack(tmp_path / "out").output
    written = sum(path.stat().st_size for path in output.glob("*.arrow"))
    assert 0.7 * written < needed[0] < 1.3 * written
    warnings = []
    free = int(needed[0] * 0.9)
    pack(tmp_path / "tight", on_event=warnings.append)
    assert [str(each.message) for each in warnings if isinstance(each, pipeline.Warned)] == [
        f"{tmp_path / 'tight'}: the output needs about {needed[0] / 1e6:,.1f} MB, {free / 1e6:,.1f} MB is free"
    ]
    free = int(needed[0] * 0.4)
    with pytest.raises(errors.StorageError, match=r"needs about \d\.\d MB, \d\.\d MB is free") as caught:
        pack(tmp_path / "full")
    assert "compact" in caught.value.hint
    assert not list((tmp_path / "full").glob("units/*"))


def test_a_disk_that_runs_full_says_what_it_needs(tmp_path, pack, monkeypatch):
    real, calls = shards._HashingFile.write, []

    def full(self, data):
        calls.append(data)
        if len(calls) == 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(shards._HashingFile, "write", full)
        with pytest.raises(
            errors.StorageError, match=r"no space left: the rest .* needs about .*B, .*B is free"
        ) as caught:
            pack(tmp_path / "out")
    assert caught.value.exit_code == 6
    assert "committed units are kept" in caught.value.hint
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".tmp")]
    assert pack(tmp_path / "out").status == "resumed"
    assert tree_hash(tmp_path / "out") == tree_hash(pack(tmp_path / "other").output)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_where_nothing_can_be_written_is_an_error_before_the_work(tmp_path, pack, monkeypatch):
    """Read-only, or somebody else's: no permission is needed to test it on /proc."""
    code, said = finish("pack", SAMPLE, "-o", "/proc/packcli-out", "-w", 1)
    assert (code, "/proc/packcli-out" in said, "Traceback" in said) == (6, True, False)
    (tmp_path / "file").write_text("")
    code, said = finish("pack", SAMPLE, "-o", tmp_path / "file" / "out", "-w", 1)
    assert (code, "Not a directory" in said, "Traceback" in said) == (6, True, False)
    with pytest.raises(errors.OutputError, match="is a file"):
        pack(tmp_path / "file")


# --- workers ---


def test_an_item_over_which_workers_die_is_tried_three_times_and_then_named(tmp_path):
    """One bad unit must not end a run without a name; and one OOM must not end a run at all."""
    items = [(tmp_path / str(number), {1: 1, 6: 9}.get(number, 0)) for number in range(8)]
    seen, results = [], []
    with pytest.raises(engines.LostWorkerError) as caught:
        for result in engines.processes(die_over, items, workers=2, emit=seen.append):
            results.append(result)  # noqa: PERF402 - what came before the error counts
    assert caught.value.item == items[6]
    twice = [(tmp_path / "twice", 2)]
    assert list(engines.processes(die_over, twice, workers=1, emit=seen.append)) == [3]
    assert len(results) == 6
    assert (tmp_path / "6").read_text() == "xxx"
    assert seen  # those of a pool that broke may be lost
    assert set(seen) <= {path.name for path, _ in [*items, *twice]}


def test_a_unit_over_which_workers_die_is_named(tmp_path, pack, monkeypatch):
    def lose(work, items, *, workers, emit):
        items = list(items)
        if len(items) < 2:  # sidecars, which are read by the same engine
            yield from (work(item, emit) for item in items)
            return
        yield work(items[0], emit)
        raise engines.LostWorkerError(items[1])

    monkeypatch.setitem(engines.LOCAL_ENGINES, "serial", lose)
    with pytest.raises(errors.PackcliError, match=r"died 3 times over unit 1 \(of docs\.jsonl\)"):
        pack(tmp_path / "out")
    assert len(list((tmp_path / "out" / "units").iterdir())) == 1
    monkeypatch.undo()
    assert pack(tmp_path / "out").status == "resumed"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_worker_that_is_killed_changes_nothing(tmp_path):
    """The kernel kills whoever takes most memory, and the run must go on."""
    source = big_input(tmp_path / "big.jsonl", copies=20)
    arguments = ["pack", source, "-w", 2, "--unit-bytes", "500kB", "-q", "-o"]
    assert finish(*arguments, tmp_path / "whole") == (0, "")
    process = start(*arguments, tmp_path / "out")
    wait_for(lambda: any((tmp_path / "out").glob("units/*.json")), process)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    os.kill(int(workers[0]), signal.SIGKILL)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert tree_hash(tmp_path / "out") == tree_hash(tmp_path / "whole")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_workers_that_are_killed_while_lengths_are_measured_are_told(tmp_path):
    """A traceback would say nothing of memory, or of what to do."""
    source = big_input(tmp_path / "big.jsonl", copies=20)
    (tmp_path / "packcli.toml").write_text("[pack]\nunit_bytes = 500_000\n")
    process = start("stats", source, "-w", 2, "--config", tmp_path / "packcli.toml")
    killed = set()
    while process.poll() is None:
        for pid in set(workers_of(process.pid)) - killed:
            os.kill(int(pid), signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.01)
    said = process.communicate()[1]
    assert len(killed) >= 3
    assert process.returncode == 1
    assert "died 3 times over unit 0 (of big.jsonl), perhaps for want of memory" in said
    assert "fewer --workers" in said
    assert "Traceback" not in said


def workers_of(pid):
    """Ids of the worker processes of a process, as strings."""
    return [each for each in children(pid) if "spawn_main" in (Path("/proc") / each / "cmdline").read_text()]


def children(pid):
    return (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()


# --- names ---


def test_a_newline_in_a_name_begins_no_line(tmp_path):
    """A name could otherwise print a line that looks like ours."""
    name = "a\nerror: all is lost\n    b\x1b[31m.jsonl"
    (tmp_path / name).write_text('{"text": "a"}\n{"text": 3}\n')
    code, said = finish("pack", name, cwd=tmp_path)
    assert code == 4
    assert "\x1b" not in said
    assert not [line for line in said.split("\n")[1:] if line and not line.startswith("  ")]
