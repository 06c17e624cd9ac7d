"""Packing on Ray (make integration-ray): what dies, what is refused, and the same bytes."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import PACKCLI, big_input, die_over, tree_hash

from packcli import errors
from packcli.pipeline import Progress
from packcli.pipeline.engines import LostWorkerError, NodeRequirements
from packcli.pipeline.engines.ray import open_ray

HERE = Path(__file__).parent
sys.path.append(str(HERE))
import ray_work  # noqa: E402
from ray_head import QUIET, ray_head  # noqa: E402

UNITS = ["--unit-bytes", "500kB", "--strategy", "best-fit", "--max-len", "512"]


def clean():
    """The environment without what a Ray of this process has put there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | QUIET


def start(*arguments, **options):
    options = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": clean(), **options}
    return subprocess.Popen([*PACKCLI, *map(str, arguments)], **options)


def finish(process):
    """(exit code, what it said on stderr)"""
    said = process.communicate()[1]
    return process.returncode, said


def wait_for(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def descendants(pid):
    """{pid: what it is called} of living processes below `pid`."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,stat,args"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 3) for line in listed.splitlines()[1:]]
    found = {pid: ""}
    for _ in rows:  # children may be listed before their parents
        more = {int(row[0]): row[3] for row in rows if int(row[1]) in found and row[2][0] != "Z"}
        if more.keys() <= found.keys():
            break
        found |= more
    del found[pid]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An input of some 40 units, and the tree that processes make of it."""
    folder = tmp_path_factory.mktemp("whole")
    source = big_input(folder / "big.jsonl", copies=55)
    assert finish(start("pack", source, "-o", folder / "out", *UNITS, "--engine", "processes", "-w", 2))[0] == 0
    units = len(list((folder / "out" / "units").iterdir()))
    assert units > 30
    return source, tree_hash(folder / "out"), units


@pytest.fixture(scope="module")
def ray():
    """A Ray with two CPUs: `.pid`, below which its processes are, and the options that lead to it."""
    with ray_head(cpus=2) as (pid, address):
        yield SimpleNamespace(pid=pid, address=address, options=["--engine", "ray", "--ray-address", address])


@pytest.fixture
def cluster(tmp_path):
    """A cluster of two nodes with one CPU each; `.ask("kill")` kills one of them."""
    with open(tmp_path / "cluster.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, HERE / "cluster.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=clean(),
        )
    address = process.stdout.readline().strip()
    assert address, (tmp_path / "cluster.log").read_text()

    class Handle:
        pass

    def ask(what):
        process.stdin.write(f"{what}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    handle = Handle()
    handle.address, handle.ask = address, ask
    yield handle
    process.communicate()  # the end of its input is the end of the cluster
    assert process.returncode == 0


def committed(output):
    return len(list(output.glob("units/*.json")))


def workers_of(ray):
    return [pid for pid, name in descendants(ray.pid).items() if name.startswith("ray::_run")]


def kill_a_worker(ray):
    """Whether there was one; between two units there may be none."""
    for pid in workers_of(ray)[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


# --- none is started: first, since `auto` would find the Ray of the tests below ---


def test_without_a_ray_the_command_that_starts_one_is_named(tmp_path, whole):
    for options in ([], ["--ray-address", "auto"], ["--ray-address", "local"]):
        code, said = finish(start("pack", whole[0], "-o", tmp_path / "out", "--engine", "ray", *options))
        said = " ".join(said.split())
        assert (code, "error: --ray-address " in said, "`ray start --head`" in said) == (2, True, True), said
        assert "say where one runs with --ray-address" in said
    process = start("pack", whole[0], "-o", tmp_path / "out", "--engine", "ray", "--ray-address", "ray://127.0.0.1:1")
    code, said = finish(process)
    assert (code, "ray job submit" in said) == (2, True)
    assert not (tmp_path / "out" / ".packcli" / "plan.json").exists()


# --- the same bytes ---


def test_two_workers_and_the_serial_engine_give_the_same_tree(tmp_path, whole, ray):
    source, expected, units = whole
    process = start("pack", source, "-o", tmp_path / "ray", *UNITS, *ray.options, "-w", 2, "--json")
    wait_for(lambda: workers_of(ray), process)
    out, said = process.communicate()
    run = json.loads(out)["run"]
    assert (run["engine"], run["workers"], run["threads"]) == ("ray", 2, 1)
    assert "2 processes, Ray on 1 node" in said
    assert "Ray" not in said.replace("Ray on 1 node", ""), "Ray speaks"
    assert tree_hash(tmp_path / "ray") == expected
    assert not list((tmp_path / "ray" / ".packcli").glob("ray-*"))
    assert finish(start("pack", source, "-o", tmp_path / "serial", *UNITS, "--engine", "serial", "-q")) == (0, "")
    assert tree_hash(tmp_path / "serial") == expected


def test_the_address_of_the_environment_is_taken(tmp_path, whole, ray):
    environment = {**clean(), "RAY_ADDRESS": ray.address}
    process = start("pack", whole[0], "-o", tmp_path / "out", *UNITS, "--engine", "ray", env=environment)
    code, said = finish(process)
    assert (code, "Ray on 1 node" in said) == (0, True), said


def test_a_worker_that_is_killed_in_mid_unit_changes_nothing(tmp_path, whole, ray):
    source, expected, _ = whole
    process = start("pack", source, "-o", tmp_path / "out", *UNITS, *ray.options, "-w", 2, "-q")
    killed = 0
    while killed < 2:
        before = committed(tmp_path / "out")
        wait_for(lambda: committed(tmp_path / "out") > before, process)  # noqa: B023
        wait_for(lambda: kill_a_worker(ray), process)
        killed += 1
    assert finish(process) == (0, "")
    assert tree_hash(tmp_path / "out") == expected


def test_a_node_that_is_killed_in_mid_run_changes_nothing(tmp_path, whole, cluster):
    source, expected, _ = whole
    arguments = ["pack", source, "-o", tmp_path / "out", *UNITS, "--engine", "ray", "--ray-address", cluster.address]
    process = start(*arguments)
    wait_for(lambda: committed(tmp_path / "out") >= 4, process)
    assert cluster.ask("kill") == "killed"
    left = committed(tmp_path / "out")
    code, said = finish(process)
    assert code == 0, said
    assert left < whole[2], "the node was killed too late"
    assert "2 processes, Ray on 2 nodes" in said
    assert tree_hash(tmp_path / "out") == expected
    assert not list((tmp_path / "out" / ".packcli").glob("ray-*"))


def test_ray_is_resumed_without_it_and_the_other_way_round(tmp_path, whole, ray):
    source, expected, units = whole
    serial = ["--engine", "serial"]
    for number, (first, then) in enumerate(((ray.options, serial), (serial, ray.options))):
        output = tmp_path / str(number)
        process = start("pack", source, "-o", output, *UNITS, "-w", 2, *first)
        wait_for(lambda: committed(output) >= 2, process)  # noqa: B023
        process.send_signal(signal.SIGINT)
        code, said = finish(process)
        assert (code, "resume with: packcli pack" in said) == (130, True)
        assert 2 <= committed(output) < units
        code, said = finish(start("pack", source, "-o", output, *UNITS, "-w", 2, *then))
        assert (code, "(resumed)" in said) == (0, True)
        assert tree_hash(output) == expected


# --- how it ends ---


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGKILL], -9),
    ],
    ids=["Ctrl-C", "Ctrl-C twice", "SIGTERM", "SIGKILL"],
)
def test_no_worker_is_left_behind(tmp_path, whole, ray, signals, expected):
    """It would go on writing into an output that nobody holds any more. Ray stays for others."""
    arguments = ["pack", whole[0], "-o", tmp_path / "out", *UNITS, *ray.options, "-w", 2]
    process = start(*arguments, start_new_session=True)
    wait_for(lambda: committed(tmp_path / "out"), process)
    for number in signals:
        os.killpg(process.pid, number)  # as a terminal does
    assert finish(process)[0] == expected
    wait_for(lambda: not workers_of(ray), seconds=30)
    assert committed(tmp_path / "out") < whole[2]
    assert any("gcs_server" in name for name in descendants(ray.pid).values())


