"""The end of a run, whoever did its units: every sidecar is read, and what makes the shards a dataset is written."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packcli import stores
from packcli.collecting import collect
from packcli.config import PackConfig
from packcli.errors import NoInputError, UnfinishedError
from packcli.job import folder_of, run_schema, splits_of
from packcli.ledger import Ledger
from packcli.manifest import MANIFEST, STATE_DIRECTORY, Output
from packcli.rejects import Limit, join_rejects
from packcli.report import CARD, STATS, write_report
from packcli.shards import EMPTY_SHARD, INDEX_FILES, SPLITS_FILE, file_sha256, write_index, write_json, write_shard
from packcli.stats import Stats
from packcli.tokenizing import TokenizerSpec


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
    with contextlib.closing(Ledger(state if isinstance(state, Path) else None)) as ledger:
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
        found = stores.concurrently(target.root, lambda name: file_sha256(target.root / name)[0], files)
        hashes = {name: bytes.fromhex(sha256) for name, sha256 in zip(files, found, strict=True)}
        ledger.write(target.root / MANIFEST, run, hashes)
        return stats


def _write_split(
    target: Output,
    run: Mapping[str, Any],
    config: PackConfig,
    tokenizer: TokenizerSpec,
    split: str,
    ledger: Ledger,
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
