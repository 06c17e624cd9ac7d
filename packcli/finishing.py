"""The end of a run: what makes committed shards a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from packcli.config import PackConfig
from packcli.errors import NoInputError
from packcli.job import folder_of, run_schema, splits_of
from packcli.manifest import Output
from packcli.report import CARD, STATS, write_report
from packcli.shards import EMPTY_SHARD, INDEX_FILES, SPLITS_FILE, write_index, write_json, write_shard
from packcli.sidecars import Sidecar
from packcli.stats import Stats
from packcli.tokenizing import TokenizerSpec


def finish(
    target: Output, run: Mapping[str, Any], config: PackConfig, tokenizer: TokenizerSpec, sidecars: Sequence[Sidecar]
) -> Stats:
    """Writes what makes the shards of all parts a dataset; manifest.json last.

    Args:
        target: The output; its lock is held.
        run: What the run is, from describe_run.
        config: Its resolved settings.
        tokenizer: Its tokenizer.
        sidecars: Every part, by unit and part.

    Returns:
        The sum of the counts of all parts.

    Raises:
        NoInputError: not one document was packed.
    """
    stats = total_of(sidecars, config)
    if stats.num_documents_packed == 0:
        raise NoInputError(f"no document to pack: {stats.num_documents} read, {_drops(stats)}")
    schema = run_schema(config, tokenizer)
    files = [STATS, CARD]
    for split in splits_of(config):
        folder = folder_of(config, split)
        shards = [each.shards[split].file for each in sidecars if split in each.shards]
        if not shards:  # every split can be loaded
            shards = [write_shard(target.root, f"{folder}{EMPTY_SHARD}", schema, []).file]
            files += shards
        names = [file.removeprefix(folder) for file in shards]
        write_index(target.root / folder, split, names, config.written_columns, run["fingerprint"][:16])
        files += [f"{folder}{name}" for name in INDEX_FILES]
    if len(splits_of(config)) > 1:
        write_json(target.root / SPLITS_FILE, {"splits": list(splits_of(config))})
        files.append(SPLITS_FILE)
    write_report(target, run, stats)
    target.sweep()  # of workers that died and were done without
    target.write_manifest(run, sidecars, files)
    return stats


def total_of(sidecars: Sequence[Sidecar], config: PackConfig) -> Stats:
    """The sum of the counts of some parts, checked."""
    total = Stats()
    for sidecar in sidecars:
        total += sidecar.stats
    total.check(config.max_len)
    return total


def _drops(stats: Stats) -> str:
    no_loss = stats.num_documents_no_loss + stats.num_documents_no_loss_left
    with_loss = f", {no_loss} without a token that carries loss" if no_loss else ""
    return f"{stats.num_documents_empty} of them empty, {stats.num_documents_overlong} too long{with_loss}"
