"""What Ray costs: beside the process engine, and for each unit.

    python tests/benchmarks/bench_ray.py cost INPUT.jsonl[.zst] [--tokenizer DIR] [--size 2GB] [--columns compact]
    python tests/benchmarks/bench_ray.py tasks [--tasks 5000 20000]

cost: packs a few rows and then `size` bytes with both engines and two workers; wall and CPU seconds of all their
processes, and of the Ray that is started for it. The small run is the start-up, without that of Ray; the ratio is that
of the rest. The outputs must be equal.

tasks: lets a Ray do work that is next to nothing, and then nothing: what a task takes, what the memory of
this process and of Ray's control store grows by for each, and what Ray takes at rest. Needs packcli[ray].
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_large import make_large, memory_of

from packcli.config import parse_size
from packcli.pipeline.engines import NodeRequirements

sys.path.append(str(Path(__file__).parents[1] / "integrations" / "ray"))
from ray_head import ray_head  # noqa: E402

IDLE_S = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


def table() -> dict[int, tuple[int, float, str]]:
    """{pid: (parent, CPU seconds, name)} of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, fields = (entry / "stat").read_text().rsplit(")", 1)
            except OSError:
                continue
            values = fields.split()
            found[int(entry.name)] = int(values[1]), (int(values[11]) + int(values[12])) / TICKS, name.split("(", 1)[1]
    return found


def below(root: int, processes: dict[int, tuple[int, float, str]]) -> set[int]:
    """`root` and all that it and its children started."""
    found, size = {root}, 0
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, (parent, _, _) in processes.items() if parent in found}
    return found


def measured(command: list[str], ray: int) -> tuple[float, float]:
    """Wall and CPU seconds of a command, of all that it starts, and of a Ray; looked at five times a second."""
    began, before = time.perf_counter(), seconds_below(ray)
    process = subprocess.Popen(command)
    seconds: dict[int, float] = {}
    while process.poll() is None:
        processes = table()
        for pid in below(process.pid, processes) | below(ray, processes):
            if pid in processes:
                seconds[pid] = max(seconds.get(pid, 0.0), processes[pid][1])
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"packcli failed with {process.returncode}")
    return time.perf_counter() - began, sum(each - before.get(pid, 0.0) for pid, each in seconds.items())


def seconds_below(root: int) -> dict[int, float]:
    """{pid: CPU seconds} of a living process and of all that it started."""
    processes = table()
    return {pid: processes[pid][1] for pid in below(root, processes) if pid in processes}


def cost(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary, ray_head(cpus=2) as (ray, address):
        folder = Path(temporary)
        large, small, output = folder / "large.jsonl", folder / "small.jsonl", folder / "out"
        make_large(args.input, large, parse_size(args.size))
        with open(large, "rb") as file:
            small.write_bytes(b"".join(line for line, _ in zip(file, range(20), strict=False)))
        print(f"{large.stat().st_size / 1e9:.2f} GB of {args.input.name}, {args.tokenizer}, {args.columns} columns")
        print("| engine | start-up: wall s | CPU s | all: wall s | CPU s |\n|---|---|---|---|---|", flush=True)
        rest, manifests = {}, []
        for engine in ("processes", "ray") * args.turns:
            row = []
            for source in (small, large):
                command = [sys.executable, "-m", "packcli", "pack", str(source), "-o", str(output), "-q", "-w", "2"]
                command += ["--tokenizer", args.tokenizer, "--columns", args.columns, "--strategy", "best-fit"]
                where = ["--ray-address", address] if engine == "ray" else []
                row += measured([*command, "--engine", engine, *where], ray)
                manifests.append((output / "manifest.json").read_bytes())  # with the sha256 of every shard
                subprocess.run(["rm", "-r", str(output)], check=True)
            rest.setdefault(engine, []).append((row[2] - row[0], row[3] - row[1]))
            print(f"| {engine} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.1f} | {row[3]:.1f} |", flush=True)
        assert len(set(manifests)) == 2, "the outputs differ"
        for turn, (one, other) in enumerate(zip(rest["processes"], rest["ray"], strict=True), 1):
            ratios = f"{other[0] / one[0]:.2f} wall, {other[1] / one[1]:.2f} CPU"
            print(f"turn {turn}: after start-up Ray takes {ratios} of what processes take; the outputs are the same")


def trivial(item: int, emit: object) -> int:
    return item


def tasks(args: argparse.Namespace) -> None:
    from packcli.pipeline.engines.ray import open_ray

    with (
        tempfile.TemporaryDirectory() as folder,
        ray_head(cpus=2) as (ray, address),
        open_ray(address, limit=0, requirements=lambda: NodeRequirements.of(folder, []), warn=print) as found,
    ):

        def run(number: int) -> None:
            for _ in found.run(trivial, iter(range(number)), workers=2, emit=lambda event: None):
                pass

        run(1000)  # all that is loaded and cached at first
        print("| tasks | wall ms a task | driver CPU ms a task | driver, MB | growth, B a task | control store, MB |")
        print("|---|---|---|---|---|---|")
        for number in args.tasks:
            before, wall, cpu = memory_of(os.getpid(), "VmRSS:"), time.perf_counter(), time.process_time()
            run(number)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            processes = table()
            (store,) = (pid for pid in below(ray, processes) if processes[pid][2] == "gcs_server")
            now = memory_of(os.getpid(), "VmRSS:")
            figures = f"{wall / number * 1e3:.2f} | {cpu / number * 1e3:.2f} | {now / 1e6:.1f}"
            growth = f"{(now - before) / number:.1f} | {memory_of(store, 'VmRSS:') / 1e6:.1f}"
            print(f"| {number:,} | {figures} | {growth} |", flush=True)
        before = seconds_below(os.getpid())
        time.sleep(IDLE_S)
        after = seconds_below(os.getpid())
        idle = sum(after[pid] - before[pid] for pid in after.keys() & before.keys()) / IDLE_S
        others = below(os.getpid(), table()) - {os.getpid()}
        memory = sum(memory_of(pid, "RssAnon:") for pid in others) / 1e6
        print(f"at rest Ray's {len(others)} processes and this one take {idle:.1%} of a core, Ray's {memory:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("cost")
    one.add_argument("input", type=Path)
    one.add_argument("--tokenizer", default="builtin")
    one.add_argument("--size", default="2GB")
    one.add_argument("--columns", default="compact")
    one.add_argument("--turns", type=int, default=1)
    one.add_argument("--folder", help="where to put input and outputs; the default is temporary")
    one.set_defaults(run=cost)
    other = verbs.add_parser("tasks")
    other.add_argument("--tasks", type=int, nargs="+", default=[5_000, 20_000])
    other.set_defaults(run=tasks)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
