"""What an output remembers of its run, in .packcli: what it is, how it was carried out, when the inputs were last seen.

Nothing of it is hashed. plan.json holds the description whose sha256 is the fingerprint.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packcli import storage
from packcli.dataset.paths import MIX, PLAN
from packcli.errors import OutputError
from packcli.readers import Source
from packcli.storage.files import read_json, write_json


class RunState:
    """What an output remembers of its run.

    Args:
        folder: The state directory.
    """

    def __init__(self, folder: storage.Location) -> None:
        self.folder = folder

    @functools.cached_property
    def spool(self) -> Path:
        """Where standard input is kept while it is packed: on this machine."""
        if isinstance(self.folder, storage.RemotePath):
            return Path(tempfile.gettempdir()) / f"packcli-{uuid.uuid4().hex}.jsonl"
        return self.folder / "stdin.jsonl"

    def log(self, file_name: str = "run.jsonl", /, **entry: Any) -> None:
        """Appends a line to the run log: times, workers, paths, versions; nothing that is hashed."""
        path = self.folder / file_name
        line = json.dumps(entry) + "\n"
        if isinstance(path, storage.RemotePath):  # nothing can be appended there; nobody else writes this file
            path.put((path.read_bytes() if path.is_file() else b"") + line.encode())
            return
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)

    def last_run(self) -> dict[str, Any]:
        """The newest entry of the run log; empty when there is none."""
        try:
            lines = (self.folder / "run.jsonl").read_text(encoding="utf-8").splitlines()
            return dict(json.loads(lines[-1]))
        except (OSError, ValueError, IndexError):
            return {}

    def recorded_run(self) -> dict[str, Any] | None:
        """What describe_run gave for the run that this output belongs to."""
        return read_json(self.folder / PLAN)

    def recorded_date(self) -> str | None:
        """The day that chat templates took for today when this output was begun; None when nothing tells."""
        try:
            template = (self.recorded_run() or {})["text"]["chat_template"]
            return str(template["date"]) if template["date"] else None
        except (OutputError, LookupError, TypeError):  # damaged: the run says so when it begins
            return None

    def saw_inputs(self, sources: Sequence[Source]) -> None:
        """Remembers when the inputs were last changed."""
        write_json(self.folder / "inputs.json", {source.name: seen_input(source) for source in sources})

    def changed_since(self, sources: Sequence[Source]) -> list[int]:
        """Indices of sources whose time of change differs from what was remembered: their rows must be compared."""
        seen = read_json(self.folder / "inputs.json") or {}
        return [index for index, source in enumerate(sources) if seen.get(source.name) != seen_input(source)]

    def remember_mix(self, request: Mapping[str, Any], mix: Mapping[str, Any]) -> None:
        """Keeps what was counted for a mixture: the same command need not count again."""
        write_json(self.folder / MIX, {"asked": request, "mix": mix})

    def remembered_mix(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was counted for a mixture; None when that was another one."""
        with contextlib.suppress(OutputError):
            kept = read_json(self.folder / MIX) or {}
            return kept.get("mix") if kept.get("asked") == request else None
        return None


def seen_input(source: Source) -> list[Any]:
    """What tells whether an input has changed: its place, its time, its size."""
    if storage.is_remote(source.path):
        return [source.path.encode().hex(), source.version, source.num_bytes]
    stat = os.stat(source.path)
    return [os.fsencode(os.path.realpath(source.path)).hex(), stat.st_mtime_ns, stat.st_size]
