"""Several outputs of one config -> one output, without copying a token where the file system knows hard links.

    DIR, DIR, ...   sealed sidecars, shards, files of rejected rows    read, never written
    OUT             the same files under new names, sidecars with new numbers, their sums

Units and inputs are numbered on: those of the second DIR follow those of the first. An output that was merged itself is
listed by its members, so that merging in steps gives the same bytes as merging at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packcli import storage
from packcli.dataset import (
    MERGED,
    MIX,
    NO_LIMIT,
    PLAN,
    STATE_DIRECTORY,
    Output,
    PackedDataset,
    Problem,
    Report,
    Sidecar,
    adopt_shard,
    check_files,
    check_output,
    fingerprint,
    first_difference,
    folder_of,
    path_of,
    read_manifest,
    read_unit,
    rejects_file,
    remembered_inputs,
    splits_of,
)
from packcli.errors import MismatchError, OutputError, StorageError, UsageError
from packcli.pipeline.events import Warned
from packcli.pipeline.finish import collect, finish
from packcli.pipeline.prepare import num_cpus
from packcli.pipeline.upkeep import cleaned_up, log_run
from packcli.storage.files import write_json

SETTINGS = "packcli.toml"
SAME = ("format_version", "config", "text", "max_line_bytes", "tokenizer")
"""Keys of the manifest that must be equal."""

SHOWN = 5
"""Lines, at most, about inputs that several outputs have in common."""


@dataclass(frozen=True, slots=True)
class _Input:
    """An output that is merged, and what is added to the numbers of its sources and units."""

    root: Path
    record: PackedDataset
    first_source: int
    first_unit: int

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.record.manifest

    def renumbered(self, sidecar: Sidecar) -> Sidecar:
        """A sidecar as the merged output has it."""
        config, unit = self.record.config, sidecar.unit + self.first_unit
        shards = {
            split: dataclasses.replace(
                shard,
                file=f"{folder_of(config, split)}data-{unit:05d}-{sidecar.part:03d}.arrow",
                first_source=shard.first_source + self.first_source,
            )
            for split, shard in sidecar.shards.items()
        }
        by_source = {index + self.first_source: counts for index, counts in sidecar.stats.by_source.items()}
        stats = dataclasses.replace(sidecar.stats, by_source=by_source)
        rejected = sidecar.rejected
        if rejected is not None:
            rejected = dataclasses.replace(rejected, file=rejects_file(unit, sidecar.part))
        return dataclasses.replace(sidecar, unit=unit, shards=shards, stats=stats, rejected=rejected)


def merge(
    directories: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    verify: bool = False,
    on_event: Callable[[object], None] | None = None,
) -> Report:
    """Makes one output of several; resumes what was interrupted; does nothing when it is up to date.

    The order of the directories is the order of the rows. They are not written to. Their shards get a second name (a
    hard link) where the file system allows it, else they are copied; either way they may be removed afterwards.

    Args:
        directories: Finished outputs of the same settings, tokenizer, record shape and columns.
        output: The directory to write.
        overwrite: Replace an output of packcli that is something else, finished or not.
        verify: Hash every shard and look at every row first; else sizes and everything but the shards are checked.
        on_event: Called with Warned events.

    Raises:
        PackcliError: whatever is wrong; see packcli.errors.
    """
    emit = on_event or (lambda event: None)
    remote = [os.fspath(each) for each in (*directories, output) if storage.is_remote(os.fspath(each))]
    if remote:
        raise UsageError(f"{remote[0]}: only directories can be merged, and this is none", "copy it to a disk first")
    roots = [Path(each) for each in directories]
    target = Output(Path(output))
    target.check_ours()
    target.lock.refuse()
    inputs = _read_inputs(roots, Path(output), verify)
    run = _describe(inputs)
    for message in _find_duplicates(inputs):
        emit(Warned(message))
    with target.lock.held(), cleaned_up(target, needed=lambda: _num_bytes(inputs)):
        return _carry_out(target, inputs, run, overwrite)


def _read_inputs(roots: Sequence[Path], output: Path, verify: bool) -> list[_Input]:
    """The records of the directories, which are checked: each is sound, and all go together."""
    if not roots:
        raise UsageError("nothing to merge", "name the directories that packcli pack wrote")
    inputs: list[_Input] = []
    first_source = first_unit = 0
    for root in roots:
        real, target = os.path.realpath(root), os.path.realpath(output)
        if os.path.commonpath([real, target]) in (real, target):
            raise OutputError(f"{root} is to be merged into {output}: one lies in the other", "choose another -o")
        read_manifest(root)  # says what is not finished
        record = _read_sound(root, verify)
        if MIX in record.manifest:
            raise UsageError(
                f"{root} is a mixture: how often it takes a document is said for all of it", "mix all of it at once"
            )
        each = _Input(root, record, first_source, first_unit)
        if inputs:
            _refuse_other(inputs[0], each)
        inputs.append(each)
        first_source += len(each.manifest["inputs"])
        first_unit += each.manifest["num_units"]
    return inputs


def _read_sound(root: Path, verify: bool) -> PackedDataset:
    """Raises StorageError when an output is damaged."""
    record, problems = check_files(root)
    if verify and record is not None and not problems:
        problems = check_output(root).problems
    elif record is not None:
        for sidecar in record.sidecars:
            for shard in sidecar.files:
                size = _size(root / shard.file)
                if size != shard.num_bytes:
                    has = "is missing" if size is None else f"has {size:,} bytes, had {shard.num_bytes:,}"
                    problems.append(Problem(shard.file, has))
    if record is None or problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StorageError(f"{root / first.file}: {first.what}{more}", f"packcli verify {root} says what is wrong")
    return record


def _num_bytes(inputs: Sequence[_Input]) -> int:
    """Of all shards and rejected rows."""
    sidecars = (sidecar for each in inputs for sidecar in each.record.sidecars)
    return sum(shard.num_bytes for sidecar in sidecars for shard in sidecar.files)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _refuse_other(first: _Input, other: _Input) -> None:
    for key in SAME:
        difference = first_difference(first.manifest[key], other.manifest[key], key)
        if difference is not None:
            place, one, two = difference
            raise MismatchError(
                f"{other.root} cannot be merged with {first.root}: {place} is {one} in the first, {two} in the other",
                "merge outputs of the same settings and tokenizer: pack one of them again",
            )


def _describe(inputs: Sequence[_Input]) -> dict[str, Any]:
    """What the merged output is, as describe_run says it of a packed one."""
    members: list[dict[str, Any]] = []
    for each in inputs:
        manifest = each.manifest
        own = {"fingerprint": manifest["fingerprint"], "sha256": manifest["sha256"]}
        counts = {"num_inputs": len(manifest["inputs"]), "num_units": manifest["num_units"]}
        members += manifest.get(MERGED, [{**own, **counts}])
    run = {
        **{key: inputs[0].manifest[key] for key in SAME},
        "inputs": [entry for each in inputs for entry in each.manifest["inputs"]],
        "num_units": sum(each.manifest["num_units"] for each in inputs),
        MERGED: members,
    }
    return {**run, "fingerprint": fingerprint(run)}


def _find_duplicates(inputs: Sequence[_Input]) -> list[str]:
    """A line for every input whose documents will be there twice: it has the file, or the rows, of another one."""
    lines: list[str] = []
    files: dict[str, int] = {}
    parts: dict[str, tuple[int, str]] = {}
    for number, each in enumerate(inputs):
        names = [entry["name"] for entry in each.manifest["inputs"]]
        named: set[str] = set()
        for name, remembered in zip(names, remembered_inputs(each.root, each.manifest), strict=True):
            path = path_of(remembered)
            before = files.setdefault(path, number) if path is not None else number
            if before != number:
                named.add(name)
                lines.append(f"{name} is an input of {inputs[before].root} and of {each.root}: it is there twice")
        for sidecar in each.record.sidecars:
            held = [names[index] for index in sorted(sidecar.stats.by_source)]
            if not held or named.issuperset(held):
                continue
            what = ", ".join(held[:SHOWN])
            first, where = parts.setdefault(sidecar.input_xxh3, (number, what))
            line = f"{what} of {each.root} has the rows of {where} of {inputs[first].root}: they are there twice"
            if first != number and line not in lines:
                lines.append(line)
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"... and {len(lines) - SHOWN} more that are there twice"]
    return lines


def _carry_out(target: Output, inputs: Sequence[_Input], run: Mapping[str, Any], overwrite: bool) -> Report:
    """Does what is left to do. The lock is held."""
    began, clock = time.time(), time.perf_counter()
    config, tokenizer = inputs[0].record.config, inputs[0].record.tokenizer
    _claim(target, run, overwrite)
    wanted = [(each, sidecar, each.renumbered(sidecar)) for each in inputs for sidecar in each.record.sidecars]
    units = range(run["num_units"])
    committed = {(each.unit, each.part): each for unit in units for each, _ in read_unit(target.root, unit)}
    done = [new for _, _, new in wanted if committed.get((new.unit, new.part)) == new]
    if target.is_finished and len(done) == len(wanted):
        target.touch()
        stats = collect(target.root, run["num_units"], workers=num_cpus()).stats
        return Report(target.root, dict(run), stats, "up to date", target.state.last_run())
    _begin(target, inputs, run)
    folder = target.root
    assert isinstance(folder, Path)  # merge refuses what is none
    for split in splits_of(config):
        (folder / folder_of(config, split)).mkdir(exist_ok=True)
    num_linked = num_copied = num_bytes_copied = 0
    finished = {(each.unit, each.part) for each in done}
    for each, old, new in wanted:
        if (new.unit, new.part) in finished:
            continue
        for split, shard in new.shards.items():
            if adopt_shard(each.root / old.shards[split].file, folder, shard):
                num_linked += 1
            else:
                num_copied += 1
                num_bytes_copied += shard.num_bytes
        if (
            old.rejected is not None
            and new.rejected is not None
            and not adopt_shard(each.root / old.rejected.file, folder, new.rejected)
        ):
            num_bytes_copied += new.rejected.num_bytes
        target.commit(new)
    stats = finish(target, run, config, tokenizer, limit=NO_LIMIT, workers=num_cpus())
    entry = log_run(
        target,
        began,
        time.perf_counter() - clock,
        resumed_parts=len(done),
        num_shards_linked=num_linked,
        num_shards_copied=num_copied,
        num_bytes_copied=num_bytes_copied,
        tokenizer_path=_known_tokenizer(inputs),
    )
    return Report(target.root, dict(run), stats, "resumed" if done else "merged", entry)


def _claim(target: Output, run: Mapping[str, Any], overwrite: bool) -> None:
    """Raises MismatchError when the output is something else; empties it when that may be replaced."""
    recorded: Mapping[str, Any] = {}
    with contextlib.suppress(OutputError):  # damaged: then it is another run, below
        recorded = target.state.recorded_run() or {}
    if "export_version" in recorded:
        raise OutputError(f"{target.root} holds an export", "choose another -o")
    try:
        target.refuse_mismatch(run)
    except MismatchError as error:
        if not overwrite:
            raise MismatchError(error.message, "use another -o, or --overwrite to replace it") from None
        target.clear()


def _begin(target: Output, inputs: Sequence[_Input], run: Mapping[str, Any]) -> None:
    """Makes the directory ready, and notes in it where the inputs and the settings of its members are."""
    target.sweep()
    state = target.state.folder
    if target.state.recorded_run() is None:
        write_json(state / PLAN, run)
    (target.root / "manifest.json").unlink(missing_ok=True)
    (target.root / "units").mkdir(exist_ok=True)
    remembered = [entry for each in inputs for entry in remembered_inputs(each.root, each.manifest)]
    write_json(state / "inputs.json", {str(number): entry for number, entry in enumerate(remembered) if path_of(entry)})
    for each in inputs:
        settings = each.root / STATE_DIRECTORY / SETTINGS
        if settings.is_file():
            target.write_text(f"{STATE_DIRECTORY}/{SETTINGS}", settings.read_text(encoding="utf-8"))
            break


def _known_tokenizer(inputs: Sequence[_Input]) -> str | None:
    paths = (Output(each.root).state.last_run().get("tokenizer_path") for each in inputs)
    return next((path for path in paths if isinstance(path, str)), None)
