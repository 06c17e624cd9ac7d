"""The files of an output: each is there, is whole, and says what the others say."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packcli.config import PackConfig
from packcli.dataset.manifest import RECORD_KEYS, Manifest, list_shards, parse_manifest
from packcli.dataset.members import member_of, members_of
from packcli.dataset.paths import (
    CARD,
    EMPTY_SHARD,
    INDEX_FILES,
    MANIFEST,
    OUR_DIRECTORIES,
    PLAN,
    REJECTED,
    SHARD_NAME,
    SPLITS_FILE,
    STATE_DIRECTORY,
    STATS,
    folder_of,
    rejects_file,
    sidecar_file,
    splits_of,
)
from packcli.dataset.reader import PackedDataset
from packcli.dataset.rejects import count_causes, read_all
from packcli.dataset.report import stats_file
from packcli.dataset.schema import features
from packcli.dataset.sidecar import Sidecar, read_sidecar, whole_units
from packcli.dataset.stats import Stats
from packcli.errors import OutputError, StorageError
from packcli.storage import Location
from packcli.storage.files import LEFT_OVER, file_sha256, to_json

REJECTS_NAME = re.compile(r"units/\d{5,}-\d{3,}\.rejected\.jsonl")
"""No other file of rejected rows is opened, whatever a sidecar says."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong."""

    file: str
    """Path below the output; empty for the output as a whole."""
    what: str
    """What is wrong, and where in the file."""


def check_files(root: Location) -> tuple[PackedDataset | None, list[Problem]]:
    """Looks at everything but the rows.

    Returns:
        The output, None when it is not sound enough to look at rows; and problems.

    Raises:
        OutputError: the directory was not made by packcli.
    """
    if not (root / MANIFEST).is_file():
        if not (root / "units").is_dir() and not (root / STATE_DIRECTORY).is_dir():
            raise OutputError(f"{root}: not an output of packcli: no {MANIFEST}", "name a packed directory")
        return None, [Problem(MANIFEST, "is missing: the run was not finished, or the file is lost")]
    try:
        dataset = PackedDataset(root, parse_manifest((root / MANIFEST).read_bytes()))
    except ValueError as error:
        return None, [Problem(MANIFEST, str(error))]
    try:
        problems = list(_check_all(root, dataset.manifest, dataset.config))
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # of a forged sidecar whose seal is right
        return None, [Problem(MANIFEST, f"does not fit the files in units/: {error!r}")]
    try:
        sidecars = dataset.sidecars
    except StorageError:
        return None, problems
    foreign = any(not SHARD_NAME.fullmatch(info.file) for each in sidecars for info in each.shards.values())
    foreign |= any(not REJECTS_NAME.fullmatch(each.rejected.file) for each in sidecars if each.rejected is not None)
    if foreign or any(each.file == MANIFEST for each in problems):
        return None, problems
    return dataset, problems


def _check_all(root: Location, manifest: Manifest, config: PackConfig) -> Iterator[Problem]:
    splits = splits_of(config)
    names = [sidecar_file(part["unit"], part["part"]) for part in manifest["parts"]]
    expected = {STATS, CARD, *names}
    for split in splits:
        expected.update(f"{folder_of(config, split)}{name}" for name in INDEX_FILES)
        if split not in manifest["splits"]:
            expected.add(f"{folder_of(config, split)}{EMPTY_SHARD}")
    if len(splits) > 1:
        expected.add(SPLITS_FILE)
    rejects = [name for name in manifest["files"] if REJECTS_NAME.fullmatch(name)]
    expected.update([REJECTED, *rejects] if rejects else [])
    if set(manifest["files"]) != expected:
        odd = sorted(set(manifest["files"]) ^ expected)[0]
        yield Problem(MANIFEST, f"was edited: its list of files lacks {odd}, or should not have it")
    if not set(manifest["splits"]) <= set(splits):
        yield Problem(MANIFEST, f"was edited: it has splits other than {', '.join(splits)}")
    for name in sorted(expected & set(manifest["files"])):
        yield from _check_hash(root, name, manifest["files"][name])
    sidecars = []
    for name in names:
        sidecar = read_sidecar(root / name) if (root / name).is_file() else None
        if sidecar is not None:
            sidecars.append(sidecar)
        elif (root / name).is_file():
            yield Problem(name, "is damaged: its own sha256 does not hold, or it is another part's")
    if len(sidecars) == len(names):
        yield from _check_records(root, manifest, config, sidecars)
        yield from _check_rejects(root, rejects, sidecars)
    for split in splits:
        yield from _check_index(root, manifest, config, split)
    yield from _check_strangers(root, manifest)
    yield from _check_plan(root, manifest)


def _check_hash(root: Location, name: str, recorded: str) -> Iterator[Problem]:
    try:
        sha256, _ = file_sha256(root / name)
    except OSError as error:
        yield Problem(name, f"is missing or cannot be read: {error.strerror}")
        return
    if sha256 != recorded:
        yield Problem(name, f"has changed: sha256 is {sha256[:12]}, was {recorded[:12]}")


