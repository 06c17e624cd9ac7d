"""The run of an export: lock, resume, parts, commit.

OUT/export.json            written last: the export is whole; what it was made of, and the sha256 of every file
OUT/.packcli/plan.json     what the export is, written first
OUT/.packcli/parts/        a record for each shard that is done
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from packcli.dataset import MANIFEST, STATE_DIRECTORY, Output, PackedDataset
from packcli.errors import MismatchError, OutputError, StorageError
from packcli.exports.base import Export, Exported, ExportedFile, ExportPart, Sink
from packcli.storage import Location
from packcli.storage.files import write_json

EXPORT_VERSION = 1
"""Version of the bytes that exports hold."""
RECORD = "export.json"
PARTS = f"{STATE_DIRECTORY}/parts"


def run_export(
    exporter: Export, name: str, directory: Location, output: Path, *, lossy: bool, overwrite: bool
) -> Exported:
    """See packcli.exports.export."""
    packed = PackedDataset(directory)
    target = Output(output)
    above = packed.root.resolve().parents if isinstance(packed.root, Path) else ()
    if (output / MANIFEST).exists() or output.resolve() in above:
        raise OutputError(f"{output} holds a packed directory", "choose another directory with -o")
    target.check_ours()
    exporter.check(packed, lossy)
    run = {
        "export_version": EXPORT_VERSION,
        "format": name,
        "source_fingerprint": packed.manifest["fingerprint"],
        "shard_sha256": [shard["sha256"] for shards in packed.splits.values() for shard in shards],
    }
    run["fingerprint"] = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
    with target.lock.held():
        try:
            target.refuse_mismatch(run)
        except MismatchError:
            recorded = target.state.recorded_run() or {}
            if not overwrite or "export_version" not in recorded:
                raise
            _clear(output)
        return ExportRun(exporter, name, packed, output, run, lossy).carry_out()


class ExportRun:
    """One call of run_export; the lock is held."""

    def __init__(
        self, exporter: Export, name: str, packed: PackedDataset, root: Path, run: dict[str, Any], lossy: bool
    ) -> None:
        self.exporter, self.name, self.packed, self.lossy = exporter, name, packed, lossy
        self.run, self.root = run, root

    def carry_out(self) -> Exported:
        """Exports the shards that are not exported yet, and joins the parts."""
        finished = _read(self.root / RECORD)
        if finished and all(_is_there(self.root, ExportedFile(**file)) for file in finished["files"]):
            shutil.rmtree(self.root / PARTS, ignore_errors=True)
            os.utime(self.root / RECORD)
            return self._exported(finished, "up to date")
        (self.root / RECORD).unlink(missing_ok=True)
        for left_over in self.root.rglob(".*.tmp"):
            left_over.unlink(missing_ok=True)
        (self.root / PARTS).mkdir(parents=True, exist_ok=True)
        write_json(self.root / STATE_DIRECTORY / "plan.json", self.run)
        parts: dict[str, list[ExportPart]] = {split: [] for split in self.packed.splits}
        num_resumed = 0
        for split, shards in self.packed.splits.items():
            for index in range(len(shards)):
                part = self._recorded(split, index)
                num_resumed += part is not None
                parts[split].append(part or self._part(split, index))
        num_tokens = sum(part.counts["num_tokens"] for each in parts.values() for part in each)
        if num_tokens != self.packed.stats.num_tokens_packed:
            raise StorageError(
                f"{self.packed.root}: {num_tokens} tokens were found, the report says "
                f"{self.packed.stats.num_tokens_packed}: a last document of one pad id looks like padding",
                "pack with sources among --columns",
            )
        sink = Sink(self.root)
        self.exporter.finish(self.packed, parts, sink)
        files = [file for each in parts.values() for part in each for file in part.files] + sink.files
        kept = [file for file in files if not file.name.startswith(PARTS)]
        record = {
            **self.run,
            "num_rows": sum(part.counts["num_rows"] for each in parts.values() for part in each),
            "num_tokens": num_tokens,
            "files": [dataclasses.asdict(file) for file in kept],
        }
        write_json(self.root / RECORD, record)
        shutil.rmtree(self.root / PARTS, ignore_errors=True)
        return self._exported(record, "resumed" if num_resumed else "exported")

    def _part(self, split: str, index: int) -> ExportPart:
        self.packed.check_sha256(self.packed.splits[split][index])
        sink = Sink(self.root)
        counts = self.exporter.write_part(self.packed, split, index, sink, self.lossy)
        part = ExportPart(split=split, index=index, files=tuple(sink.files), counts=counts)
        write_json(self.root / PARTS / f"{split}-{index:05d}.json", dataclasses.asdict(part))
        return part

    def _recorded(self, split: str, index: int) -> ExportPart | None:
        record = _read(self.root / PARTS / f"{split}-{index:05d}.json")
        if record is None:
            return None
        part = ExportPart(**{**record, "files": tuple(ExportedFile(**file) for file in record["files"])})
        return part if all(_is_there(self.root, file) for file in part.files) else None

    def _exported(self, record: dict[str, Any], status: str) -> Exported:
        files = tuple(ExportedFile(**file) for file in record["files"])
        return Exported(
            output=self.root,
            format=self.name,
            status=status,
            rows_are=self.exporter.rows_are,
            num_rows=record["num_rows"],
            num_tokens=record["num_tokens"],
            num_bytes=sum(file.num_bytes for file in files),
            files=files,
            load=self.exporter.load_lines(self.packed, str(self.root)),
        )


def _clear(root: Path) -> None:
    """Removes the files of an export, whole or not, and nothing else."""
    records = [_read(root / RECORD), *(_read(path) for path in (root / PARTS).glob("[!.]*.json"))]
    for record in records:
        for file in record["files"] if record else ():
            path = root / file["name"]
            if root.resolve() in path.resolve().parents:
                path.unlink(missing_ok=True)
    (root / RECORD).unlink(missing_ok=True)
    shutil.rmtree(root / PARTS, ignore_errors=True)
    (root / STATE_DIRECTORY / "plan.json").unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OutputError(f"{path}: damaged: {error}", "remove it, and run the same command again") from None


def _is_there(root: Path, file: ExportedFile) -> bool:
    try:
        return (root / file.name).stat().st_size == file.num_bytes
    except FileNotFoundError:
        return False
