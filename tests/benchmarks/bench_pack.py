"""CPU time of `packcli pack` beside its floor and beside `tokenizers`, in one run.

    python tests/benchmarks/bench_pack.py INPUT.jsonl[.zst] --tokenizer DIR [--repeat N] [--skip-tokenizers]

floor        reads the rows and encodes them with the fast engine; writes nothing, keeps nothing
compact, all `packcli pack` with one worker and those columns
tokenizers   encodes the same texts with `tokenizers` (given as lists, row decoding not counted as start-up)

Each is a process of its own, in turn; the figure is user + system CPU seconds, least of the repeats, from which
the start-up is taken: the same on the first ten documents of the input. Every process is pinned to one core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BUILTIN = Path(__file__).parents[2] / "packcli" / "tokenization" / "builtin"
CODECS = {".zst": "zstd", ".gz": "gzip"}


def lines_of(path: Path):
    """Blocks of whole lines, as a list each."""
    import pyarrow as pa

    raw = pa.OSFile(str(path))
    stream = pa.CompressedInputStream(raw, CODECS[path.suffix]) if path.suffix in CODECS else raw
    tail = b""
    while block := stream.read(1 << 20):
        *lines, tail = (tail + block).split(b"\n")
        yield lines
    if tail:
        yield [tail]


def texts_of(path: Path):
    import msgspec

    row = msgspec.defstruct("Row", [("text", str)], gc=False)
    decode = msgspec.json.Decoder(row).decode
    for lines in lines_of(path):
        yield [decode(line).text for line in lines if line]


def floor(path: Path, tokenizer: Path) -> int:
    import fastokens

    engine = fastokens.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    num_tokens = 0
    for texts in texts_of(path):
        for first in range(0, len(texts), 64):
            ids, _ = engine.encode_batch_flat(
                texts[first : first + 64], add_special_tokens=False, split_special_tokens=True
            )
            num_tokens += len(ids) // 4
    return num_tokens


def reference(path: Path, tokenizer: Path) -> int:
    import tokenizers

    engine = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    engine.encode_special_tokens = True
    return sum(
        len(encoding.ids)
        for texts in texts_of(path)
        for encoding in engine.encode_batch_fast(texts, add_special_tokens=False)
    )


CHILDREN = {"floor": floor, "tokenizers": reference}


def command(name: str, path: Path, tokenizer: Path, folder: Path) -> list[str]:
    if name in CHILDREN:
        return [sys.executable, __file__, str(path), "--tokenizer", str(tokenizer), "--child", name]
    packcli = [sys.executable, "-m", "packcli", "pack", str(path), "-o", str(folder / "out"), "-q", "-w", "1"]
    return [*packcli, "--tokenizer", str(tokenizer), "--columns", name, "--tokenizer-engine", "fastokens"]


def cpu_seconds(arguments: list[str], folder: Path) -> tuple[float, int]:
    """User + system seconds and peak RSS in bytes of one process."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    environment["FASTOKENS_BPE_THREADS"] = "1"
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} failed with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=BUILTIN)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--skip-tokenizers", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        CHILDREN[args.child](args.input, args.tokenizer)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names = ["floor", "compact", "all"] + ["tokenizers"] * (not args.skip_tokenizers)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ten = folder / "ten.jsonl"
        lines = next(lines_of(args.input))[:10]
        ten.write_bytes(b"\n".join(lines) + b"\n")
        best: dict[tuple[str, Path], float] = {}
        peak: dict[str, int] = {}
        for turn in range(args.repeat):
            for name in names:
                if name == "tokenizers" and turn > 1:
                    continue  # it is slow, and its noise matters least
                for path in (ten, args.input):
                    seconds, rss = cpu_seconds(command(name, path, args.tokenizer, folder), folder)
                    best[name, path] = min(best.get((name, path), 1e9), seconds)
                    peak[name] = max(peak.get(name, 0), rss)
    net = {name: best[name, args.input] - best[name, ten] for name in names}
    rows = {
        name: {
            "cpu_s": round(best[name, args.input], 3),
            "startup_s": round(best[name, ten], 3),
            "net_s": round(net[name], 3),
            "over_floor": round(net[name] / net["floor"], 2),
            "peak_rss_mb": round(peak[name] / 1e6),
        }
        for name in names
    }
    if "tokenizers" in net:
        for name in names:
            rows[name]["times_less_than_tokenizers"] = round(net["tokenizers"] / net[name], 1)
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{args.input.name}, {args.tokenizer.name}; CPU seconds, least of {args.repeat}")
    header = list(next(iter(rows.values())))
    print("| |" + "|".join(header) + "|\n|---|" + "---|" * len(header))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(str(row[key]) for key in header) + " |")


if __name__ == "__main__":
    main()
