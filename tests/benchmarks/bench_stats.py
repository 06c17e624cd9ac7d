"""CPU time of `packcli stats` on raw input beside encoding alone, and on a packed directory.

    python tests/benchmarks/bench_stats.py INPUT.jsonl[.zst] --tokenizer DIR [--packed-gb 1.0] [--repeat N]

encode   the fast engine on texts that are in memory, nothing else; its tables are cold, as in a run
unpack   decompresses the file, nothing else
rows     decompresses it, splits it into lines and decodes the text of each, nothing else: what no reader can do without
floor    reads the rows and encodes them (see bench_pack)
stats    `packcli stats INPUT --max-len 2048`: every table, one worker

CPU seconds, user + system, on one core, start-up (the same on the first ten documents) taken off, least of the repeats;
of floor and stats then also with it: loading the engine, and of stats also the reference that it is compared with.
Then `packcli stats DIR` on INPUT packed as often as it takes for --packed-gb: wall seconds, start-up included.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench_pack import BUILTIN, CODECS, command, cpu_seconds, lines_of, texts_of


def seconds_of(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def unpack(path: Path) -> int:
    import pyarrow as pa

    raw = pa.OSFile(str(path))
    stream = pa.CompressedInputStream(raw, CODECS[path.suffix]) if path.suffix in CODECS else raw
    num_bytes = 0
    while block := stream.read(1 << 20):
        num_bytes += len(block)
    return num_bytes


def pieces(path: Path, tokenizer: Path) -> dict[str, float]:
    """CPU seconds of the pieces that a run is made of, each alone; the libraries are loaded."""
    import fastokens

    engine = fastokens.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    found = {"unpack": seconds_of(lambda: unpack(path))}
    found["rows"] = seconds_of(lambda: collections.deque(texts_of(path), maxlen=0))
    batches = [texts[first : first + 64] for texts in texts_of(path) for first in range(0, len(texts), 64)]
    engine.encode_batch_flat(batches[0][:10], add_special_tokens=False, split_special_tokens=True)

    def encode() -> None:
        for batch in batches:
            engine.encode_batch_flat(batch, add_special_tokens=False, split_special_tokens=True)

    return {**found, "encode": seconds_of(encode)}


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
        print(json.dumps(pieces(args.input, args.tokenizer)))
        return
    everywhere = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if everywhere:
        os.sched_setaffinity(0, {max(everywhere)})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ten = folder / "ten.jsonl"
        ten.write_bytes(b"\n".join(next(lines_of(args.input))[:10]) + b"\n")
        best: dict[tuple[str, Path], float] = {}
        alone: dict[str, float] = {}
        child = [sys.executable, __file__, str(args.input), "--tokenizer", str(args.tokenizer), "--child"]
        one_thread = {**os.environ, "RAYON_NUM_THREADS": "1", "FASTOKENS_BPE_THREADS": "1"}
        for _ in range(args.repeat):
            told = json.loads(subprocess.run(child, env=one_thread, capture_output=True, check=True).stdout)
            alone = {name: min(alone.get(name, 1e9), seconds) for name, seconds in told.items()}
            for path in (ten, args.input):
                for name in ("floor", "stats"):
                    arguments = (
                        stats_command(path, args.tokenizer)
                        if name == "stats"
                        else command(name, path, args.tokenizer, folder)
                    )
                    seconds, _ = cpu_seconds(arguments, folder)
                    best[name, path] = min(best.get((name, path), 1e9), seconds)
        whole = {name: best[name, args.input] for name in ("floor", "stats")}
        net = {name: whole[name] - best[name, ten] for name in whole}
        encode = alone["encode"]
        print("CPU s: " + ", ".join(f"{name} {seconds:.3f}" for name, seconds in {**alone, **net}.items()))
        print(f"net: stats is {net['stats'] / encode:.2f} times encode, {net['stats'] / net['floor']:.2f} times floor")
        least = 1 + alone["rows"] / encode
        print(
            f"rows and encode, with nothing between them, are {least:.2f} times encode: unpack is "
            f"{alone['unpack'] / encode:.2f} of it, lines and JSON {(alone['rows'] - alone['unpack']) / encode:.2f}"
        )
        print(
            f"with start-up: stats {whole['stats']:.3f}, floor {whole['floor']:.3f}: "
            f"{whole['stats'] / whole['floor']:.2f} times"
        )
        if everywhere:
            os.sched_setaffinity(0, everywhere)
        if not args.packed_gb:
            return
        size, seconds = packed_seconds(args.input, args.tokenizer, args.packed_gb, folder)
        print(f"packcli stats on {size:.2f} GB packed: {seconds:.2f} s wall")


if __name__ == "__main__":
    main()
