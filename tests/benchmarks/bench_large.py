"""Memory and scaling on a large input, made from a small one by repeating it with changes.

    python tests/benchmarks/bench_large.py INPUT.jsonl[.zst] [--tokenizer DIR] [--size 2GB] [--columns all]
    python tests/benchmarks/bench_large.py INPUT.jsonl[.zst] --size 10GB --limit 2GB

Packs `size` bytes of JSONL with one worker and with two; prints wall and CPU seconds and the peak RSS of the
largest process. The two outputs must be the same, byte for byte.

With --limit: packs a tenth of `size` and then all of it with two workers. No process may have more than the limit
of data, all together may not have more of RSS, and the peaks of both runs must be within 10 % of each other.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_pack import lines_of

from packcli.config import parse_size


def make_large(source: Path, target: Path, size: int) -> None:
    """Repeats the rows, each time with another number at the beginning of the text."""
    rows = [line for lines in lines_of(source) for line in lines if line]
    written = turn = 0
    with open(target, "wb") as file:
        while written < size:
            mark = b'"text":"%d ' % turn
            block = b"".join(row.replace(b'"text":"', mark, 1).replace(b'"text": "', mark, 1) + b"\n" for row in rows)
            file.write(block)
            written += len(block)
            turn += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--tokenizer", default="builtin")
    parser.add_argument("--size", default="2GB")
    parser.add_argument("--columns", default="all")
    parser.add_argument("--strategy", default="best-fit")
    parser.add_argument("--limit", help="memory, such as 2GB")
    parser.add_argument("--folder", help="where to put input and outputs; the default is temporary")
    args = parser.parse_args()
    if args.limit:
        flat(args)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        large = folder / "large.jsonl"
        make_large(args.input, large, parse_size(args.size))
        print(f"{large.stat().st_size / 1e9:.2f} GB of {args.input.name}, {args.tokenizer}, {args.columns} columns")
        print("| workers | wall s | CPU s | largest process, MB |\n|---|---|---|---|")
        manifests = []
        for workers in (1, 2):
            output = folder / f"out{workers}"
            command = [sys.executable, "-m", "packcli", "pack", str(large), "-o", str(output), "-q", "-w", str(workers)]
            command += ["--tokenizer", args.tokenizer, "--columns", args.columns, "--strategy", args.strategy]
            began = time.perf_counter()
            process = subprocess.Popen(command)
            cpu, peak, _ = watch(process)
            wall = time.perf_counter() - began
            manifests.append((output / "manifest.json").read_bytes())  # with the sha256 of every shard
            print(f"| {workers} | {wall:.1f} | {cpu:.1f} | {peak / 1e6:.0f} |")
            for shard in output.glob("*.arrow"):
                shard.unlink()
        assert manifests[0] == manifests[1], "the outputs differ"
        print("the outputs are the same")


def flat(args: argparse.Namespace) -> None:
    """Whether memory stays the same when the input grows tenfold."""
    limit, size = parse_size(args.limit), parse_size(args.size)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    peaks = []
    print("| GB | wall s | CPU s | largest process, MB | all processes, MB |\n|---|---|---|---|---|")
    for part in (size // 10, size):
        with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
            large, output = Path(temporary) / "large.jsonl", Path(temporary) / "out"
            make_large(args.input, large, part)
            command = [sys.executable, "-m", "packcli", "pack", str(large), "-o", str(output), "-q", "-w", "2"]
            command += ["--tokenizer", args.tokenizer, "--columns", args.columns, "--strategy", args.strategy]
            began = time.perf_counter()
            cpu, peak, together = watch(subprocess.Popen(command, preexec_fn=limited))
            wall = time.perf_counter() - began
            peaks.append(together)
            print(
                f"| {part / 1e9:.1f} | {wall:.1f} | {cpu:.1f} | {peak / 1e6:.0f} | {together / 1e6:.0f} |", flush=True
            )
    assert max(peaks) < limit, "more than the limit"
    assert peaks[1] < 1.1 * peaks[0], "memory grows with the input"
    print("memory is flat")


def watch(process: subprocess.Popen[bytes]) -> tuple[float, int, int]:
    """Waits for a process.

    Returns:
        CPU seconds of it and its children, the highest peak RSS of any of them, and the peak of all their RSS
        together, in bytes.
    """
    peak = together = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
        parents = dict(tuple(map(int, line.split())) for line in listed.splitlines()[1:])
        now = 0
        for pid in parents:
            ancestor = pid
            while ancestor in parents and ancestor != process.pid:
                ancestor = parents[ancestor]
            if ancestor == process.pid:
                peak = max(peak, memory_of(pid, "VmHWM:"))
                now += memory_of(pid, "RssAnon:")  # pages of files are the cache's
        together = max(together, now)
        time.sleep(0.2)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"packcli failed with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, peak, together


def memory_of(pid: int, what: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    main()
