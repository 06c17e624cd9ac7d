"""The rows of an output: sha256 of each shard before a buffer of it is read, then every invariant of every row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.dataset.checks.files import Problem
from packcli.dataset.checks.invariants import Rules, SourceSegments, check_documents, check_rows
from packcli.dataset.documents import number_copies
from packcli.dataset.members import MIX, Member, member_of, members_of
from packcli.dataset.paths import EMPTY_SHARD, folder_of, splits_of
from packcli.dataset.reader import PackedDataset
from packcli.dataset.schema import Schema, run_schema
from packcli.dataset.shards import ShardInfo, read_shard
from packcli.dataset.sidecar import Sidecar
from packcli.dataset.stats import bucketed, histogram
from packcli.errors import StorageError
from packcli.storage import Location
from packcli.storage.files import file_sha256

PROBLEMS_A_SHARD = 20
"""A shard that is wrong throughout is named once for each rule, and not more often than this."""


@dataclass(slots=True)
class CheckedShards:
    """What a look at shards gave."""

    problems: list[Problem] = field(default_factory=list)
    num_shards: int = 0
    num_rows: int = 0
    num_tokens: int = 0
    num_bytes: int = 0


@dataclass(slots=True)
class _Shard:
    """What the rows of one shard give."""

    num_rows: int = 0
    num_tokens: int | None = 0
    segments: list[SourceSegments] = field(default_factory=list)
    per_row: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Spans:
    """The rows of the inputs that a part holds, as ranges: no other part may hold any of them. int64, parallel."""

    source: NDArray[np.int64]
    first_row: NDArray[np.int64]
    last_row: NDArray[np.int64]
    file: str


def check_shards(root: Location, packed: PackedDataset) -> CheckedShards:
    """Looks at every row, in as many threads as there are CPUs: hashing and NumPy leave the interpreter free."""
    schema = run_schema(packed.config, packed.tokenizer)
    members = members_of(packed.manifest)
    checked = CheckedShards()
    spans: list[_Spans] = []
    odd_ends = {each.unit for each in packed.sidecars if not _has_all_ends(packed, each)}
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        jobs = (
            pool.submit(
                _check_part,
                root,
                packed,
                each,
                schema,
                rules_of(packed, member_of(members, each.unit)),
                each.unit not in odd_ends,
            )
            for each in packed.sidecars
        )
        for part, part_spans in (job.result() for job in list(jobs)):
            checked.problems += part.problems
            checked.num_shards += part.num_shards
            checked.num_rows += part.num_rows
            checked.num_tokens += part.num_tokens
            checked.num_bytes += part.num_bytes
            spans += [part_spans] if part_spans is not None else []
    checked.problems += _overlaps(spans)
    checked.problems += _check_empty(root, packed, schema)
    return checked


def rules_of(packed: PackedDataset, member: Member | None = None) -> Rules:
    """The rules for the rows of a run, or of one of its members."""
    config = packed.config
    whole = members_of(packed.manifest)
    return Rules(
        max_len=config.max_len,
        isolate=config.isolate,
        ragged=config.ragged,
        masked=config.masked,
        pad_id=packed.tokenizer.pad_id,
        vocab_size=packed.tokenizer.vocab_size,
        sources=range((member or whole[0]).inputs.start, (member or whole[-1]).inputs.stop),
        max_docs_per_pack=config.max_docs_per_pack,
    )


def _check_part(
    root: Location, packed: PackedDataset, sidecar: Sidecar, schema: Schema, rules: Rules, has_ends: bool
) -> tuple[CheckedShards, _Spans | None]:
    """The shards of one part: rows, documents over all splits, and the counts of its sidecar."""
    checked = CheckedShards()
    shards: dict[str, _Shard] = {}
    for split, info in sidecar.shards.items():
        shard = _Shard()
        checked.num_shards += 1
        checked.num_bytes += info.num_bytes
        problems = list(_check_shard(root / info.file, info, schema, rules, shard))
        checked.num_rows += shard.num_rows
        checked.num_tokens += shard.num_tokens if shard.num_tokens is not None else shard.num_rows * rules.max_len
        if problems:
            checked.problems += [Problem(info.file, what) for what in problems[:PROBLEMS_A_SHARD]]
        else:
            shards[split] = shard
    if checked.problems:
        return checked, None
    file = next((info.file for info in sidecar.shards.values()), sidecar.file)
    counted = _count(shards, rules)
    spans: _Spans | None = None
    if "sources" in packed.config.columns:
        segments = SourceSegments.joined([each for shard in shards.values() for each in shard.segments])
        ends = (packed.tokenizer.bos_id, packed.tokenizer.eos_id) if has_ends else (None, None)
        cut_at = rules.max_len if packed.config.overlong == "truncate" else None
        copies = None
        if MIX in packed.manifest:
            copies = number_copies(segments.source, segments.row, segments.start, segments.end)
            checked.problems += [Problem(file, what) for what in _repeated(packed, segments, copies)]
        table, wrong = check_documents(segments, bos_id=ends[0], eos_id=ends[1], cut_at=cut_at, copies=copies)
        checked.problems += [Problem(file, what) for what in wrong]
        counted["num_documents_packed"] = len(table.row)
        if packed.config.overlong == "split" and not rules.masked:  # documents without loss are in no row
            lengths = histogram(bucketed(table.length))
            counted["documents_by_length"] = lengths | _none(sidecar.stats.documents_by_length)
        if copies is None:  # a mixture repeats rows
            spans = _Spans(*_ranges(table.source, table.row), file)
    for name, value in counted.items():
        if getattr(sidecar.stats, name) != value:
            checked.problems.append(Problem(sidecar.file, f"{name} is not what the rows of its shards give"))
    return checked, spans


def _ranges(
    source: NDArray[np.int64], row: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Source, first and last row of every run of documents, which are sorted: a part reads rows one after the other."""
    cut = np.diff(source) != 0
    first = np.flatnonzero(np.append(len(row) > 0, cut)[: len(row)])
    last = np.append(first[1:], len(row))[: len(first)] - 1
    return source[first], row[first], row[last]


