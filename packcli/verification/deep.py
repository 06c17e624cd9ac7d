"""The inputs tokenized anew and compared with the packs; and which documents are in no pack."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli import readers
from packcli.config.choices import IGNORE
from packcli.dataset import PackedDataset, Problem, Schema, Sidecar, check_files, read_shard, run_schema, splits_of
from packcli.errors import UsageError
from packcli.packing import PackBatch, Sources, kept_lengths
from packcli.storage import Location
from packcli.verification.inputs import TokenizedPart, open_inputs, tokenize_unit

PROBLEMS_A_PART = 20
"""Problems of one kind in a part that are listed, at most."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Absent:
    """A document of the inputs that is in no pack."""

    source: str
    """Name of the input file."""
    row: int
    cause: str
    """empty, `overlong: N tokens`, `rejected: CAUSE`, or `missing`, which is also a problem."""


@dataclass(slots=True)
class CheckedInputs:
    """What the comparison with the inputs gave."""

    problems: list[Problem] = field(default_factory=list)
    num_documents: int = 0
    absent: list[Absent] = field(default_factory=list)


def parse_sample(text: str) -> tuple[int, int]:
    """'3/10' -> (3, 10); raises UsageError."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise UsageError(f"--sample {text!r} is not n/t with 1 <= n <= t", "for example --sample 1/10")
    return int(match[1]), int(match[2])


def check_inputs(
    root: Location,
    *,
    sample: tuple[int, int],
    against: Sequence[str],
    tokenizer_engine: str,
    warn: Callable[[str], None],
) -> CheckedInputs:
    """Tokenizes the inputs of a sound output and compares; see `verify`.

    Raises:
        UsageError: the sample has no part, the column `sources` is not there, or nobody knows where the inputs are.
    """
    record, _ = check_files(root)
    if record is None:
        raise AssertionError("only a sound output is compared with its inputs")
    checked = CheckedInputs()
    if "sources" not in record.config.columns:
        raise UsageError(
            f"{root}: without the column `sources` nobody knows which text a row holds", "leave out --deep"
        )
    sampled = record.sidecars[sample[0] - 1 :: sample[1]]
    if not sampled:
        raise UsageError(
            f"--sample {sample[0]}/{sample[1]}: the output has {len(record.sidecars)} parts",
            "a part is the smallest sample",
        )
    opened = open_inputs(root, record, against=against, tokenizer_engine=tokenizer_engine, warn=warn)
    if isinstance(opened, Problem):
        checked.problems.append(opened)
        return checked
    wanted = {(each.unit, each.part): each for each in sampled}
    others = {(each.unit, each.part) for each in record.sidecars} - wanted.keys()
    recipe = opened.recipe
    schema = run_schema(record.config, recipe.tokenizer)
    unit_numbers = {each.unit for each in sampled}
    with opened.engine_loaded():
        for unit in opened.units:
            if unit.index not in unit_numbers:
                continue
            for part in tokenize_unit(recipe, unit, others):
                if (sidecar := wanted.pop((unit.index, part.index), None)) is not None:
                    _check_part(root, record, sidecar, part, schema, recipe.sources, checked, bool(against))
    for sidecar in wanted.values():
        checked.problems.append(Problem(sidecar.file, "the inputs do not have this part any more"))
    return checked


def _check_part(
    root: Location,
    record: PackedDataset,
    sidecar: Sidecar,
    part: TokenizedPart,
    schema: Schema,
    sources: Sequence[readers.Source],
    checked: CheckedInputs,
    list_absent: bool,
) -> None:
    """Compares the packs of one part with what its rows give today."""
    if part.digest != sidecar.input_xxh3:
        change = f"XXH3 was {sidecar.input_xxh3[:12]}, now it is {part.digest[:12]}"
        checked.problems.append(Problem(sidecar.file, f"the rows of the inputs have changed: {change}"))
        return
    causes = collections.Counter(each.cause for each in part.rejected)
    if causes != sidecar.stats.rejected_by_cause:
        change = f"{sidecar.stats.rejected_by_cause} were, today {dict(causes)} are"
        checked.problems.append(Problem(sidecar.file, f"other rows are rejected: {change}"))
    order = np.lexsort((part.origin.row, part.origin.source))
    keys = _keys(part.origin.source[order], part.origin.row[order])
    lengths = part.tokens.lengths
    checked.num_documents += len(lengths)
    packed = np.zeros(len(lengths), dtype=np.int64)
    for split in splits_of(record.config):
        info = sidecar.shards.get(split)
        belongs = np.zeros(len(lengths), dtype=np.bool_)
        belongs[part.of_split(split)] = True
        first_row, problems = 0, 0
        for batch in read_shard(root / info.file, schema, info.first_source) if info is not None else ():
            isolate = record.config.isolate
            for row, what in _differences(batch, part, keys, order, packed, belongs, split, isolate=isolate):
                problems += 1
                if info is not None and problems <= PROBLEMS_A_PART:
                    checked.problems.append(Problem(info.file, f"row {first_row + row}: {what}"))
            first_row += batch.num_rows
    kept = _kept_of(part, record)
    # The copies of a document in a mixture have one key: what they hold was counted for the first of them.
    first_copy = order[np.searchsorted(keys, _keys(part.origin.source, part.origin.row))] if len(order) else order
    kept = np.bincount(first_copy, kept, len(kept)).astype(np.int64)
    for doc in np.flatnonzero(packed != kept)[:PROBLEMS_A_PART].tolist():
        name, row = sources[part.origin.source[doc]].name, int(part.origin.row[doc])
        checked.problems.append(
            Problem(sidecar.file, f"{name} row {row}: {packed[doc]} of its tokens are packed, {kept[doc]} should be")
        )
    if list_absent:
        checked.absent += _absent(part, packed[first_copy], kept[first_copy], sources)


def _keys(source: NDArray[np.int32], row: Ints) -> NDArray[Any]:
    """Source and row as one value each, which sort like pairs."""
    pairs = np.empty(len(row), dtype=[("source", ">i4"), ("row", ">i8")])
    pairs["source"], pairs["row"] = source, row
    return pairs.view("S12")


def _kept_of(part: TokenizedPart, record: PackedDataset) -> Ints:
    """Tokens of each document of a part that a pack should hold, int64[D]."""
    policy = str(record.config.overlong)
    kept = kept_lengths(part.tokens.lengths, record.config.max_len, "split" if policy == "error" else policy)
    return np.where(part.has_loss, kept, 0)


def _differences(
    batch: PackBatch,
    part: TokenizedPart,
    keys: NDArray[Any],
    order: Ints,
    packed: Ints,
    belongs: NDArray[np.bool_],
    split: str,
    *,
    isolate: bool,
) -> Iterator[tuple[int, str]]:
    """(row, what) for segments that are not what the text of their document gives; counts tokens in `packed`."""
    sources = batch.sources
    if not isinstance(sources, Sources):
        raise AssertionError("the column sources is there")
    wanted = _keys(sources.source, sources.row)
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    row_of = np.repeat(np.arange(batch.num_rows), np.diff(sources.offsets))
    known = keys[place] == wanted if len(keys) else np.zeros(len(wanted), dtype=np.bool_)
    for at in np.flatnonzero(~known)[:PROBLEMS_A_PART].tolist():
        yield int(row_of[at]), f"source {sources.source[at]} row {sources.row[at]} is no document of this part"
    doc = order[place] if len(order) else place
    start, end = sources.start.astype(np.int64), sources.end.astype(np.int64)
    spans = end - start
    fits = known & (end <= part.tokens.lengths[doc] if len(order) else known)
    for at in np.flatnonzero(known & ~fits)[:PROBLEMS_A_PART].tolist():
        yield int(row_of[at]), f"source {sources.source[at]} row {sources.row[at]} has fewer than {end[at]} tokens"
    for at in np.flatnonzero(fits & ~belongs[doc] if len(order) else fits)[:PROBLEMS_A_PART].tolist():
        yield int(row_of[at]), f"source {sources.source[at]} row {sources.row[at]} does not belong into {split}"
    np.add.at(packed, doc[fits], spans[fits])
    ends = np.cumsum(spans)
    in_rows = ends - spans
    first_of_row = in_rows[sources.offsets[:-1]]
    begin = batch.input_ids.offsets[:-1].astype(np.int64)[row_of] + in_rows - first_of_row[row_of]
    begin, spans, doc, start, row_of = begin[fits], spans[fits], doc[fits], start[fits], row_of[fits]
    ends = np.cumsum(spans)
    step = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - spans, spans)
    position, token = np.repeat(begin, spans) + step, np.repeat(part.tokens.offsets[doc] + start, spans) + step
    expected = part.tokens.ids[token].view(np.int32)
    compared = [("id", batch.input_ids.values[position], expected)]
    if part.tokens.loss is not None and batch.labels is not None:
        has_loss = part.tokens.loss[token] & (step > 0) if isolate else part.tokens.loss[token]
        compared.append(("label", batch.labels.values[position], np.where(has_loss, expected, IGNORE)))
    for name, there, given in compared:
        bad = np.flatnonzero(there != given)
        segments = np.searchsorted(ends, bad, side="right")
        for at in np.unique(segments).tolist():
            first = int(bad[np.searchsorted(segments, at)])
            yield (
                int(row_of[at]),
                f"position {int(position[first] - batch.input_ids.offsets[row_of[at]])} holds "
                f"{name} {there[first]}, the text gives {given[first]}",
            )


def _absent(
    part: TokenizedPart,
    packed: Ints,
    kept: Ints,
    sources: Sequence[readers.Source],
) -> Iterator[Absent]:
    """Documents of a part that are in no pack: rejected and empty ones first."""
    for each in part.rejected:
        yield Absent(sources[each.source].name, each.row, f"rejected: {each.cause}")
    for source, rows in part.empty:
        for row in rows.tolist():
            yield Absent(sources[source].name, row, "empty")
    lengths = part.tokens.lengths
    for doc in np.flatnonzero(packed == 0).tolist():
        name, row = sources[part.origin.source[doc]].name, int(part.origin.row[doc])
        dropped = f"overlong: {lengths[doc]} tokens" if lengths[doc] else "no token"
        if not part.has_loss[doc]:
            dropped = "no token that carries loss"
        yield Absent(name, row, "missing" if kept[doc] else dropped)
