"""How few packs the strategies leave, how near the proven minimum that is, and what it costs.

    python tests/benchmarks/bench_planner.py [LENGTHS.npy ...] [--max] [--limits] [--prototype DIR] [--huge]

Every plan of the first table is checked. Exits with 1 when best-fit leaves more packs than the best peer on any
set where one was measured. An .npy file holds the lengths of documents; those over max_len are split first. All
times are CPU seconds of one core. --help tells the other options.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import os
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

import packcli
from packcli.packing import Plan, balance_plan
from packcli.packing.plan import check_plan
from packcli.packing.strategies import count_bound, group_costs
from packcli.packing.strategies.best_fit.portfolio import best_fit, plan_histogram
from packcli.packing.strategies.next_fit import next_fit
from packcli.packing.strategies.patterns import count_lengths, num_packs

Given = ParamSpec("Given")
Result = TypeVar("Result")

MAX_LEN = 2048
SEED = 1
MILLION = 1_000_000

FIRST_FIT_AT_MOST = 100_000
"""Documents: first-fit takes 2 us for each."""

PEERS = {
    "gsm8k": (7_473, 1_139_709, 560),
    "short": (449_972, 36_479_574, 17_814),
    "mix200": (44_742, 72_851_784, 35_573),
    "mid 10k": (10_000, 7_684_571, 4_165),
    "lognormal-512 10k": (10_000, 5_168_653, 2_525),
    "lognormal-512 100k": (100_000, 51_072_938, 24_940),
    "lognormal-512": (1_000_000, 512_876_893, 250_447),
    "lognormal-512 10M": (10_000_000, 5_136_416_032, 2_508_194),
    "Wikipedia-512": (16_279_552, 4_164_796_173, 8_138_483),
    "SQuAD-384": (88_641, 15_249_479, 40_631),
}
"""Segments, tokens, and the fewest packs that any peer leaves without cutting documents that fit.

Measured in November 2026 on the same lengths, though not every peer on every set: seqpacker, TRL, axolotl,
fast-axolotl, NeMo, NeMo-RL, NeMo-Automodel, LLaMA-Factory, OLMo-core, ms-swift, torchtune, grain, prtpy, binpacking,
and Krell's SPFHP and LPFHP. The best of them do best-fit or first-fit decreasing. The first three sets are real text
in tokens of GPT-2, with EOS; the last two are Krell's histograms.
"""

LIMITS = {"Wikipedia-512": (3,), "gsm8k": (8, 16), "short": (16, 32)}
"""Most documents a pack, for the sets where that binds."""

NNLSHP_3 = 0.9975
"""Utilisation that Krell et al. report for NNLSHP on Wikipedia with at most three sequences a pack."""

CLAIMS = {256: "80 %", 512: "85 %", 1024: "90 %"}
"""Mean length -> utilisation that fast-axolotl claims at max_len 2048.