def _repeated(packed: PackedDataset, segments: SourceSegments, copies: NDArray[np.int64]) -> Iterator[str]:
    """Documents of a mixture that a part holds more often than the whole takes them."""
    for each in packed.manifest["mix"]["components"]:
        most = each["epochs"] + (each["threshold"] > 0)
        mine = (segments.source >= each["first_source"]) & (
            segments.source < each["first_source"] + each["num_sources"]
        )
        bad = np.flatnonzero(mine & (copies >= most))
        if len(bad):
            at = int(bad[0])
            times = f"{copies[at] + 1} times, and at most {most} times in the mixture"
            yield f"source {segments.source[at]} row {segments.row[at]} is there {times}"


def _none(lengths: dict[int, int]) -> dict[int, int]:
    """Documents without a token, which are in no row."""
    return {0: lengths[0]} if 0 in lengths else {}


def _check_shard(path: Location, info: ShardInfo, schema: Schema, rules: Rules, shard: _Shard) -> Iterator[str]:
    """Yields what is wrong with a shard; fills `shard`."""
    try:
        sha256, num_bytes = file_sha256(path)
    except OSError as error:
        yield f"is missing or cannot be read: {error.strerror}"
        return
    if num_bytes != info.num_bytes:
        yield f"has {num_bytes:,} bytes, had {info.num_bytes:,}"
        return
    if sha256 != info.sha256:
        yield f"has changed: sha256 is {sha256[:12]}, was {info.sha256[:12]}"
        return
    yield from check_rows_of(path, schema, rules, shard, info.first_source)
    if shard.num_rows != info.num_rows:
        yield f"has {shard.num_rows:,} rows, had {info.num_rows:,}"


