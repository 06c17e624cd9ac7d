"""Outputs in one output: the members of a merged one, and which inputs and units are whose.

The shards of a member keep their bytes, so their rows count inputs as the member did. `first_source` of a shard is what
its readers add: with it, every row names its input as the manifest numbers them.

    member     inputs     units     first_source
    one        0 1        0 1 2     0
    other      2          3 4       2

An output that was not merged is its only member.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packcli import readers
from packcli.dataset.paths import STATE_DIRECTORY
from packcli.storage import Location

MERGED = "merged"
"""Key of a manifest: fingerprint, sha256 of the manifest, num_inputs and num_units of every member, in order."""

MIX = "mix"
"""Key of the manifest of a mixture: components with epochs and threshold, and bytes of text by source."""

NO_LIMIT = 1 << 62
"""The limit of bytes a row where no row was too long: whatever was packed can be read again."""


@dataclass(frozen=True, slots=True)
class Member:
    """One of the outputs that a merged one is made of."""

    first_source: int
    num_inputs: int
    first_unit: int
    num_units: int

    @property
    def inputs(self) -> slice:
        """Its inputs among those of the manifest."""
        return slice(self.first_source, self.first_source + self.num_inputs)


def members_of(manifest: Mapping[str, Any]) -> list[Member]:
    """The members of an output, in the order of its rows."""
    whole = {"num_inputs": len(manifest["inputs"]), "num_units": manifest["num_units"]}
    members: list[Member] = []
    source = unit = 0
    for each in manifest.get(MERGED, [whole]):
        members.append(Member(source, each["num_inputs"], unit, each["num_units"]))
        source += each["num_inputs"]
        unit += each["num_units"]
    return members


def member_of(members: Sequence[Member], unit: int) -> Member:
    """The member that a unit came with. Raises ValueError when it is no one's."""
    at = bisect.bisect_right(members, unit, key=lambda each: each.first_unit) - 1
    if at < 0 or unit >= members[at].first_unit + members[at].num_units:
        raise ValueError(f"unit {unit} belongs to no member")
    return members[at]


def cut_units(manifest: Mapping[str, Any], sources: Sequence[readers.Source], unit_bytes: int) -> list[readers.Unit]:
    """The units of an output: every member's inputs are cut on their own, as they were.

    Args:
        manifest: Of the output.
        sources: All its inputs.
        unit_bytes: Of its settings.
    """
    units: list[readers.Unit] = []
    if MIX in manifest:
        return list(readers.cut_mixed(sources, manifest[MIX], unit_bytes, manifest["config"]["seed"]))
    for member in members_of(manifest):
        for unit in readers.cut_units(sources[member.inputs], unit_bytes):
            spans = (dataclasses.replace(span, source=span.source + member.first_source) for span in unit.spans)
            units.append(readers.Unit(unit.index + member.first_unit, tuple(spans)))
    return units


def remembered_inputs(root: Location, manifest: Mapping[str, Any]) -> list[Any]:
    """What an output remembers of each input: path, time of change, size; None for one of which it knows nothing."""
    try:
        seen = json.loads((root / STATE_DIRECTORY / "inputs.json").read_bytes())
    except (OSError, ValueError):
        return [None] * len(manifest["inputs"])
    # Inputs of several members may share a name, so a merged output keeps them by number.
    keys = (str(index) if MERGED in manifest else each["name"] for index, each in enumerate(manifest["inputs"]))
    return [seen.get(key) if isinstance(seen, dict) else None for key in keys]


def path_of(remembered: Any) -> str | None:
    """The path of an input that is remembered."""
    try:
        return os.fsdecode(bytes.fromhex(remembered[0]))
    except (ValueError, LookupError, TypeError):
        return None


def find_again(
    manifest: Mapping[str, Any], paths: Sequence[str], groups: Sequence[Sequence[str]], warn: list[str]
) -> list[readers.Source]:
    """The inputs of an output, where they are now.

    Args:
        manifest: Of the output.
        paths: Files, directories, globs.
        groups: The same, in groups that name no file twice: members may share inputs.
        warn: Gets a line for each thing that was passed over.

    Raises:
        PackcliError: as find_sources does.
    """
    then, config, limit = manifest["inputs"], manifest["config"], manifest["max_line_bytes"]
    rules = {
        "max_row_bytes": NO_LIMIT if limit is None else limit,
        "skip_bad": config["on_error"] == "skip",
        "lenient": config["lenient"],
    }
    warnings: list[str] = []
    sources = readers.find_sources(paths, warnings, **rules)
    if MERGED in manifest and len(sources) != len(then):
        warnings = []
        by_group = (readers.find_sources(group, warnings, **rules) for group in groups)
        sources = [source for each in by_group for source in each]
    warn += warnings
    if MERGED in manifest and len(sources) == len(then):
        return [dataclasses.replace(source, name=was["name"]) for source, was in zip(sources, then, strict=True)]
    return sources