github.com/neul-labs/fast-axolotl, commit 8d13297, documentation/docs/user-guide/token-packing.md, "Benchmarks".
"""


class LengthSet(NamedTuple):
    """Lengths to pack, none over MAX_LEN, int32[S]."""

    name: str
    lengths: NDArray[np.int32]


def lognormal(mean: int, count: int) -> NDArray[np.int32]:
    """Sigma 1, clipped to 1..MAX_LEN, with a median such that the mean after clipping is as asked."""
    random = np.random.default_rng(SEED)
    sample = random.standard_normal(200_000)
    low, high = 0.0, 12.0
    for _ in range(50):
        middle = (low + high) / 2
        if np.clip(np.exp(middle + sample), 1, MAX_LEN).mean() < mean:
            low = middle
        else:
            high = middle
    lengths = np.empty(count, dtype=np.int32)
    for first in range(0, count, MILLION):  # in parts, to need little memory
        part = lengths[first : first + MILLION]
        part[:] = np.clip(np.exp(middle + random.standard_normal(len(part))), 1, MAX_LEN)
    return lengths


def bimodal(count: int) -> NDArray[np.int32]:
    """70 % around 200, 30 % around 1500."""
    random = np.random.default_rng(SEED)
    short, long = random.normal(200, 50, count), random.normal(1500, 200, count)
    return np.clip(np.where(random.random(count) < 0.7, short, long), 1, MAX_LEN).astype(np.int32)


def uniform(first: int, last: int, count: int) -> NDArray[np.int32]:
    return np.random.default_rng(SEED).integers(first, last + 1, count).astype(np.int32)


def geometric(mean: int, count: int) -> NDArray[np.int32]:
    return np.clip(np.random.default_rng(SEED).geometric(1 / mean, count), 1, MAX_LEN).astype(np.int32)


def from_file(path: Path) -> LengthSet:
    """Documents over MAX_LEN as chunks and a remainder; all of it in a random order."""
    lengths = np.load(path).astype(np.int64)
    chunks, rest = np.divmod(lengths, MAX_LEN)
    segments = np.concatenate((np.full(chunks.sum(), MAX_LEN), rest[rest > 0])).astype(np.int32)
    name = path.stem.removeprefix("lens_")
    if name in PEERS and PEERS[name][:2] != (len(segments), segments.sum()):
        name = path.name  # the same name, but other lengths than peers were measured on
    return LengthSet(name, np.random.default_rng(SEED).permutation(segments))


def generated() -> Iterator[LengthSet]:
    yield LengthSet("lognormal-256", lognormal(256, MILLION))
    yield LengthSet("lognormal-512 10k", lognormal(512, 10_000))
    yield LengthSet("lognormal-512 100k", lognormal(512, 100_000))
    yield LengthSet("lognormal-512", lognormal(512, MILLION))
    yield LengthSet("lognormal-1024", lognormal(1024, MILLION))
    yield LengthSet("uniform", uniform(1, MAX_LEN, MILLION))
    yield LengthSet("bimodal", bimodal(MILLION))
    yield LengthSet("geometric-40", geometric(40, MILLION))
    yield LengthSet("all 1025", np.full(MILLION, MAX_LEN // 2 + 1, dtype=np.int32))
    yield LengthSet("mid 10k", uniform(MAX_LEN // 4, MAX_LEN // 2, 10_000))
    yield LengthSet("mid", uniform(MAX_LEN // 4, MAX_LEN // 2, MILLION))


def krell() -> dict[str, NDArray[np.int64]]:
    """Counts of each length from 0 on; the last is max_len."""
    published = json.loads(Path(__file__).with_name("lengths").joinpath("krell.json").read_text())
    return {
        "Wikipedia-512": np.array(published["wikipedia_512"]),
        "SQuAD-384": np.array(published["squad_384"]),
    }


class Peers:
    """Holds our packs against those of the best peer."""

    def __init__(self) -> None:
        self.compared: set[str] = set()
        self.worse: list[str] = []

    def compare(self, name: str, num_segments: int, num_tokens: int, packs: int, who: str) -> str:
        """A cell of the table; "" when no peer was measured on this set."""
        if name not in PEERS:
            return ""
        segments, tokens, best = PEERS[name]
        if (segments, tokens) != (num_segments, num_tokens):
            raise SystemExit(f"{name}: these are not the lengths that peers were measured on")
        self.compared.add(name)
        if packs > best:
            self.worse.append(f"{who} leaves {packs - best} packs more than the best peer on {name}")
            return f"{best:,}: ours {packs - best:,} MORE"
        return f"{best:,}: ours {best - packs:,} fewer" if packs < best else f"{best:,}: same"

    def exit(self) -> None:
        print(f"\nbest-fit was held against peers on {len(self.compared)} sets: {', '.join(sorted(self.compared))}.")
        print("\n".join(self.worse) if self.worse else "It leaves more packs than the best of them on none.")
        sys.exit(1 if self.worse else 0)


def least(function: Callable[Given, Result], *args: Given.args, **options: Given.kwargs) -> tuple[float, Result]:
    """(CPU seconds, result): the least of three runs, or the first one when it takes over 5 s."""
    seconds = math.inf
    for _ in range(3):
        began = time.process_time()
        result = function(*args, **options)
        seconds = min(seconds, time.process_time() - began)
        if seconds > 5:
            break
    return seconds, result


def peak_mb(function: Callable[Given, Any], *args: Given.args, **options: Given.kwargs) -> float:
    """The most memory that is taken at any time, besides what there is before, in MB."""
    tracemalloc.start()
    try:
        function(*args, **options)
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def length_correlation(plan: Plan) -> float:
    """Of the length of a segment with the mean length of its pack mates; nan when there are none or all are alike."""
    count = plan.docs_per_pack
    num_mates = np.repeat(count - 1, count)
    own = plan.segments.length[plan.order].astype(np.float64)
    mates = np.repeat(plan.pack_tokens, count) - own
    own, mates = own[num_mates > 0], mates[num_mates > 0] / num_mates[num_mates > 0]
    if not len(own) or np.ptp(own) == 0 or np.ptp(mates) == 0:
        return math.nan
    return float(np.corrcoef(own, mates)[0, 1])


def imbalance(plan: Plan) -> float:
    """Attention cost of the most expensive group of eight packs / mean; nan when there is no group."""
    costs = group_costs(plan.pack_costs)
    return float(costs.max() / costs.mean()) if len(costs) else math.nan


def cell(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def print_header(*names: str) -> None:
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}")


def print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def table(files: list[Path], efforts: list[str], peers: Peers) -> None:
    print(f"max_len {MAX_LEN}, times of packcli.plan; minimum: no packing has fewer packs, proven")
    print("corr.: of a document's length with the mean length of its pack mates")
    print("cost: attention cost, max/mean over groups of 8 rows, as planned and with balance")
    print_header(
        "lengths", "segments", "strategy", "packs", "utilisation", "above minimum", "us/doc", "corr.", "cost",
        "balanced", "best peer",
    )  # fmt: skip
    for name, lengths in [*map(from_file, files), *generated()]:
        tokens = int(lengths.sum(dtype=np.int64))
        runs: list[tuple[str, dict[str, Any]]] = [(f"best-fit {effort}", {"effort": effort}) for effort in efforts]
        runs += [(strategy, {"strategy": strategy}) for strategy in ("shuffle-fit", "first-fit", "next-fit")]
        runs.insert(-2, ("shuffle-fit fast", {"strategy": "shuffle-fit", "effort": "fast"}))
        plans = {}
        for label, options in runs:
            if label != "first-fit" or len(lengths) <= FIRST_FIT_AT_MOST:
                plans[label] = least(packcli.plan, lengths, MAX_LEN, **options)
        minimum = max(plan.lower_bound for _, plan in plans.values())
        for label, (seconds, plan) in plans.items():
            check_plan(plan, lengths.astype(np.int64))
            balanced = math.nan if label in ("first-fit", "next-fit") else imbalance(balance_plan(plan))
            against = peers.compare(name, len(lengths), tokens, plan.num_packs, label) if "best" in label else ""
            print_row(
                name,
                f"{len(lengths):,}",
                label,
                f"{plan.num_packs:,}",
                f"{plan.utilisation:.3%}",
                f"{plan.num_packs - minimum:,}",
                f"{seconds / len(lengths) * 1e6:.3f}",
                cell(length_correlation(plan), "+.3f"),
                cell(imbalance(plan), ".3f"),
                cell(balanced, ".3f"),
                against,
            )


def krell_table(efforts: list[str], peers: Peers) -> None:
    print("\nHistograms of Krell et al. (arXiv 2107.02027): the plan alone, without assignment")
    print_header(
        "lengths", "segments", "strategy", "packs", "utilisation", "minimum", "above minimum", "CPU s", "best peer"
    )
    for name, histogram in krell().items():
        max_len = len(histogram) - 1
        tokens = int((histogram * np.arange(max_len + 1)).sum())
        answers = {effort: least(plan_histogram, histogram, max_len, effort=effort) for effort in efforts}
        minimum = max(answer.lower_bound for _, answer in answers.values())
        for effort, (seconds, answer) in answers.items():
            packs = num_packs(answer.patterns)
            label = f"best-fit {effort}"
            print_row(
                name,
                f"{histogram.sum():,}",
                label,
                f"{packs:,}",
                f"{tokens / (packs * max_len):.3%}",
                f"{minimum:,}",
                f"{packs - minimum:,}",
                f"{seconds:.3f}",
                peers.compare(name, int(histogram.sum()), tokens, packs, label),
            )


def claims_table() -> None:
    """Beside what fast-axolotl claims, what its rule gives: next fit, with an EOS and a PAD after every document.

    Its pack_sequences panics on documents over MAX_LEN - 2, so they are cut for it, and for it alone.
    """
    print("\nfast-axolotl's documentation (commit 8d13297) against best-fit: utilisation, 20,000 documents")
    print_header("mean length", "claimed", "lengths", "unpacked", "fast-axolotl's rule", "best-fit", "packs", "minimum")
    for mean, claim in CLAIMS.items():
        for shape, lengths in (("lognormal", lognormal(mean, 20_000)), ("uniform", uniform(1, 2 * mean - 1, 20_000))):
            cut = np.minimum(lengths, MAX_LEN - 2)
            theirs = len(next_fit(cut + 2, MAX_LEN).pack_offsets) - 1
            plan = packcli.plan(lengths, MAX_LEN)
            print_row(
                str(mean),
                f"{claim}+",
                shape,
                f"{lengths.mean() / MAX_LEN:.1%}",
                f"{cut.sum() / (theirs * MAX_LEN):.2%}",
                f"{plan.utilisation:.3%}",
                f"{plan.num_packs:,}",
                f"{plan.lower_bound:,}",
            )


def limits_table(files: list[Path], efforts: list[str]) -> None:
    print("\n--max-docs-per-pack: packs above the proven minimum, which counts the limit too; CPU s of the plan")
    print_header("lengths", "limit", "strategy", "packs", "utilisation", "minimum", "above minimum", "CPU s", "remark")
    histograms = {"Wikipedia-512": krell()["Wikipedia-512"]}
    for name, lengths in map(from_file, files):
        histograms[name] = count_lengths(lengths, MAX_LEN)
    for name, histogram in histograms.items():
        max_len = len(histogram) - 1
        tokens = int((histogram * np.arange(max_len + 1)).sum())
        for limit in LIMITS.get(name, ()):
            answers = {effort: least(plan_histogram, histogram, max_len, limit, effort) for effort in efforts}
            minimum = max(answer.lower_bound for _, answer in answers.values())
            for effort, (seconds, answer) in answers.items():
                packs = num_packs(answer.patterns)
                assert all(sum(each for _, each in items) <= limit for _, items in answer.patterns)
                remark = answer.found_by
                if limit == 3:
                    remark += f"; Krell et al. report {NNLSHP_3:.2%} for NNLSHP"
                print_row(
                    name,
                    str(limit),
                    f"best-fit {effort}",
                    f"{packs:,}",
                    f"{tokens / (packs * max_len):.3%}",
                    f"{minimum:,}",
                    f"{packs / minimum - 1:.3%}",
                    f"{seconds:.3f}",
                    remark,
                )


def strategy_packs(lengths: NDArray[np.int32], max_len: int, *, effort: str = "normal") -> int:
    return len(best_fit(lengths, max_len, effort=effort).pack_offsets) - 1


def plan_packs(lengths: NDArray[np.int32], max_len: int) -> int:
    return packcli.plan(lengths, max_len).num_packs


def prototype_table(folder: Path, peers: Peers) -> None:
    """Beside the laboratory's code: histogram best-fit decreasing, and FILL where that is above the bound."""
    sys.path.insert(0, str(folder))
    histpack, fill = importlib.import_module("histpack"), importlib.import_module("fill")

    def prototype(lengths: NDArray[np.int32], max_len: int, *, with_fill: bool) -> int:
        histogram = np.bincount(lengths, minlength=max_len + 1)
        plans = [histpack.plan_bfd(histogram, max_len)]
        if with_fill and histpack.n_packs(plans[0]) > count_bound(histogram, max_len):
            plans.append(fill.plan_fill(histogram, max_len))
        patterns = min(plans, key=histpack.n_packs)
        histpack.assign(lengths, patterns, max_len)
        return int(histpack.n_packs(patterns))

    print("\nBeside the prototype, plan and assignment: CPU s; peak memory in MB besides the lengths")
    print_header("lengths", "max_len", "documents", "code", "packs", "above minimum", "CPU s", "peak MB", "best peer")
    sets = [(each.name, each.lengths, MAX_LEN) for each in generated() if len(each.lengths) == MILLION]
    sets.append(("lognormal-512 10M", lognormal(512, 10 * MILLION), MAX_LEN))
    long = np.clip(np.random.default_rng(SEED).lognormal(6.5, 1.5, MILLION), 1, 131_072).astype(np.int32)
    sets.append(("lognormal(6.5, 1.5)", long, 131_072))
    for name, lengths, max_len in sets:
        tokens = int(lengths.sum(dtype=np.int64))
        runs: dict[str, Callable[[NDArray[np.int32], int], int]] = {
            "prototype: decreasing": partial(prototype, with_fill=False),
            "best-fit fast": partial(strategy_packs, effort="fast"),
            "prototype: decreasing, FILL": partial(prototype, with_fill=True),
            "best-fit normal": strategy_packs,
            "packcli.plan": plan_packs,
        }
        minimum = packcli.plan(lengths, max_len).lower_bound
        for label, run in runs.items():
            seconds, packs = least(run, lengths, max_len)
            against = "" if "prototype" in label else peers.compare(name, len(lengths), tokens, packs, label)
            above = f"{packs - minimum:,}"
            shown = (f"{max_len:,}", f"{len(lengths):,}", label, f"{packs:,}", above, f"{seconds:.3f}")
            print_row(name, *shown, f"{peak_mb(run, lengths, max_len):.0f}", against)


