"""Documents that wait for the next part of their unit, found again: in no shard of the part that read them.

A sample of the parts needs more than these parts: a document that one of them packs may have been read up to MAX_MOVES
parts before. Of those parts only the documents are tokenized that their own shards do not hold.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.assemble import Origin
from packcli.carrying import MAX_MOVES, Carried
from packcli.job import splits_of
from packcli.merged import member_of, members_of
from packcli.overlong import kept_lengths
from packcli.shards import Schema, read_shard
from packcli.sidecars import Sidecar
from packcli.stores import Location
from packcli.verify.files import Record
from packcli.work import Choice, TokenizedPart

Ints = NDArray[np.int64]


def keys_of(source: NDArray[np.int32], row: Ints) -> NDArray[Any]:
    """Source and row as one value each, which sort like pairs."""
    pairs = np.empty(len(row), dtype=[("source", ">i4"), ("row", ">i8")])
    pairs["source"], pairs["row"] = source, row
    return pairs.view("S12")


def kept_of(part: TokenizedPart, record: Record) -> Ints:
    """Tokens of each document of a part that a pack should hold, int64[D]."""
    config = record.config
    kept = kept_lengths(part.tokens.lengths, config.max_len, "drop" if config.overlong == "drop" else "split")
    if config.overlong == "truncate":
        kept = np.minimum(kept, config.max_len)
    return np.where(part.has_loss, kept, 0)


def parts_before(record: Record, wanted: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """The parts, besides the wanted ones, that read documents which a wanted one may hold."""
    hands_on = {(each.unit, each.part) for each in record.sidecars if each.carry is not None}
    found = set()
    for unit, part in wanted:
        for before in range(part - 1, part - 1 - MAX_MOVES, -1):
            if (unit, before) not in hands_on:
                break
            found.add((unit, before))
    return found - set(wanted)


class Waiting:
    """Follows the parts of a unit.

    Args:
        root: The output.
        record: What it says about itself.
        schema: Of its shards.
    """

    def __init__(self, root: Location, record: Record, schema: Schema) -> None:
        self._root, self._record, self._schema = root, record, schema
        self.carried = Carried.nothing()
        """What the next part is handed."""
        self._next = 0

    def handed(self, part: int) -> Carried:
        """What a part is handed; nothing when it does not follow the last one, see `parts_before`."""
        if part != self._next:
            self.carried = Carried.nothing()
        self._next = part + 1
        return self.carried

    def chooser(self, passed: Mapping[int, Sidecar]) -> Choice | None:
        """Chooses the rows to tokenize: of parts that are passed by, those that their own shards do not hold."""
        if not passed:
            return None
        held: dict[int, NDArray[Any]] = {}

        def choose(part: int, source: int, rows: Ints) -> NDArray[np.bool_]:
            if part not in passed:
                return np.ones(len(rows), dtype=np.bool_)
            if part not in held:
                held.clear()
                held[part] = self.packed(passed[part])
            keys = keys_of(np.full(len(rows), source, dtype=np.int32), rows)
            others: NDArray[np.bool_] = np.isin(keys, held[part], invert=True)
            return others

        return choose

    def packed(self, sidecar: Sidecar) -> NDArray[Any]:
        """Keys of the documents in the shards of a part."""
        found = [keys_of(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64))]
        for info in sidecar.shards.values():
            for batch in read_shard(self._root / info.file, self._schema, info.first_source):
                if batch.sources is not None:
                    found.append(np.unique(keys_of(batch.sources.source, batch.sources.row)))
        return np.concatenate(found)

    def pass_by(self, sidecar: Sidecar, part: TokenizedPart) -> None:
        """Goes on over a part that is not compared."""
        is_packed = np.isin(keys_of(part.origin.source, part.origin.row), self.packed(sidecar))
        self._hand_on(part, ~is_packed & (kept_of(part, self._record) > 0))

    def go_on(self, sidecar: Sidecar, part: TokenizedPart, packed: Ints, kept: Ints) -> NDArray[np.bool_]:
        """Goes on over a part that was compared.

        Returns:
            bool[D], documents that are not in its packs and rightly so: exactly these wait, as its sidecar says.
        """
        waits: NDArray[np.bool_] = (packed == 0) & (kept > 0)
        self._hand_on(part, waits)
        said = None if sidecar.carry is None else sidecar.carry.sha256
        content = self._as_handed_on(sidecar.unit).to_bytes()
        if (hashlib.sha256(content).hexdigest() if content else None) != said:
            waits[:] = False
        return waits

    def _as_handed_on(self, unit: int) -> Carried:
        """What waits, with inputs numbered as they were when the unit was packed: not yet as in a merged output."""
        first = member_of(members_of(self._record.manifest), unit).first_source
        origin = Origin(self.carried.origin.source - np.int32(first), self.carried.origin.row)
        return dataclasses.replace(self.carried, origin=origin)

    def _hand_on(self, part: TokenizedPart, waits: NDArray[np.bool_]) -> None:
        docs = np.flatnonzero(waits)
        moves = np.zeros(len(waits), dtype=np.uint8)
        moves[: len(self.carried)] = self.carried.moves
        split = np.zeros(len(waits), dtype=np.uint8)
        for number, name in enumerate(splits_of(self._record.config)):
            split[part.of_split(name)] = number
        where = Origin(part.origin.source[docs], part.origin.row[docs])
        self.carried = Carried(part.tokens.take(docs), where, split[docs], moves[docs] + np.uint8(1))