def _check_records(
    root: Location, manifest: Manifest, config: PackConfig, sidecars: list[Sidecar]
) -> Iterator[Problem]:
    """Sidecars against the manifest, and the sum of their counts against the report."""
    values: Mapping[str, Any] = manifest
    for key, value in list_shards(sidecars).items():
        if values[key] != value:
            yield Problem(MANIFEST, f"was edited: {key!r} is not what the files in units/ say")
    units = whole_units(sidecars)
    if len(units) != manifest["num_units"] or any(unit >= len(units) for unit in units):
        yield Problem(MANIFEST, f"lists parts that do not make up {manifest['num_units']} whole units")
    total = Stats()
    members = members_of(manifest)
    for sidecar in sidecars:
        for split, shard in sidecar.shards.items():
            name = f"{folder_of(config, split)}data-{sidecar.unit:05d}-{sidecar.part:03d}.arrow"
            if shard.file != name:
                yield Problem(sidecar.file, f"names the shard {shard.file!r} where {name} is meant")
            if shard.first_source != member_of(members, sidecar.unit).first_source:
                yield Problem(sidecar.file, f"first_source of {name} is not where the inputs of its member begin")
        try:
            sidecar.stats.check(config.max_len)
        except AssertionError as error:
            yield Problem(sidecar.file, f"its counts do not add up: {error}")
        total += sidecar.stats
    try:
        recorded = json.loads((root / STATS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # its hash does not hold, which is reported already
    expected = json.loads(to_json(stats_file(manifest, total)))
    if recorded != expected:
        keys = [key for key in expected if not isinstance(recorded, dict) or recorded.get(key) != expected[key]]
        yield Problem(STATS, f"is not the sum of the counts in units/: {', '.join(keys) or 'unknown keys'}")


def _check_rejects(root: Location, listed: list[str], sidecars: list[Sidecar]) -> Iterator[Problem]:
    """The files of rejected rows against those listed and the counts, and all of them against rejected.jsonl."""
    names = []
    for sidecar in sidecars:
        counted = sidecar.stats.rejected_by_cause
        name = rejects_file(sidecar.unit, sidecar.part)
        if (sidecar.rejected.file if sidecar.rejected is not None else name) != name:
            yield Problem(sidecar.file, f"names another file of rejected rows than {name}")
            return
        if sidecar.rejected is None:
            if counted:
                yield Problem(sidecar.file, "counts rejected rows and names no file of them")
            continue
        names.append(name)
        try:
            stored = count_causes(root / name)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # its hash does not hold, which is reported already
        if stored != counted:
            yield Problem(name, f"holds {stored} rejected rows, and {counted} were counted")
    if set(names) != set(listed):
        yield Problem(MANIFEST, "was edited: its files of rejected rows are not those that the files in units/ name")
    if names and all((root / name).is_file() for name in (REJECTED, *names)):
        digests = [hashlib.sha256(), hashlib.sha256()]
        for digest, files in zip(digests, ([REJECTED], names), strict=True):
            for block in read_all(root, files):
                digest.update(block)
        if digests[0].digest() != digests[1].digest():
            yield Problem(REJECTED, "is not what the files of rejected rows in units/ are together")


def _check_index(root: Location, manifest: Manifest, config: PackConfig, split: str) -> Iterator[Problem]:
    """What load_from_disk reads: it must lead to these shards, in this order, and to no others."""
    folder = folder_of(config, split)
    shards = [each["file"] for each in manifest["splits"].get(split, [])] or [f"{folder}{EMPTY_SHARD}"]
    wanted: dict[str, dict[str, Any]] = {
        f"{folder}{INDEX_FILES[0]}": {"features": features(config.written_columns)},
        f"{folder}{INDEX_FILES[1]}": {
            "_data_files": [{"filename": name.removeprefix(folder)} for name in shards],
            "_fingerprint": manifest["fingerprint"][:16],
            "_split": split,
        },
    }
    if len(splits_of(config)) > 1:
        wanted[SPLITS_FILE] = {"splits": list(splits_of(config))}
    for name, values in wanted.items():
        try:
            data = json.loads((root / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue  # its hash does not hold, which is reported already
        for key, value in values.items():
            if not isinstance(data, dict) or data.get(key) != value:
                yield Problem(name, f"{key!r} is not what the manifest says")


def _check_strangers(root: Location, manifest: Manifest) -> Iterator[Problem]:
    """Files that look like ours and that no manifest knows: rows from elsewhere, or what a dead process left."""
    known = {MANIFEST, *manifest["files"]}
    known.update(each["file"] for shards in manifest["splits"].values() for each in shards)
    for folder in ("", *OUR_DIRECTORIES):
        directory = root / folder
        if not directory.is_dir():
            continue
        for base in sorted(path.name for path in directory.iterdir()):
            name = f"{folder}/{base}" if folder else base
            if name in known or name in (STATE_DIRECTORY, *OUR_DIRECTORIES):
                continue
            if fnmatch.fnmatchcase(base, LEFT_OVER):
                yield Problem(name, "was left half written by a process that died")
            elif folder == "units" or (base.endswith(".arrow") and not base.startswith("cache-")):
                yield Problem(name, "is not of this run: the manifest does not know it")


def _check_plan(root: Location, manifest: Manifest) -> Iterator[Problem]:
    """The plan decides what resumes; it is this machine's, and may be absent in a copy."""
    name = f"{STATE_DIRECTORY}/{PLAN}"
    if not (root / name).is_file():
        return
    run = {key: value for key, value in manifest.items() if key not in RECORD_KEYS or key == "fingerprint"}
    if (root / name).read_bytes() != (to_json(run) + "\n").encode("utf-8", "surrogatepass"):
        yield Problem(name, "does not describe the run that the manifest describes")
