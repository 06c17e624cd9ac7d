"""CPU time of chats beside that of the same words as plain text.

    python tests/benchmarks/bench_chat.py chat.jsonl --tokenizer DIR [--size 100MB] [--repeat N] [--profile]

The rows are repeated up to the size. `text` packs the same words, a row of text for each row of messages. Each run is a
process of its own, pinned to one core, with one worker; the figure is user + system CPU seconds, least of the repeats,
less the start-up (the same on ten rows). MB are those of the JSONL that is read.

--profile says where the time of a chat goes: cProfile over the same work in this process.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import tempfile
from pathlib import Path

from bench_pack import BUILTIN, cpu_seconds

from packcli.config import parse_size

SAMPLE = Path(__file__).parents[2] / "sample_data" / "chat.jsonl"


def write_inputs(source: Path, size: int, folder: Path) -> dict[str, Path]:
    chats = [line for line in source.read_bytes().split(b"\n") if line]
    texts = []
    for line in chats:
        words = "\n".join(message["content"] for message in json.loads(line)["messages"])
        texts.append(json.dumps({"text": words}, ensure_ascii=False).encode())
    copies = -(-size // sum(len(line) + 1 for line in chats))
    made = {}
    for name, lines in (("chat", chats), ("text", texts)):
        made[name], made[f"{name} ten"] = folder / f"{name}.jsonl", folder / f"{name}-ten.jsonl"
        made[f"{name} ten"].write_bytes(b"\n".join(lines[:10]) + b"\n")
        with open(made[name], "wb") as file:
            for _ in range(copies):
                file.write(b"\n".join(lines) + b"\n")
    return made


def command(path: Path, tokenizer: Path, folder: Path) -> list[str]:
    packcli = [sys.executable, "-m", "packcli", "pack", str(path), "-o", str(folder / "out"), "-q", "-w", "1"]
    return [*packcli, "--tokenizer", str(tokenizer), "--strategy", "best-fit"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--tokenizer", type=Path, default=BUILTIN)
    parser.add_argument("--size", default="100MB")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        inputs = write_inputs(args.input, parse_size(args.size), folder)
        if args.profile:
            import packcli

            with cProfile.Profile() as profile:
                packcli.pack(inputs["chat"], folder / "out", tokenizer=str(args.tokenizer), workers=1)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            return
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        best: dict[str, float] = {}
        for _ in range(args.repeat):
            for name, path in inputs.items():
                seconds, _ = cpu_seconds(command(path, args.tokenizer, folder), folder)
                best[name] = min(best.get(name, 1e9), seconds)
        speeds = {}
        print("| | MB of JSONL | CPU s | MB/s |\n|---|---:|---:|---:|")
        for name in ("text", "chat"):
            size, net = inputs[name].stat().st_size / 1e6, best[name] - best[f"{name} ten"]
            speeds[name] = size / net
            print(f"| {name} | {size:.1f} | {net:.2f} | {speeds[name]:.1f} |")
        print(f"\nchat / text: {speeds['chat'] / speeds['text']:.2f}")


if __name__ == "__main__":
    main()
