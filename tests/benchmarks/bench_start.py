"""What it costs to begin: CPU of `packcli --help`, and CPU and wall time of packing ten documents.

python tests/benchmarks/bench_start.py [--tokenizer DIR]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLE = Path(__file__).parents[2] / "sample_data" / "docs.jsonl"


def measure(arguments: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of a process and its children."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "packcli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} failed")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default="builtin")
    args = parser.parse_args()
    print("| command | CPU s, least of 7 | wall s, least of 7 |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        ten = Path(folder) / "ten.jsonl"
        ten.write_bytes(b"".join(SAMPLE.read_bytes().splitlines(keepends=True)[:10]))
        for name, arguments in (
            ("packcli --help", ["--help"]),
            ("packcli pack --help", ["pack", "--help"]),
            ("packcli pack, ten documents", ["pack", str(ten), "-q", "--tokenizer", args.tokenizer]),
        ):
            runs = []
            for turn in range(7):
                output = ["-o", f"{folder}/{turn}"] if name.endswith("documents") else []
                runs.append(measure(arguments + output))
            print(f"| {name} | {min(cpu for cpu, _ in runs):.2f} | {min(wall for _, wall in runs):.2f} |")


if __name__ == "__main__":
    main()
