"""A million units: what units plan, status, finish and stats cost when there are so many.

    python tests/benchmarks/bench_units.py --units 1000000 --lengths 150

The plan is a real one: a file of about 1 KiB a unit, cut at every 1 KiB. The units are not done: each gets a sidecar
with the counts of a made-up unit (documents of lognormal length, --lengths distinct ones, which decides the size of a
sidecar: 1,000 are about 25 kB) and an empty shard of the right size. Every command runs as a process of its own;
CPU seconds are of it and its workers, memory is that of the largest of them. What is written is removed at the end.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from packcli.dataset import ShardInfo, Sidecar, Stats, histogram, measure_baselines
from packcli.dataset.fingerprint import sealed_bytes

MAX_LEN = 2048
SHARD_BYTES = 512


def made_up_stats(num_lengths: int) -> Stats:
    """Counts that add up, of a unit of documents of `num_lengths` distinct lengths, each twice."""
    rng = np.random.default_rng(0)
    lengths = np.sort(rng.choice(np.unique(rng.lognormal(6, 1, 20 * num_lengths).astype(int) + 1), num_lengths))
    lengths = np.minimum(np.unique(lengths), MAX_LEN).repeat(2)
    num_packs = int(-(-lengths.sum() // MAX_LEN))
    tokens, count = int(lengths.sum()), len(lengths)
    return Stats(
        num_parts=1,
        num_input_bytes=tokens * 4,
        num_rows_read=count,
        num_documents=count,
        num_documents_packed=count,
        num_tokens_in=tokens - count,
        num_tokens_special=count,
        num_tokens_packed=tokens,
        num_tokens_loss=tokens - count,
        num_tokens_padding=num_packs * MAX_LEN - tokens,
        num_rows_unpacked=count,
        num_segments=count,
        num_packs=num_packs,
        sum_lower_bound=num_packs,
        sum_squared_segments=int((lengths.astype(np.int64) ** 2).sum()),
        num_groups=max(1, num_packs // 8),
        sum_group_cost=int((lengths.astype(np.int64) ** 2).sum()),
        max_group_cost=MAX_LEN**2,
        documents_by_length=histogram(lengths),
        segments_by_length=histogram(lengths),
        packs_by_documents={int(count // num_packs): num_packs},
        plans_by_planner={"concat": 1},
        by_source={0: {"num_documents": count, "num_tokens_in": tokens - count}},
        layouts=measure_baselines(lengths, MAX_LEN),
        by_split={"train": {"num_documents": count, "num_packs": num_packs, "num_tokens_packed": tokens}},
    )


def write_units(root: Path, stats: Stats, units: range) -> int:
    """A sidecar and a shard without content for each of the units; returns the size of a sidecar."""
    mark = 10**9 + 7  # stands for the number of the unit
    shard = ShardInfo(f"data-{mark:05d}-000.arrow", stats.num_packs, SHARD_BYTES, "ab" * 32)
    text = sealed_bytes(Sidecar(mark, 0, True, "cd" * 16, {"train": shard}, stats).as_dict())
    text = text[: text.rindex(b',\n "sha256"')]
    for unit in units:
        body = text.replace(b"data-%05d" % mark, b"data-%05d" % unit).replace(b"%d" % mark, b"%d" % unit)
        seal = hashlib.sha256(body).hexdigest().encode()
        with open(root / "units" / f"{unit:05d}-000.json", "wb", buffering=0) as file:
            file.write(body + b',\n "sha256": "' + seal + b'"\n}\n')
        handle = os.open(root / f"data-{unit:05d}-000.arrow", os.O_CREAT | os.O_WRONLY, 0o644)
        os.truncate(handle, SHARD_BYTES)
        os.close(handle)
    return len(body)


def measure(*arguments: object) -> str:
    """Runs packcli; returns what it prints. Prints what it took."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, "-m", "packcli", *map(str, arguments)], stdout=out)
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        if process.returncode:
            raise SystemExit(f"packcli {arguments[0]} {arguments[1]}: exit code {process.returncode}")
        out.seek(0)
        text = out.read().decode()
    cpu = usage.ru_utime + usage.ru_stime
    name = " ".join(str(each) for each in arguments if not str(each).startswith("/"))
    print(
        f"packcli {name:60} {cpu:8.1f} CPU s {time.perf_counter() - began:8.1f} s "
        f"{usage.ru_maxrss / 1024:8.0f} MiB at most in a process",
        flush=True,
    )
    return text


def main() -> None:
    """Plans, simulates, finishes and reads back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--lengths", type=int, default=150, help="distinct lengths in a unit: the size of its sidecar")
    parser.add_argument("--workers", type=int, default=1, help="of units finish")
    parser.add_argument("--pack", action="store_true", help="also run packcli pack, which finds it up to date")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=given.directory, prefix="bench-units-"))
    try:
        source, output = place / "big.jsonl", place / "out"
        line = json.dumps({"text": "x" * 1010}).encode() + b"\n"  # 1 KiB
        line = line[:-3].ljust(1021, b"x") + line[-3:]
        with open(source, "wb") as file:
            for first in range(0, given.units, 1000):
                file.write(line * min(1000, given.units - first))
        found = json.loads(measure("units", "plan", source, "-o", output, "--unit-bytes", "1024", "--json", "-q"))
        assert found["num_units"] == given.units, found
        ranges = [range(first, min(first + 10_000, given.units)) for first in range(0, given.units, 10_000)]
        with multiprocessing.Pool(max(1, given.workers)) as pool:
            work = functools.partial(write_units, output, made_up_stats(given.lengths))
            size = max(pool.imap_unordered(work, ranges))
        print(f"{given.units:,} sidecars of {size:,} bytes simulated", flush=True)
        found = json.loads(measure("units", "status", output, "--json"))
        assert found["num_units_done"] == given.units, found
        measure("units", "finish", output, "-q", "-w", given.workers)
        print(f"manifest.json {(output / 'manifest.json').stat().st_size / 1e6:,.1f} MB")
        found = json.loads(measure("stats", output, "--json"))
        assert found["totals"]["num_parts"] == given.units
        if given.pack:
            measure("pack", source, "-o", output, "--unit-bytes", "1024", "-q", "-w", given.workers)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
