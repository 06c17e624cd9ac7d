"""Mixtures: inputs with shares of the tokens that are packed.

    --mix paths            find_components    -> which sources are whose
    every document once    count_unit         -> tokens by component and hash, bytes of text by source
    shares, --tokens       plan_mix           -> epochs and threshold of each component: what the manifest calls `mix`
    mix                    readers.cut_mixed  -> units that hold all components in proportion

Tokens are counted, not guessed: a first pass tokenizes the inputs, and keeps sums only. Rows that cannot be used have
no tokens; the run itself keeps them apart, as often as it takes them.

A component of A tokens of which W are wanted is taken W // A times whole, and once more in part: those documents whose
hash, a number in 0..2^32 made of seed, file and row, is below a threshold. With weights 0.75 and 0.25:

    component   tokens   wanted of 1,000   whole epochs   of the next
    web         3,000    750               0              a quarter of the documents
    code        100      250               2              half of them

The threshold is found on sums of tokens by hash, not on the number of documents, so that the share of tokens is met.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from packcli import readers, tokenization
from packcli.config import PackConfig, RunOptions, parse_mix, reading_rules
from packcli.dataset import Output, fingerprint
from packcli.errors import NoInputError, UsageError
from packcli.packing import kept_lengths
from packcli.pipeline import probe
from packcli.pipeline.documents import read_documents
from packcli.pipeline.engines import Emit, Executor, local_executor
from packcli.pipeline.job import Recipe, RunSpec
from packcli.pipeline.plan_part import with_loss
from packcli.pipeline.workers import for_each_unit
from packcli.seeds import ALL, HASH_BITS, Ints, row_hashes

NUM_BUCKETS = 1 << 12
"""Ranges of hashes for which tokens are summed: a share is met to about 1/4,096 of the tokens of its component."""

MOST_EPOCHS = 1000
"""Epochs of a component from which on --tokens or a weight is taken for a mistake."""


@dataclass(frozen=True, slots=True)
class Component:
    """One input of a mixture: a file, or those of a directory or glob."""

    name: str
    share: float
    first_source: int
    num_sources: int


def mixed(
    config: PackConfig,
    options: RunOptions,
    target: Output,
    spec: RunSpec,
    num_cpus: int,
    emit: Emit,
    begin: Callable[[int, int], None],
) -> RunSpec:
    """A run with its inputs mixed. Counts their tokens, unless the output knows them from an earlier run.

    Args:
        config: Resolved.
        options: How to carry it out; tokens are counted on this machine.
        target: The output.
        spec: The run, with its inputs one after the other.
        num_cpus: Processes, unless options say how many.
        emit: Takes Progress events.
        begin: Called with the bytes of the inputs and the number of processes, before tokens are counted.
    """
    sources = spec.sources
    components = find_components(config, options, sources)
    request = {
        "run": spec.run,
        "tokens": config.tokens,
        "components": [dataclasses.asdict(each) for each in components],
    }
    mix = target.state.remembered_mix(request) if not target.state.changed_since(sources) else None
    if mix is None:
        executor = local_executor(options.workers or num_cpus, len(spec.units))
        choice = tokenization.choose_engine(
            spec.tokenizer,
            options.tokenizer_engine,
            [],
            num_bytes=probe.text_bytes(sources),
            threads=executor.threads,
        )
        begin(sum(source.num_bytes for source in sources), executor.workers)
        recipe = spec.recipe(config, choice, executor.threads)
        mix = plan_mix(components, count(recipe, components, spec.units, executor, choice, emit), config.tokens)
    units = readers.cut_mixed(sources, mix, config.unit_bytes, config.seed)
    run = {name: value for name, value in spec.run.items() if name not in ("num_units", "fingerprint")}
    run = {**run, "mix": mix, "num_units": len(units)}
    run["fingerprint"] = fingerprint(run)
    return dataclasses.replace(spec, units=list(units), run=run, counted_for=request)


def find_components(config: PackConfig, options: RunOptions, sources: Sequence[readers.Source]) -> list[Component]:
    """The components of a mixture, whose files are the sources, in their order.

    Raises:
        UsageError: a file in two components.
        PackcliError: as find_sources does.
    """
    components: list[Component] = []
    first = 0
    for path, share in parse_mix(config.mix):
        sources_of_path = readers.find_sources([path], [], **reading_rules(config, options))
        mine = sources[first : first + len(sources_of_path)]
        if [each.path for each in mine] != [each.path for each in sources_of_path]:
            raise UsageError(
                f"--mix {path}: some of its files are in another input of the mixture", "give each file one share"
            )
        components.append(Component(_name(mine), share, first, len(mine)))
        first += len(mine)
    return components


def _name(sources: Sequence[readers.Source]) -> str:
    """What reports call a component: its file, or the directory of its files, without directories above the input."""
    if len(sources) == 1:
        return sources[0].name
    levels = zip(*(each.name.split("/")[:-1] for each in sources), strict=False)
    shared = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, levels)]
    return "/".join([*shared, ""]) if shared else f"{sources[0].name} and {len(sources) - 1} more"


@dataclass(slots=True)
class Counts:
    """What one pass over the inputs gives: sums, the same in any order. `a + b` is the sums of both."""

    text_bytes: dict[int, int]
    """Source -> bytes after decompression."""
    num_documents: dict[int, int]
    """Component -> documents that would be packed."""
    tokens: dict[int, Ints]
    """Component -> int64[NUM_BUCKETS]: tokens that packs would hold, by hash."""

    def __add__(self, other: Counts) -> Counts:
        """The sums of both."""
        return Counts(
            _added(self.text_bytes, other.text_bytes),
            _added(self.num_documents, other.num_documents),
            _added(self.tokens, other.tokens),
        )


def _added(one: Mapping[int, Any], other: Mapping[int, Any]) -> dict[int, Any]:
    return {**one, **{key: one[key] + value if key in one else value for key, value in other.items()}}


class _CountedPart:
    """A part that counts the bytes of its sources."""

    def __init__(self, part: readers.Part) -> None:
        self._part = part
        self.text_bytes: dict[int, int] = {}

    def chunks(self) -> Iterator[readers.Chunk]:
        for chunk in self._part.chunks():
            self.text_bytes[chunk.source] = self.text_bytes.get(chunk.source, 0) + chunk.num_bytes
            yield chunk


def count_unit(recipe: Recipe, component_of: Sequence[int], unit: readers.Unit, emit: Emit) -> Counts:
    """What a unit holds of each component; pure, as run_unit is."""
    config = recipe.config
    progress = readers.ReadProgress()
    counts = Counts({}, {}, {})
    policy = "split" if config.overlong == "error" else str(config.overlong)  # the run itself names the document
    for part in recipe.parts(unit, progress=progress, hashed=False):
        counted = _CountedPart(part)
        bad_rows = readers.BadRows(recipe.sources)
        documents = read_documents(recipe, counted, bad_rows=bad_rows, progress=progress, emit=emit)
        origin = documents.origin()
        tokens = documents.tokens.finish()
        docs = with_loss(tokens, np.arange(len(tokens)), config)[0]
        kept = kept_lengths(tokens.lengths[docs], config.max_len, policy)
        for source, text_bytes in counted.text_bytes.items():
            mine = origin.source[docs] == source
            hashes = row_hashes(origin.row[docs][mine], readers.hash_seed(config.seed, source))
            sums = np.zeros(NUM_BUCKETS, dtype=np.int64)
            np.add.at(sums, buckets_of(hashes), kept[mine])
            component = component_of[source]
            counts += Counts({source: text_bytes}, {component: int(np.count_nonzero(kept[mine]))}, {component: sums})
    return counts


def count(
    recipe: Recipe,
    components: Sequence[Component],
    units: Sequence[readers.Unit],
    executor: Executor,
    choice: tokenization.Choice,
    emit: Emit,
) -> Counts:
    """Tokenizes all inputs once and keeps the sums.

    Args:
        recipe: Of the run.
        components: Which inputs are whose.
        units: Of the inputs, as they are cut without a mixture.
        executor: Who does it.
        choice: The engine of tokenization.
        emit: Takes Progress events.

    Raises:
        PackcliError: what packing would raise; also when worker processes die again and again.
    """
    component_of = [number for number, each in enumerate(components) for _ in range(each.num_sources)]
    total = Counts({}, {}, {})
    work = functools.partial(count_unit, recipe, component_of)
    with contextlib.closing(for_each_unit(work, recipe, units, executor, choice, emit)) as results:
        for counts in results:
            total += counts
    return total


def plan_mix(components: Sequence[Component], counts: Counts, tokens: int | None) -> dict[str, Any]:
    """What the manifest calls `mix`: how often each component is taken.

    Args:
        components: With their shares.
        counts: Of all inputs.
        tokens: Of the mixture; None: the most that takes no document twice.

    Raises:
        NoInputError: a component without a token.
        UsageError: one of which nothing would be taken, or that would be repeated a thousand times.
    """
    nothing = np.zeros(NUM_BUCKETS, dtype=np.int64)
    sums = [counts.tokens.get(number, nothing) for number in range(len(components))]
    available = [int(each.sum()) for each in sums]
    for each, num_available in zip(components, available, strict=True):
        if not num_available:
            raise NoInputError(f"--mix {each.name}: no document to pack", "leave it out")
    total = tokens if tokens is not None else largest_total([each.share for each in components], available)
    entries: list[dict[str, Any]] = []
    for number, (each, num_available, by_hash) in enumerate(zip(components, available, sums, strict=True)):
        wanted = round(each.share * total) if tokens is not None else min(math.ceil(each.share * total), num_available)
        epochs, threshold = plan_repeats(wanted, by_hash)
        if not epochs and not threshold:
            raise UsageError(
                f"--mix {each.name}: {each.share:.2%} of {total:,} tokens is less than one document",
                "a larger --tokens, or another weight",
            )
        if epochs >= MOST_EPOCHS:
            raise UsageError(
                f"--mix {each.name}: {each.share:.2%} of {total:,} tokens is {epochs:,} times its {num_available:,}",
                "a smaller --tokens, or another weight",
            )
        entries.append(
            {
                "name": each.name,
                "share": each.share,
                "first_source": each.first_source,
                "num_sources": each.num_sources,
                "num_documents": counts.num_documents[number],
                "num_tokens": num_available,
                "epochs": epochs,
                "threshold": threshold,
            }
        )
    num_sources = sum(each.num_sources for each in components)
    text_bytes = [counts.text_bytes.get(source, 0) for source in range(num_sources)]
    return {"tokens": tokens, "components": entries, "text_bytes": text_bytes}


def num_tokens(mix: Mapping[str, Any]) -> int:
    """Tokens of a mixture, about."""
    return sum(
        each["num_tokens"] * each["epochs"] + each["num_tokens"] * each["threshold"] // ALL
        for each in mix["components"]
    )


def file_bytes(units: Sequence[readers.Unit], sources: Sequence[readers.Source], mix: Mapping[str, Any]) -> int:
    """Bytes of files that are read for some units, about; each epoch counts anew."""
    takes = (take for unit in units if isinstance(unit, readers.MixedUnit) for each in unit.components for take in each)
    text_bytes = mix["text_bytes"]
    return sum(
        sources[take.span.source].num_bytes * take.text_bytes // max(text_bytes[take.span.source], 1) for take in takes
    )


def buckets_of(hashes: Ints) -> Ints:
    """Which of NUM_BUCKETS ranges each hash is in, int64[D]."""
    return hashes >> (HASH_BITS - NUM_BUCKETS.bit_length() + 1)


def largest_total(shares: Sequence[float], available: Sequence[int]) -> int:
    """Tokens of the largest mixture that takes nothing twice: the scarcest component is taken whole."""
    return int(min(tokens / share for share, tokens in zip(shares, available, strict=True)))


def plan_repeats(wanted: int, tokens: Ints) -> tuple[int, int]:
    """Whole epochs of a component, and the threshold of the epoch that is taken in part (0: none).

    Args:
        wanted: Tokens wanted of it.
        tokens: int64[NUM_BUCKETS], its tokens by hash.
    """
    available = int(tokens.sum())
    epochs, left = divmod(wanted, available)
    if not left:
        return epochs, 0
    ends = np.cumsum(tokens)
    bucket = int(np.searchsorted(ends, left, side="right"))
    before = int(ends[bucket - 1]) if bucket else 0
    width = ALL // NUM_BUCKETS
    return epochs, min(bucket * width + width * (left - before) // max(int(tokens[bucket]), 1), ALL - 1)
