"""`packcli pack` beside other ways to the same training rows, in one run.

    python tests/benchmarks/bench_peers.py INPUT.jsonl[.zst] --tokenizer DIR [--repeat N] [--max-len 2048] [--json FILE]

packcli     best-fit and concat, with the interpreter that runs this script; all columns unless --columns compact
TRL         tokenise with `datasets`, trl.pack_dataset (bfd_split; bfd, its default), save_to_disk
datatrove   DocumentTokenizer and its merger: a stream of tokens on disk, windows cut by its reader

All get the same plain .jsonl with the one field "text", two processes, and in turn (A B C A B C) a whole process
each: interpreter start and imports are in the time, reading the output back is not. Wall and CPU are medians;
CPU adds up every process below; memory is the largest process, pages shared with others counted. Before each the
same tool packs ten documents: that is its start-up, shown below the table.

Tokens in are counted with `tokenizers`, one EOS a document. Special tokens that stand in a text are text to
packcli and control tokens to the peers, so the count is made both ways.

The peers live in a virtual environment of their own under .venv-peers/, made when first needed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENVS = HERE.parent.parent / ".venv-peers"
REQUIREMENTS = (
    ["torch==2.13.0"],  # alone and first, so that a CPU build is taken where pip finds one
    [
        "trl==1.16.0",
        "datasets==5.2.0",
        "transformers==5.23.0",
        "tokenizers==0.23.3",
        "datatrove[io,processing]==0.10.1",
        "orjson==3.13.0",
        "numpy==2.4.6",
    ],
)
SHOWN_VERSIONS = ("torch", "trl", "datasets", "transformers", "tokenizers", "datatrove", "pyarrow", "numpy")
PROCESSES = 2
TIMEOUT = 900.0
"""Seconds one process may take."""
PACKCLI = {"packcli best-fit": "best-fit", "packcli concat": "concat"}
PEERS = {
    "TRL bfd_split": ("trl_pack.py", "bfd_split"),
    "TRL bfd (default)": ("trl_pack.py", "bfd"),
    "datatrove concat": ("datatrove_concat.py",),
}
TOOLS = (*PACKCLI, *PEERS)


# Work in children: this process stays small, for its memory is a lower bound of theirs.


def prepare(path: Path, target: Path, fields: list[str]) -> None:
    """Writes the plain copy that everyone reads, and ten documents of it; rows without text are left out."""
    import pyarrow as pa

    sys.path.insert(0, str(HERE))
    from bench_pack import lines_of

    pa.set_cpu_count(1)
    ten, num_left_out, num_documents, num_bytes = [], 0, 0, 0
    with target.open("wb") as plain:
        for lines in lines_of(path):
            for line in lines:
                if not line.strip():
                    continue
                row = json.loads(line)
                text = "\n".join(row[field] for field in fields)
                num_left_out += not text
                if text:
                    num_documents += 1
                    num_bytes += len(text.encode())
                    plain.write(written := json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
                    ten += [written] * (len(ten) < 10)
    target.with_name("ten.jsonl").write_bytes(b"".join(ten))
    print(json.dumps({"documents": num_documents, "left_out": num_left_out, "text_bytes": num_bytes}))


def count(path: Path, tokenizer: Path, eos: str) -> None:
    """Counts the tokens of every text with `tokenizers`: special tokens in it as text, and as control tokens."""
    import numpy as np
    import tokenizers

    engine = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    eos_id = engine.token_to_id(eos)
    counts = {}
    for kind, as_text in (("text", True), ("control", False)):
        engine.encode_special_tokens = as_text
        bag = np.zeros(engine.get_vocab_size() + 1, np.int64)
        with path.open("rb") as lines:
            while block := [json.loads(line)["text"] for line in lines.readlines(1 << 22)]:
                encodings = engine.encode_batch_fast(block, add_special_tokens=False)
                bag += np.bincount(np.concatenate([each.ids for each in encodings]).astype(int), minlength=len(bag))
                bag[eos_id] += len(block)
        num_eos = int(bag[eos_id])
        counts[kind] = {"tokens": int(bag.sum()), "eos": num_eos, "ids": digest(bag)}
    print(json.dumps({**counts, "eos_id": eos_id}))


def digest(bag) -> str:
    """A name for how often each id occurs."""
    return hashlib.sha256(bag[: int(bag.nonzero()[0][-1]) + 1].astype("<i8").tobytes()).hexdigest()[:16]


def read_rows(folder: Path, eos_id: int) -> dict:
    """What a folder of Arrow shards holds, padding excluded: of packcli or of TRL."""
    import numpy as np
    import pyarrow as pa

    bag, num_rows, num_segments, num_starts = np.zeros(0, np.int64), 0, 0, 0
    has_sources = False
    for shard in sorted(folder.rglob("*.arrow")):
        for batch in pa.ipc.open_stream(pa.memory_map(str(shard))):
            ids = batch["input_ids"].flatten().to_numpy()
            widths = batch["input_ids"].value_lengths().to_numpy()
            num_segments += len(batch["seq_lengths"].flatten())
            num_rows += batch.num_rows
            if "sources" in batch.schema.names:  # rows are padded; the segments say how much of each is real
                has_sources = True
                parts = batch["sources"].flatten()
                num_starts += int((parts.field("start").to_numpy() == 0).sum())
                lengths = parts.field("end").to_numpy() - parts.field("start").to_numpy()
                ends = np.cumsum(batch["sources"].value_lengths().to_numpy())
                real = np.diff(np.concatenate([[0], np.cumsum(lengths)[ends - 1]]))
                place = np.arange(len(ids)) - np.repeat(np.cumsum(widths) - widths, widths)
                ids = ids[place < np.repeat(real, widths)]
            found = np.bincount(ids)
            bag = np.pad(bag, (0, max(0, len(found) - len(bag))))
            bag[: len(found)] += found
    documents = num_starts if has_sources else None
    found = {"documents": documents, "segments": num_segments, "rows": num_rows, "tokens": int(bag.sum())}
    return {**found, "eos": int(bag[eos_id]), "ids": digest(bag)}


def read_stream(folder: Path, max_len: int) -> dict:
    """What datatrove left: tokens in .ds, ends of documents in .ds.index; its reader cuts windows of max_len + 1."""
    import numpy as np

    bag, num_documents, num_rows, num_unread = np.zeros(0, np.int64), 0, 0, 0
    for stream in sorted(folder.glob("*.ds")):
        ends = np.fromfile(f"{stream}.index", "<u8")
        width = stream.stat().st_size // int(ends[-1])
        found = np.bincount(np.fromfile(stream, f"<u{width}"))
        bag = np.pad(bag, (0, max(0, len(found) - len(bag))))
        bag[: len(found)] += found
        num_documents += len(ends)
        num_rows += int(ends[-1]) // (max_len + 1)
        num_unread += int(ends[-1]) % (max_len + 1)
    found = {"documents": num_documents, "rows": num_rows, "tokens": int(bag.sum()), "unread": num_unread}
    return {**found, "ids": digest(bag)}


def in_child(task: str, *arguments: object) -> dict:
    """Runs one of the functions above in a process of its own."""
    command = [sys.executable, __file__, "--child", task, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
    return json.loads(done.stdout)


def child(task: str, *arguments: str) -> None:
    if task == "prepare":
        prepare(Path(arguments[0]), Path(arguments[1]), arguments[2].split(","))
    elif task == "count":
        count(Path(arguments[0]), Path(arguments[1]), arguments[2])
    elif task == "rows":
        print(json.dumps(read_rows(Path(arguments[0]), int(arguments[1]))))
    elif task == "stream":
        print(json.dumps(read_stream(Path(arguments[0]), int(arguments[1]))))


# The environment of the peers


def peers_python() -> Path:
    """The interpreter of the peers, made once per set of requirements."""
    key = hashlib.sha256(json.dumps([REQUIREMENTS, sys.version_info[:2]]).encode()).hexdigest()[:12]
    home = VENVS / key
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (home / "complete").exists():
        return python
    shutil.rmtree(home, ignore_errors=True)
    print(f"making {home} (minutes)", file=sys.stderr)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    for command in ([sys.executable, "-m", "venv", str(home)], *([*pip, *names] for names in REQUIREMENTS)):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no message"]
            raise RuntimeError(f"{' '.join(command[1:4])} failed: {lines[-1]}")
    (home / "complete").touch()
    return python


def peer_versions(python: Path) -> dict[str, str]:
    script = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {SHOWN_VERSIONS!r}}}))"
    return json.loads(subprocess.run([str(python), "-c", script], capture_output=True, check=True).stdout)


# Measuring


def adopt_orphans() -> None:
    """Processes whose parent ends become ours, so that they are waited for and counted (Linux)."""
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def measure(command: list[str], folder: Path) -> dict:
    """One whole process and all below it: seconds, CPU seconds, bytes of the largest; or the last line of its error."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "scratch").mkdir(parents=True)
    environment = {
        **os.environ,
        "HF_HOME": str(folder / "scratch"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",  # the processes fill the cores
    }
    with (folder / "log").open("w+b") as log:  # not a pipe: someone left behind would hold it open
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

        timer = threading.Timer(TIMEOUT, kill_group, [process.pid])
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        usages = [usage, *orphans(process.pid)]
        if process.returncode:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
            late = f"over {TIMEOUT:.0f} s; " if wall >= TIMEOUT else ""
            return {"error": f"{late}exit status {process.returncode}: {lines[-1][:200]}"}
    to_bytes = 1 if sys.platform == "darwin" else 1024
    return {
        "wall_s": wall,
        "cpu_s": sum(each.ru_utime + each.ru_stime for each in usages),
        "peak_rss_mb": max(each.ru_maxrss for each in usages) * to_bytes / 1e6,
    }


def kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def orphans(group: int) -> list:
    """Waits for what a process left behind (fork servers, trackers); after five seconds it is killed."""

    timer = threading.Timer(5.0, kill_group, [group])
    timer.start()
    usages = []
    try:
        while True:
            usages.append(os.wait4(-1, 0)[2])
    except ChildProcessError:
        return usages
    finally:
        timer.cancel()


def command_of(tool: str, path: Path, folder: Path, args: argparse.Namespace, eos: str, python: Path) -> list[str]:
    if tool in PACKCLI:
        packcli = [sys.executable, "-m", "packcli", "pack", str(path), "-o", str(folder / "out"), "-q", "--no-bos"]
        packcli += ["--strategy", PACKCLI[tool], "--columns", args.columns, "-w", str(PROCESSES)]
        return [*packcli, "--tokenizer", str(args.tokenizer), "--eos-token", eos, "--max-len", str(args.max_len)]
    script, *rest = PEERS[tool]
    places = [str(path), str(args.tokenizer), eos, str(folder / "out"), str(folder / "scratch")]
    return [str(python), str(HERE / "peers" / script), *places, str(args.max_len), str(PROCESSES), *rest]


def read_back(tool: str, folder: Path, reference: dict, max_len: int) -> dict:
    """What the output holds, beside what went in."""
    kind = reference["text" if tool in PACKCLI else "control"]
    if "datatrove" in tool:
        found = in_child("stream", folder / "out", max_len)
    else:
        found = in_child("rows", folder / "out", reference["eos_id"])
        if tool == "TRL bfd (default)":  # it cuts the EOS off with the tail; a segment is a document
            found["documents"] = found["segments"]
        elif found["documents"] is None:
            found["documents"] = found["eos"] - (kind["eos"] - reference["documents"])
    found["tokens_in"] = kind["tokens"]
    found["lost"] = kind["tokens"] - found["tokens"]
    found["same_ids"] = found["ids"] == kind["ids"]
    found["utilisation"] = None if "unread" in found else found["tokens"] / (found["rows"] * max_len)
    return found


def bench(args: argparse.Namespace, work: Path) -> dict:
    settings = json.loads((args.tokenizer / "tokenizer_config.json").read_bytes())
    eos = settings["eos_token"]
    eos = eos["content"] if isinstance(eos, dict) else eos
    plain, ten = work / "input.jsonl", work / "ten.jsonl"
    reference = in_child("prepare", args.input, plain, args.fields)
    reference |= in_child("count", plain, args.tokenizer, eos)
    (work / "reference.json").write_text(json.dumps(reference))
    failed: dict[str, str] = {}
    python, versions = Path(), {}
    try:
        python = peers_python()
        versions = peer_versions(python)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        failed = dict.fromkeys(PEERS, str(error))
    adopt_orphans()
    runs: dict[str, list[dict]] = {tool: [] for tool in TOOLS}
    found: dict[str, dict] = {}
    for turn in range(args.repeat):
        for tool in TOOLS:
            if tool in failed:
                continue
            folder = work / "run"
            start_up = measure(command_of(tool, ten, folder, args, eos, python), folder)
            run = (
                start_up if "error" in start_up else measure(command_of(tool, plain, folder, args, eos, python), folder)
            )
            try:
                if "error" in run:
                    raise RuntimeError(run["error"])
                found[tool] = read_back(tool, folder, reference, args.max_len)
            except RuntimeError as error:
                failed[tool] = str(error)
                continue
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            runs[tool].append({**run, "startup_wall_s": start_up["wall_s"], "startup_cpu_s": start_up["cpu_s"]})
            print(f"{turn + 1}/{args.repeat} {tool}: {run['wall_s']:.2f} s", file=sys.stderr)
    return {
        "input": args.input.name,
        "tokenizer": args.tokenizer.name,
        "max_len": args.max_len,
        "columns": args.columns,
        "repeat": args.repeat,
        "reference": reference,
        "machine": machine(),
        "versions": {"python": platform.python_version(), "packcli": version("packcli"), "peers": versions},
        "found": found,
        "runs": runs,
        "failed": failed,
    }


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores, {name}, {platform.system()}"


# Showing


def show(result: dict) -> None:
    reference, found, runs = result["reference"], result["found"], result["runs"]
    print(
        f"{result['input']}: {reference['documents']:,} documents, {reference['text_bytes'] / 1e6:.1f} MB of text; "
        f"{result['tokenizer']}; rows of {result['max_len']:,} tokens; {PROCESSES} processes each; "
        f"median (least-most) of {result['repeat']}, interleaved\n{result['machine']}\n"
    )
    header = "tool | wall s | CPU s | peak RSS MB | tokens in | tokens out | lost | rows | utilisation".split(" | ")
    print("| " + " | ".join(header) + " |\n|---" + "|---:" * (len(header) - 1) + "|")
    for tool in TOOLS:
        if tool in result["failed"]:
            print(f"| {tool} | failed: {result['failed'][tool].replace('|', '/')} |" + " |" * (len(header) - 2))
            continue
        walls = [run["wall_s"] for run in runs[tool]]
        got = found[tool]
        print(
            f"| {tool} | {statistics.median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f}) "
            f"| {statistics.median(run['cpu_s'] for run in runs[tool]):.2f} "
            f"| {max(run['peak_rss_mb'] for run in runs[tool]):.0f} "
            f"| {got['tokens_in']:,} | {got['tokens']:,} | {lost(got)} "
            f"| {got['rows']:,}{' (windows)' if 'unread' in got else ''} "
            f"| {'-' if got['utilisation'] is None else format(got['utilisation'], '.2%')} |"
        )
    print("\nWhole processes: interpreter start and imports are in the time. On ten documents (least) that is\n")
    print("| tool | wall s | CPU s |\n|---|---:|---:|")
    for tool in TOOLS:
        if tool not in result["failed"]:
            least = [min(run[f"startup_{key}_s"] for run in runs[tool]) for key in ("wall", "cpu")]
            print(f"| {tool} | {least[0]:.2f} | {least[1]:.2f} |")
    print()
    for line in notes(result):
        print(f"- {line}")


def lost(got: dict) -> str:
    if got["lost"]:
        return f"{got['lost']:,} ({got['lost'] / got['tokens_in']:.2%})"
    return "0" if got["same_ids"] else "0, but other ids"


def notes(result: dict):
    reference, found = result["reference"], result["found"]
    yield "tokens in: counted with `tokenizers`, and one EOS a document; tokens out: read from the output, no padding"
    if reference["text"]["ids"] != reference["control"]["ids"]:
        yield "special tokens stand in some texts: text to packcli, control tokens to the peers"
    if reference["left_out"]:
        yield f"{reference['left_out']:,} rows without text left out"
    for tool, got in found.items():
        if got["documents"] != reference["documents"]:
            yield f"{tool}: {got['documents']:,} of {reference['documents']:,} documents"
        if "unread" in got:
            yield f"{tool}: no rows on disk; its reader cuts windows of max_len + 1 and leaves {got['unread']:,} tokens"
    versions = result["versions"]
    peers = ", ".join(f"{name} {number}" for name, number in versions["peers"].items())
    yield f"Python {versions['python']}, packcli {versions['packcli']} (columns {result['columns']}); peers: {peers}"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory with tokenizer.json and its config")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--max-len", type=int, default=2048)
    parser.add_argument("--fields", default="text", help="the text, or several joined by a newline: question,answer")
    parser.add_argument("--columns", default="all", help="what packcli writes; TRL writes what compact is")
    parser.add_argument("--json", type=Path, help="also write every figure of every run here")
    args = parser.parse_args()
    args.input, args.tokenizer = args.input.resolve(), args.tokenizer.resolve()
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as work:
        result = bench(args, Path(work))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    show(result)


if __name__ == "__main__":
    main()