def measure_huge(count: int) -> list[tuple[str, str, float, float]]:
    """(code, packs, CPU seconds, peak RSS so far in GB), for a process of its own."""

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9

    began = time.process_time()
    lengths = lognormal(512, count)
    rows = [("making the lengths", "", time.process_time() - began, peak())]
    for label, run in (
        ("best-fit fast", partial(strategy_packs, effort="fast")),
        ("best-fit normal", strategy_packs),
        ("packcli.plan", plan_packs),
    ):
        began = time.process_time()
        packs = run(lengths, MAX_LEN)
        rows.append((label, f"{packs:,}", time.process_time() - began, peak()))
    rows.append(("tokens / max_len", f"{-(-int(lengths.sum(dtype=np.int64)) // MAX_LEN):,}", 0.0, peak()))
    return rows


def huge_table() -> None:
    count = 100 * MILLION
    print(f"{count:,} documents, lognormal-512, in a process of its own (its lengths take {4 * count / 1e9:.1f} GB)")
    print_header("code", "packs", "CPU s", "peak RSS so far, GB")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for label, packs, seconds, peak in pool.submit(measure_huge, count).result():
            print_row(label, packs, f"{seconds:.2f}", f"{peak:.2f}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lengths", nargs="*", type=Path, help="lengths of documents, .npy")
    parser.add_argument("--max", action="store_true", help="best-fit with effort max too (minutes)")
    parser.add_argument("--limits", action="store_true", help="tables for --max-docs-per-pack")
    parser.add_argument("--seed-table", action="store_true", help="only fast-axolotl's claims against ours")
    parser.add_argument("--prototype", type=Path, help="folder with histpack.py and fill.py: run them beside ours")
    parser.add_argument("--huge", action="store_true", help="100 M documents: a minute, 2 GB of memory")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if args.seed_table:
        claims_table()
        return
    peers = Peers()
    efforts = ["fast", "normal", *(["max"] if args.max else [])]
    if args.huge:  # first, since the peak of a process counts for those that it starts
        huge_table()
    table(args.lengths, efforts, peers)
    krell_table(efforts, peers)
    claims_table()
    if args.limits:
        limits_table(args.lengths, efforts)
    if args.prototype:
        prototype_table(args.prototype, peers)
    peers.exit()


if __name__ == "__main__":
    main()