def check_rows_of(
    path: Location, schema: Schema, rules: Rules, shard: _Shard | None = None, first_source: int = 0
) -> Iterator[str]:
    """Yields what is wrong with the rows of a shard, whose bytes may be anything."""
    shard = shard or _Shard()
    reported: set[str] = set()
    try:
        for batch in read_shard(path, schema, first_source):
            if not batch.num_rows:
                continue
            checked = check_rows(batch, rules)
            for broken in checked.broken:
                if broken.what not in reported:
                    reported.add(broken.what)
                    yield f"row {shard.num_rows + broken.row}: {broken.what} ({broken.num_rows} rows of the batch)"
            shard.num_rows += checked.num_rows
            if checked.num_tokens is None or shard.num_tokens is None:
                shard.num_tokens = None
            else:
                shard.num_tokens += checked.num_tokens
            if checked.segments is not None:
                shard.segments.append(checked.segments)
                shard.per_row.append(checked.per_row)
    except StorageError as error:
        yield error.message


def _count(shards: dict[str, _Shard], rules: Rules) -> dict[str, Any]:
    """What the rows say about the counts of a sidecar."""
    num_packs = sum(shard.num_rows for shard in shards.values())
    counted: dict[str, Any] = {"num_packs": num_packs}
    tokens = [shard.num_tokens for shard in shards.values()]
    if None not in tokens:
        num_tokens = sum(each for each in tokens if each is not None)
        counted["num_tokens_packed"] = num_tokens
        counted["num_tokens_padding"] = num_packs * rules.max_len - num_tokens
    if all(len(shard.segments) and sum(map(len, shard.per_row)) == shard.num_rows for shard in shards.values()):
        lengths = SourceSegments.joined([each for shard in shards.values() for each in shard.segments]).length
        counted["num_segments"] = len(lengths)
        counted["sum_squared_segments"] = int((lengths**2).sum())
        counted["segments_by_length"] = histogram(bucketed(lengths))
        per_row = [each for shard in shards.values() for each in shard.per_row]
        counted["packs_by_documents"] = histogram(np.concatenate(per_row)) if per_row else {}
    return counted


def _has_all_ends(packed: PackedDataset, sidecar: Sidecar) -> bool:
    """Whether every document that a part read got BOS and EOS, as its counts say."""
    extra = (packed.tokenizer.bos_id is not None) + (packed.tokenizer.eos_id is not None)
    stats = sidecar.stats
    return stats.num_tokens_special == extra * (stats.num_documents - stats.num_documents_empty)


def _overlaps(spans: list[_Spans]) -> Iterator[Problem]:
    """A row in two parts was packed twice."""
    if not spans:
        return
    source, first, last = (
        np.concatenate([getattr(each, name) for each in spans]) for name in ("source", "first_row", "last_row")
    )
    part = np.repeat(np.arange(len(spans)), [len(each.source) for each in spans])
    order = np.lexsort((first, source))
    source, first, last, part = source[order], first[order], last[order], part[order]
    twice = (source[1:] == source[:-1]) & (first[1:] <= last[:-1])
    for at in np.flatnonzero(twice)[:PROBLEMS_A_SHARD].tolist():
        one, other = spans[part[at]], spans[part[at + 1]]
        yield Problem(other.file, f"source {source[at]} row {first[at + 1]}: also among the rows of {one.file}")


def _check_empty(root: Location, packed: PackedDataset, schema: Schema) -> Iterator[Problem]:
    """The shard of a split without rows; its sha256 stands under `files` of the manifest."""
    for split in splits_of(packed.config):
        name = f"{folder_of(packed.config, split)}{EMPTY_SHARD}"
        if split in packed.manifest["splits"]:
            continue
        try:
            if file_sha256(root / name)[0] != packed.manifest["files"][name]:
                continue  # its hash does not hold, which is reported already
            if any(batch.num_rows for batch in read_shard(root / name, schema)):
                yield Problem(name, "has rows, and stands for a split without rows")
        except (StorageError, OSError) as error:
            yield Problem(name, str(error))
