"""The end of a run, whoever did its units: every sidecar is read, and what makes the shards a dataset is written."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from packcli import storage
from packcli.config import PackConfig
from packcli.dataset import (
    CARD,
    EMPTY_SHARD,
    INDEX_FILES,
    MANIFEST,
    SPLITS_FILE,
    STATE_DIRECTORY,
    STATS,
    Committed,
    Limit,
    Listed,
    ManifestWriter,
    Output,
    Sidecar,
    Stats,
    committed_units,
    folder_of,
    join_rejects,
    list_shards,
    read_unit,
    run_schema,
    splits_of,
    write_index,
    write_report,
    write_shard,
)
from packcli.errors import NoInputError, UnfinishedError
from packcli.pipeline.engines import get_engine, lost_worker_explained
from packcli.storage.files import file_sha256, write_json
from packcli.tokenization import TokenizerSpec

RANGE_UNITS = 1000
"""Units that a process reads at a time."""


def finish(
    target: Output,
    run: Mapping[str, Any],
    config: PackConfig,
    tokenizer: TokenizerSpec,
    *,
    limit: Limit,
    workers: int = 1,
) -> Stats:
    """Checks that every part is there, and writes what makes the shards a dataset; manifest.json last.

    Nobody else writes to the output. The sidecars are read again, in their order: what one process remembers of the
    units that it did is not all that there is, and nothing is held but the sum.

    Raises:
        UnfinishedError: a unit is not done.
        BadRowError: too many rows were skipped.
        NoInputError: there was no document in any of them.
    """
    state = target.root / STATE_DIRECTORY
    with contextlib.closing(ManifestWriter(state if isinstance(state, Path) else None)) as ledger:
        done = collect(target.root, run["num_units"], workers=workers, take=ledger.add)
        refuse_unfinished(target, done.num_whole, run["num_units"])
        stats = done.stats
        stats.check(config.max_len)
        limit.check(target.root, stats, is_all=True)
        if stats.num_documents_packed == 0:
            raise NoInputError(f"no document to pack: {stats.num_documents} read, {_drops(stats)}")
        files = [STATS, CARD, *join_rejects(target.root, ledger.rejects)]
        for split in splits_of(config):
            files += _write_split(target, run, config, tokenizer, split, ledger)
        if len(splits_of(config)) > 1:
            write_json(target.root / SPLITS_FILE, {"splits": list(splits_of(config))})
            files.append(SPLITS_FILE)
        write_report(target, run, stats)
        target.sweep()  # of workers that died and were done without
        digests = storage.concurrently(target.root, lambda name: file_sha256(target.root / name)[0], files)
        hashes = {name: bytes.fromhex(sha256) for name, sha256 in zip(files, digests, strict=True)}
        ledger.write(target.root / MANIFEST, run, hashes)
        return stats


def _write_split(
    target: Output,
    run: Mapping[str, Any],
    config: PackConfig,
    tokenizer: TokenizerSpec,
    split: str,
    ledger: ManifestWriter,
) -> list[str]:
    """Writes the index of a split; returns the files, besides shards of parts, that it is made of."""
    folder = folder_of(config, split)
    files = [f"{folder}{name}" for name in INDEX_FILES]
    shards = ledger.shards(split)
    if not ledger.has_shards(split):  # every split can be loaded
        shards = iter([write_shard(target.root, f"{folder}{EMPTY_SHARD}", run_schema(config, tokenizer), []).file])
        files.insert(0, f"{folder}{EMPTY_SHARD}")
    names = (file.removeprefix(folder) for file in shards)
    write_index(target.root / folder, split, names, config.written_columns, run["fingerprint"][:16])
    return files


def refuse_unfinished(target: Output, num_done: int, num_units: int) -> None:
    """Raises UnfinishedError unless every unit is done."""
    if num_done < num_units:
        raise UnfinishedError(
            f"{target.root}: {num_units - num_done:,} of {num_units:,} units are not done",
            "packcli units status says by whom; run the ranks that died again, "
            "or packcli units run --rank 0 --world-size 1 for all that is left",
        )


def _drops(stats: Stats) -> str:
    no_loss = stats.num_documents_no_loss + stats.num_documents_no_loss_left
    with_loss = f", {no_loss} without a token that carries loss" if no_loss else ""
    rejected = f"; {stats.num_rows_rejected} rows cannot be used" if stats.num_rows_rejected else ""
    return f"{stats.num_documents_empty} of them empty, {stats.num_documents_overlong} too long{with_loss}{rejected}"


@dataclass(slots=True)
class _Range:
    """What a process read of a range of units."""

    stats: Stats = field(default_factory=Stats)
    sidecars: list[tuple[Sidecar, bytes]] = field(default_factory=list)
    """Each with the sha256 of its file; their counts are left out, since `stats` is the sum."""


def _read_range(
    root: storage.Location, keep: bool, listed: Listed | None, units: list[int], emit: Callable[[object], None]
) -> _Range:
    read = _Range()
    nothing = Stats()
    for parts in storage.concurrently(root, lambda unit: read_unit(root, unit, listed), units):
        for sidecar, sha256 in parts:
            read.stats += sidecar.stats
            short = Sidecar(
                sidecar.unit,
                sidecar.part,
                sidecar.is_last,
                sidecar.input_xxh3 if keep else "",
                sidecar.shards if keep else {},
                nothing,
                sidecar.rejected if keep else None,
            )
            read.sidecars.append((short, sha256))
    return read


def _name_of_range(units: list[int]) -> str:
    return f"the sidecars of units {units[0]} to {units[-1]}"


def collect(
    root: storage.Location,
    num_units: int,
    *,
    workers: int = 1,
    take: Callable[[Sidecar, bytes], None] | None = None,
) -> Committed:
    """Reads what is committed of units 0..num_units-1, in order of unit and part.

    Args:
        root: The output.
        num_units: Of the run.
        workers: Processes.
        take: Called with each sidecar (without its counts) and the sha256 of its file.
    """
    total = Committed(is_whole=np.zeros(num_units, dtype=np.bool_))
    there = np.unique(committed_units(root)[0])
    there = there[there < num_units]
    ranges = [there[first : first + RANGE_UNITS].tolist() for first in range(0, len(there), RANGE_UNITS)]
    num_processes = max(1, min(workers, len(ranges))) if isinstance(root, Path) else 1
    engine = get_engine("serial" if num_processes == 1 else "processes")
    work = functools.partial(_read_range, root, take is not None, list_shards(root) if ranges else None)
    results = engine(work, ranges, workers=num_processes, emit=lambda event: None)
    with contextlib.closing(results), lost_worker_explained(_name_of_range):
        for each in results:
            total.stats += each.stats
            total.num_parts += len(each.sidecars)
            for sidecar, sha256 in each.sidecars:
                if take is not None:
                    take(sidecar, sha256)
                total.parts.add((sidecar.unit, sidecar.part))
                if sidecar.is_last:
                    total.is_whole[sidecar.unit] = True
                    total.parts.difference_update((sidecar.unit, part) for part in range(sidecar.part + 1))
    return total
