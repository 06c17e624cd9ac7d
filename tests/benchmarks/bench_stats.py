"""CPU time of `packcli stats` on raw input beside encoding alone, and on a packed directory.

    python tests/benchmarks/bench_stats.py INPUT.jsonl[.zst] --tokenizer DIR [--packed-gb 1.0] [--repeat N]

encode   the fast engine on texts that are in memory, nothing else
floor    reads the rows and encodes them (see bench_pack)
stats    `packcli stats INPUT --max-len 2048`: every table, one worker

CPU seconds, user + system, on one core, start-up (the same on the first ten documents) taken off, least of the repeats.
Then `packcli stats DIR` on INPUT packed as often as it takes for --packed-gb: wall seconds, start-up included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_pack import BUILTIN, command, cpu_seconds, lines_of, texts_of


def encode(path: Path, tokenizer: Path) -> float:
    """CPU seconds of the engine on all texts, warmed up."""
    import fastokens

    engine = fastokens.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    batches = [texts[first : first + 64] for texts in texts_of(path) for first in range(0, len(texts), 64)]
    engine.encode_batch_flat(batches[0][:10], add_special_tokens=False, split_special_tokens=True)
    began = time.process_time()
    for batch in batches:
        engine.encode_batch_flat(batch, add_special_tokens=False, split_special_tokens=True)
    return time.process_time() - began


def stats_command(path: Path, tokenizer: Path) -> list[str]:
    return [sys.executable, "-m", "packcli", "stats", str(path), "--tokenizer", str(tokenizer), "-w", "1", "--csv"]


def packed_seconds(path: Path, tokenizer: Path, gigabytes: float, folder: Path) -> tuple[float, float]:
    """Gigabytes of a packed directory, and the wall seconds of `packcli stats` on it."""
    inputs, out = folder / "many", folder / "packed"
    inputs.mkdir()
    lines = b"\n".join(line for lines in lines_of(path) for line in lines if line) + b"\n"
    copies = 1
    while True:
        for number in range(copies):
            (inputs / f"{number:03d}.jsonl").write_bytes(lines)
        pack = [sys.executable, "-m", "packcli", "pack", str(inputs), "-o", str(out), "-q", "--overwrite"]
        subprocess.run([*pack, "--tokenizer", str(tokenizer)], check=True)
        size = sum(file.stat().st_size for file in out.rglob("*.arrow"))
        if size >= gigabytes * 1e9:
            break
        copies = max(copies + 1, round(copies * gigabytes * 1.05e9 / size))
    found = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "packcli", "stats", str(out)], check=True, stderr=subprocess.DEVNULL)
        found.append(time.perf_counter() - began)
    return size / 1e9, min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=BUILTIN)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--packed-gb", type=float, default=1.0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(encode(args.input, args.tokenizer))
        return
    everywhere = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if everywhere:
        os.sched_setaffinity(0, {max(everywhere)})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ten = folder / "ten.jsonl"
        ten.write_bytes(b"\n".join(next(lines_of(args.input))[:10]) + b"\n")
        best: dict[tuple[str, Path], float] = {}
        encoding = float("inf")
        child = [sys.executable, __file__, str(args.input), "--tokenizer", str(args.tokenizer), "--child"]
        one_thread = {**os.environ, "RAYON_NUM_THREADS": "1", "FASTOKENS_BPE_THREADS": "1"}
        for _ in range(args.repeat):
            encoding = min(
                encoding, float(subprocess.run(child, env=one_thread, capture_output=True, check=True).stdout)
            )
            for path in (ten, args.input):
                for name in ("floor", "stats"):
                    arguments = (
                        stats_command(path, args.tokenizer)
                        if name == "stats"
                        else command(name, path, args.tokenizer, folder)
                    )
                    seconds, _ = cpu_seconds(arguments, folder)
                    best[name, path] = min(best.get((name, path), 1e9), seconds)
        floor, stats = (best[name, args.input] - best[name, ten] for name in ("floor", "stats"))
        print(f"encode {encoding:.3f} s, floor {floor:.3f} s, stats {stats:.3f} s CPU")
        print(f"stats is {stats / encoding:.2f} times encode, {stats / floor:.2f} times floor")
        if everywhere:
            os.sched_setaffinity(0, everywhere)
        if not args.packed_gb:
            return
        size, seconds = packed_seconds(args.input, args.tokenizer, args.packed_gb, folder)
        print(f"packcli stats on {size:.2f} GB packed: {seconds:.2f} s wall")


if __name__ == "__main__":
    main()