def test_a_bad_row_ends_the_run_as_it_does_elsewhere(tmp_path, ray):
    source = big_input(tmp_path / "big.jsonl", copies=10)
    with open(source, "a") as file:
        file.write('{"text": 3}\n')
    told = {}
    for engine, options in (("processes", ["--engine", "processes"]), ("ray", ray.options)):
        process = start("pack", source, "-o", tmp_path / engine, *UNITS, *options, "-w", 2, "-q")
        told[engine] = finish(process)
    assert told["ray"] == told["processes"]
    assert told["ray"][0] == 4
    assert "big.jsonl:3001" in told["ray"][1]


# --- the engine ---


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ground")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (HERE, HERE.parent))))  # what workers import
        patch.setenv("RAY_AUTH_MODE", QUIET["RAY_AUTH_MODE"])
        _, address = stack.enter_context(ray_head(cpus=2))
        found = stack.enter_context(
            open_ray(address, limit=0, requirements=lambda: NodeRequirements.of(folder, []), warn=None)
        )
        yield lambda work, items, emit=lambda event: None: found.run(work, items, workers=2, emit=emit)


def test_what_is_tried_again_and_what_is_not(tmp_path, engine):
    """An error of the system may pass; a bad row stays bad, and a bug is a bug."""

    def tries(kind, failures):
        path = tmp_path / f"{kind}{failures}"
        try:
            list(engine(ray_work.fail, [(path, kind, failures)]))
        except Exception as error:
            return len(path.read_text()), error
        return len(path.read_text()), None

    assert tries("io", 2) == (3, None)
    count, error = tries("io", 9)
    assert (count, type(error), error.errno, error.filename) == (3, OSError, 5, "somewhere")
    count, error = tries("full", 9)
    assert (count, type(error), error.errno) == (1, OSError, 28)
    count, error = tries("row", 9)
    assert (count, type(error), error.message, error.hint) == (1, errors.BadRowError, "a row", "a hint")
    count, error = tries("bug", 9)
    assert (count, isinstance(error, ZeroDivisionError)) == (1, True)
    assert re.search(r'ray_work.py", line \d+, in fail', str(error)), "the traceback of the worker"


