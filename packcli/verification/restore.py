"""One pack made again from the inputs, and compared with the one that is stored.

    sources   the shard is whole and says which documents the row holds: these rows are read, and no others
    replay    it is damaged or lost, or stores no `sources`: the unit is packed again, up to the part of the row, into
              a temporary directory; its shard must have the sha256 that the manifest knows

So a row is given back in either case, or an error says what of the inputs has changed.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli import readers
from packcli.config.choices import is_own_strategy
from packcli.dataset import MERGED, PackedDataset, Problem, ShardEntry, read_shard, run_schema, splits_of
from packcli.errors import MismatchError, PackcliError, StorageError, UsageError, unknown_name
from packcli.packing import Assembler, Lists, PackBatch, Plan, RowLayout, Segments, Sources
from packcli.pipeline import Job, pin_strategy, run_unit
from packcli.storage import Location, locate
from packcli.storage.files import file_sha256
from packcli.verification.inputs import OpenInputs, open_inputs, tokenize_rows

Columns = dict[str, NDArray[Any] | tuple[NDArray[Any], ...]]
"""A row: int32 arrays; `sources` is (source, row, start, end)."""

SOURCE_FIELDS = ("source", "row", "start", "end")


class Restored(dict[str, Any]):
    """A row, as `datasets.load_from_disk(DIR)[row]` gives it: column -> list; and how it was made.

    Attributes:
        split, row: Which one, counted from 0 in its split.
        file: Its shard, below the output.
        way: "sources" or "replay".
        reason: Why it was replayed; empty for "sources".
        is_compared: Whether there was a stored row to compare it with.
        problems: What is wrong with what is stored: a damaged shard, columns that differ.
    """

    split: str
    row: int
    file: str
    way: str
    reason: str
    is_compared: bool
    problems: list[Problem]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = ("split", "row", "file", "way", "reason", "is_compared")
        return {**{name: getattr(self, name) for name in names}, "columns": dict(self)}


def restore(
    directory: str | os.PathLike[str] | Location,
    row: int,
    *,
    split: str = "train",
    replay: bool = False,
    against: Sequence[str] = (),
    strategy: str | None = None,
    tokenizer_engine: str = "auto",
    warn: Callable[[str], None] = lambda message: None,
) -> Restored:
    """Makes one pack of an output again from its inputs, and compares it with the one that is stored.

    Args:
        directory: An output of packcli; its manifest must be whole, its shards need not be.
        row: Counted from 0 in its split; -1 is the last.
        split: train or validation.
        replay: Pack the unit again even where the row itself says what it holds.
        against: The inputs, where they are now; by default where they were.
        strategy: For a replay of a run with a strategy of the user's own: module:function or file.py:function.
            Nothing that a manifest names is run.
        tokenizer_engine: auto, fastokens or tokenizers.
        warn: Gets what the user should know, and is no problem.

    Returns:
        The row, even where the stored one is damaged or lost; `problems` says so, and which columns differ.

    Raises:
        OutputError: no manifest, or a damaged one.
        UsageError: no such row; nobody knows where the inputs are; code that was not named; what was merged, again.
        MismatchError: the inputs, the tokenizer or the strategy are not those of the run.
    """
    root = locate(directory)
    record = PackedDataset(root)
    entry, index, row = _find(record, split, row)
    schema = run_schema(record.config, record.tokenizer)
    restored = Restored()
    restored.split, restored.row, restored.file, restored.problems = split, row, entry["file"], []
    stored, damage = _stored(root, entry, index, schema)
    if damage is not None:
        restored.problems.append(Problem(entry["file"], damage))
    restored.reason = f"the shard {damage}" if damage is not None else "it was asked for" if replay else ""
    if stored is not None and "sources" not in stored and not replay:
        restored.reason = "the rows do not store their sources"
    restored.is_compared = stored is not None
    restored.way = "replay" if restored.reason else "sources"
    own = _own_strategy(record, strategy) if restored.way == "replay" else None
    opened = open_inputs(root, record, against=against, tokenizer_engine=tokenizer_engine, warn=warn)
    if isinstance(opened, Problem):
        raise MismatchError(opened.what, "bring back what the run was made from; --against says where inputs are now")
    with opened.engine_loaded():
        if restored.way == "replay" or stored is None:
            made = _replayed(opened, record, own, entry, index)
        else:
            made = _assembled(opened, record, entry, stored)
            if _differing(stored, made):
                _refuse_changed(opened, record, entry)
    for what in _differing(stored, made) if stored is not None else ():
        restored.problems.append(Problem(entry["file"], f"row {index}: {what}"))
    restored.update(_as_lists(made))
    return restored


def _find(record: PackedDataset, split: str, row: int) -> tuple[ShardEntry, int, int]:
    """The shard that holds a row, as the manifest lists it; the row inside the shard, and inside the split."""
    if split not in splits_of(record.config):
        raise unknown_name("split", split, splits_of(record.config))
    shards = record.manifest["splits"].get(split, [])
    total = sum(each["num_rows"] for each in shards)
    wanted = row + total if row < 0 else row
    if not 0 <= wanted < total:
        raise UsageError(f"row {row}: {split} has {total:,} rows", "rows are counted from 0; -1 is the last")
    index = wanted
    for entry in shards:
        if index < entry["num_rows"]:
            return entry, index, wanted
        index -= entry["num_rows"]
    raise AssertionError("the row is in a shard")


def _stored(root: Location, entry: ShardEntry, index: int, schema: Any) -> tuple[Columns | None, str | None]:
    """A row of a shard whose sha256 holds; None and what is wrong with the shard when it does not."""
    try:
        sha256, _ = file_sha256(root / entry["file"])
    except OSError as error:
        return None, f"is missing or cannot be read: {error.strerror}"
    if sha256 != entry["sha256"]:
        return None, f"has changed: sha256 is {sha256[:12]}, was {entry['sha256'][:12]}"
    try:
        return _read_row(root / entry["file"], index, schema, entry["first_source"]), None
    except StorageError as error:  # written so, and sealed: not by packcli
        return None, f"is damaged: {error.message}"


def _read_row(path: Location, index: int, schema: Any, first_source: int) -> Columns:
    for batch in read_shard(path, schema, first_source):
        if index < batch.num_rows:
            return _columns(batch, index)
        index -= batch.num_rows
    raise StorageError("it has fewer rows than the manifest says")


def _columns(batch: PackBatch, at: int) -> Columns:
    columns: Columns = {}
    for name in ("input_ids", "labels", "position_ids", "seq_lengths", "sources"):
        column = getattr(batch, name)
        if isinstance(column, Lists):
            columns[name] = column.values[column.offsets[at] : column.offsets[at + 1]].copy()
        elif isinstance(column, Sources):
            inside = slice(column.offsets[at], column.offsets[at + 1])
            columns[name] = tuple(getattr(column, field)[inside].copy() for field in SOURCE_FIELDS)
    return columns


def _own_strategy(record: PackedDataset, strategy: str | None) -> tuple[str, str] | None:
    """Where the code of the run's strategy is, and its sha256; None for a built-in one.

    Raises:
        UsageError: it was not named. What a manifest names may be anybody's.
        MismatchError: it is not the code of the run.
    """
    config = record.config
    if not is_own_strategy(config.strategy):
        if strategy is not None:
            raise UsageError(
                f"--strategy: the packs were planned by {config.strategy}, which is built in", "leave it out"
            )
        return None
    sha256 = str(config.strategy_sha256)
    if strategy is None:
        raise UsageError(
            f"the packs were planned by {config.strategy}, code that packcli does not run unless it is named",
            f"--strategy path/to/{config.strategy}, whose sha256 is {sha256[:12]}",
        )
    if not is_own_strategy(strategy) or strategy.split(":")[-1] != str(config.strategy).split(":")[-1]:
        raise UsageError(f"--strategy {strategy}: the packs were planned by {config.strategy}", "name that function")
    return str(pin_strategy(dataclasses.replace(config, strategy=strategy)).strategy), sha256


def _assembled(opened: OpenInputs, record: PackedDataset, entry: ShardEntry, stored: Columns) -> Columns:
    """The row from the documents that its sources name, which alone are read."""
    recipe, config = opened.recipe, record.config
    source, row, start, end = stored["sources"]
    if (start < 0).any() or (start >= end).any() or (row < 0).any():
        raise StorageError(f"{entry['file']}: a row names documents that cannot be")  # and yet it is sealed
    places = list(zip(source.tolist(), row.tolist(), strict=True))
    wanted: dict[int, list[int]] = {}
    for at, number in places:
        if not 0 <= at < len(recipe.sources):
            raise MismatchError(f"source {at} of {len(recipe.sources)}: the sources are not those of the run")
        wanted.setdefault(at, []).append(number)
    picked = readers.PickedRows(recipe.sources, recipe.fields, config.split_on, wanted)
    try:
        batch, origin = tokenize_rows(recipe, picked)
    except PackcliError:
        _refuse_changed(opened, record, entry)
        raise
    known = {place: doc for doc, place in enumerate(zip(origin.source.tolist(), origin.row.tolist(), strict=True))}
    docs = np.array([known.get(place, -1) for place in places], dtype=np.int64)
    lengths = np.append(batch.lengths, 0)[docs]  # -1 is none: no token
    if (end > lengths).any():
        _refuse_changed(opened, record, entry)
        at, number = places[int(np.argmax(end > lengths))]
        raise MismatchError(f"{recipe.sources[at].name} row {number} has too few tokens, and yet no row has changed")
    segments = Segments(end - start, (docs, start.astype(np.int64)))
    order, pack_offsets = np.arange(len(segments)), np.array([0, len(segments)])
    plan = Plan(config.max_len, segments, order, pack_offsets, lower_bound=1, found_by="sources")
    layout = RowLayout(
        columns=config.written_columns, pad_id=recipe.tokenizer.pad_id, isolate=config.isolate, ragged=config.ragged
    )
    return _columns(Assembler(plan, batch.ids, batch.offsets, origin, layout, batch.loss).rows(0, 1), 0)


def _replayed(
    opened: OpenInputs, record: PackedDataset, own: tuple[str, str] | None, entry: ShardEntry, index: int
) -> Columns:
    """The row from its unit, of which only the part that holds it is packed again."""
    recipe = opened.recipe
    if MERGED in record.manifest:  # seeds hang on the number of the unit, which was another when it was packed
        raise UsageError(
            f"{entry['file']}: a row of a merged output is not packed again",
            "restore it from the output that was merged",
        )
    if own is not None:
        config = dataclasses.replace(recipe.config, strategy=own[0], strategy_sha256=own[1])
        recipe = dataclasses.replace(recipe, config=config)
    place = entry["unit"], entry["part"]
    others = frozenset((each["unit"], each["part"]) for each in record.manifest["parts"]) - {place}
    units = [unit for unit in opened.units if unit.index == place[0]]
    with tempfile.TemporaryDirectory(prefix="packcli-") as folder:
        root = Path(folder)
        for name in ("units", ".packcli", *splits_of(recipe.config)):
            (root / name).mkdir()
        try:
            job = Job(recipe=recipe, root=root, committed=others)
            sidecars = run_unit(job, units[0], _silent) if units else []
        except PackcliError:
            _refuse_changed(opened, record, entry)
            raise
        made = next((each for each in sidecars if (each.unit, each.part) == place), None)
        _refuse_other(record, entry, None if made is None else made.input_xxh3)
        shard = made.shards.get(_split_of(record, entry)) if made is not None else None
        if shard is None or shard.sha256 != entry["sha256"]:
            now = "none" if shard is None else shard.sha256[:12]
            raise MismatchError(
                f"{entry['file']}: the same rows, packed again, give another shard: sha256 was {entry['sha256'][:12]}, "
                f"is {now}" + (": the strategy does not answer alike for the same lengths" if own is not None else ""),
                "no row of it can be given back with certainty",
            )
        return _read_row(root / shard.file, index, run_schema(recipe.config, recipe.tokenizer), entry["first_source"])


def _silent(event: object) -> None:
    """Takes the events of a unit."""


def _split_of(record: PackedDataset, entry: ShardEntry) -> str:
    return next(str(split) for split, shards in record.manifest["splits"].items() if entry in shards)


def _refuse_changed(opened: OpenInputs, record: PackedDataset, entry: ShardEntry) -> None:
    """Raises MismatchError when the rows of the part are not those that were packed. Reads all of them."""
    config, recipe = record.config, opened.recipe
    digests: list[str] = []
    for unit in opened.units:
        if unit.index == entry["unit"]:
            digests = readers.digest_parts(
                unit, recipe.sources, recipe.fields, unit_bytes=config.unit_bytes, split_on=config.split_on
            )
    _refuse_other(record, entry, digests[entry["part"]] if entry["part"] < len(digests) else None)


def _refuse_other(record: PackedDataset, entry: ShardEntry, digest: str | None) -> None:
    """Raises MismatchError when a part of this digest is not the one that the manifest knows."""
    place = entry["unit"], entry["part"]
    then = next(each["input_xxh3"] for each in record.manifest["parts"] if (each["unit"], each["part"]) == place)
    if digest != then:
        now = "is not there any more" if digest is None else f"XXH3 was {then[:12]}, now it is {digest[:12]}"
        raise MismatchError(
            f"the rows of the inputs that {entry['file']} was made of have changed: {now}",
            "the pack can be made again from the rows that were packed only; --against says where they are now",
        )


def _differing(stored: Columns, made: Columns) -> list[str]:
    """What is not the same, column by column."""
    differences = []
    for name, stored_values in stored.items():
        if name == "sources":
            if not all(map(np.array_equal, stored_values, made[name])):
                differences.append("sources differ")
            continue
        made_values = np.asarray(made[name])
        if len(stored_values) != len(made_values):
            differences.append(f"{name} has {len(stored_values)} values, the inputs give {len(made_values)}")
        elif (at := np.flatnonzero(np.asarray(stored_values) != made_values)).size:
            first = int(at[0])
            differences.append(
                f"{name} differs at {len(at)} positions; {first} holds {stored_values[first]}, "
                f"the inputs give {made_values[first]}"
            )
    return differences


def _as_lists(columns: Columns) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, values in columns.items():
        if isinstance(values, tuple):
            entries = zip(*(each.tolist() for each in values), strict=True)
            out[name] = [dict(zip(SOURCE_FIELDS, entry, strict=True)) for entry in entries]
        else:
            out[name] = values.tolist()
    return out