def test_an_item_over_which_workers_die_is_tried_three_times_and_then_named(tmp_path, engine):
    assert list(engine(die_over, [(tmp_path / "twice", 2)])) == [3]
    items = [(tmp_path / str(number), 9 if number == 2 else 0) for number in range(4)]
    with pytest.raises(LostWorkerError) as caught:
        list(engine(die_over, items))
    assert caught.value.item == items[2]
    assert (tmp_path / "2").read_text() == "xxx"


def test_items_are_taken_as_there_is_room_and_events_are_added_up(tmp_path, engine):
    """A million units, submitted at once, would be in this process and in Ray's; so would their events."""
    taken, seen = [], []

    def items():
        for number in range(30):
            taken.append(number)
            yield tmp_path / str(number), "io", 0

    results = engine(ray_work.fail, items(), emit=seen.append)
    most = max(len(taken) - number for number, _ in enumerate(results))
    assert most <= 5  # two for each of two CPUs, and the one that is done
    assert seen == [Progress(3, 6)] * 30


def test_a_long_unit_tells_how_far_it_is(engine):
    """One huge compressed file is one unit: hours without a word."""
    seen = []
    for _ in engine(ray_work.slow, [0], emit=lambda event: seen.append((event.file_bytes, time.monotonic()))):
        end = time.monotonic()
    assert sum(count for count, _ in seen) == 24
    assert end - seen[0][1] > 1


def test_a_worker_fetches_the_work_once(tmp_path, engine):
    """It would be unpickled, and the tokenizer loaded, for every unit anew."""
    load = ray_work.Counted(tmp_path / "loads")
    results = list(engine(load, range(40)))
    assert 1 <= len((tmp_path / "loads").read_text()) == len({pid for pid, _ in results}) <= 4


# --- what is refused ---


def test_a_program_that_is_connected_keeps_its_connection(tmp_path, whole):
    code = f"""
import packcli, ray
if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    report = packcli.pack({str(whole[0])!r}, {str(tmp_path / "out")!r}, engine="ray", unit_bytes=5_000_000)
    print(report.run["place"], ray.is_initialized())
"""
    script = tmp_path / "program.py"
    script.write_text(code)
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, env=clean())
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["Ray on 1 node True"]


def can_mount():
    return (
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(shutil.which("unshare") is None or not can_mount(), reason="needs a mount namespace of its own")
def test_a_cluster_without_shared_storage_is_refused(tmp_path, whole, cluster):
    """Its nodes would write shards to disks of their own, and the run would look whole to nobody."""
    output = tmp_path / "out"
    output.mkdir()
    ray = Path(sys.executable).with_name("ray")
    join = f"mount -t tmpfs none {output} && {ray} start --address {cluster.address} --num-cpus 1 --block"
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", join],
        stdout=subprocess.DEVNULL,
        env=clean(),
        start_new_session=True,
    )
    try:
        wait_for(lambda: cluster.ask("count") == "3", node)
        arguments = ["pack", whole[0], "-o", output, *UNITS, "--engine", "ray", "--ray-address", cluster.address]
        code, said = finish(start(*arguments))
        assert code == 2, said
        assert f"it does not see the output: {output}" in said
        assert "storage that every node mounts at the same path" in said
        assert not (output / "units").exists()
        assert not (output / ".packcli" / "plan.json").exists()
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait()
