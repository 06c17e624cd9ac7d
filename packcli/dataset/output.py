"""The output directory while it is written: whose it is, which parts are committed, whether it is whole.

DIR/.packcli/           lock, run log, settings, when the inputs were last seen; never hashed
DIR/.packcli/plan.json  what the run is (its fingerprint), written before the first part
DIR/.packcli/ranks/     a heartbeat of each rank that works on it; what ranks begin with is beside it
DIR/units/*.json        a sidecar for each committed part: the commit point of its shards
DIR/manifest.json       written last, with the sha256 of every other file: the output is whole

DIR may be a prefix of an object store; .packcli/ is there then too, so that any machine can go on.

Sidecars and the manifest are sealed: the last key is the sha256 of all bytes before it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packcli import storage
from packcli.config import PackConfig
from packcli.dataset.fingerprint import first_difference, sealed_bytes
from packcli.dataset.lock import OutputLock
from packcli.dataset.paths import (
    MANIFEST,
    MIX,
    OUR_DIRECTORIES,
    OUR_PATTERNS,
    OURS,
    PLAN,
    RANK_FILES,
    RANKS,
    STATE_DIRECTORY,
)
from packcli.dataset.sidecar import Sidecar
from packcli.dataset.state import RunState
from packcli.errors import MismatchError, OutputError
from packcli.readers import Source
from packcli.storage.files import LEFT_OVER, committed, write_json


class Output:
    """An output directory. Everything that writes below it goes through here or through files.committed."""

    def __init__(self, root: storage.Location) -> None:
        self.root = root
        self.state = RunState(root / STATE_DIRECTORY)
        """What it remembers of its run."""
        self.lock = OutputLock(root, root / STATE_DIRECTORY)
        """Who may write it."""

    def check_ours(self) -> None:
        """Raises OutputError when the directory is a file, or holds something that packcli did not write."""
        if isinstance(self.root, storage.RemotePath):
            self.root.check_writable()
        if self.root.exists() and not self.root.is_dir():
            raise OutputError(f"{self.root} is a file", "choose a directory with -o")
        if not self.root.is_dir():
            return
        # A run that was killed before it began leaves only .packcli behind; files beside it are somebody else's.
        begun = (self.state.folder / PLAN).is_file()
        if not begun and any(path.name != STATE_DIRECTORY for path in self.root.iterdir()):
            raise OutputError(
                f"{self.root} is not empty and not an output of packcli: nothing in it was touched",
                "choose another directory with -o",
            )

    @property
    def is_finished(self) -> bool:
        """Whether the last file of a run is there."""
        return (self.root / MANIFEST).is_file()

    def refuse_mismatch(self, run: Mapping[str, Any]) -> None:
        """Raises MismatchError when the output belongs to another run, naming the first field that differs."""
        try:
            recorded = self.state.recorded_run()
        except OutputError as error:
            raise MismatchError(error.message, self.way_out) from None
        if recorded is None or recorded == run:
            return
        place, then, now = first_difference(recorded, run) or ("fingerprint", "another", "this one")
        raise MismatchError(f"{self.root} belongs to another run: {place} was {then}, now it is {now}", self.way_out)

    @property
    def way_out(self) -> str:
        """What to do with an output that belongs to another run."""
        if self.is_finished:
            return "use another -o, or --overwrite to replace it"
        return "it is not finished: use another -o, or --restart to begin it anew"

    def begin(self, run: Mapping[str, Any], sources: Sequence[Source], config: PackConfig) -> None:
        """Makes the directory ready for the run, and sweeps what dead processes left half written.

        The settings are kept as a packcli.toml; it names the tokenizer by its path, so it is not hashed.
        """
        self.sweep()
        if self.state.recorded_run() is None:
            write_json(self.state.folder / PLAN, run)  # first: without it, files count as somebody else's
        (self.root / "units").mkdir(exist_ok=True)
        self.state.saw_inputs(sources)
        (self.root / MANIFEST).unlink(missing_ok=True)  # the output is not whole until it is written anew
        self.write_text(f"{STATE_DIRECTORY}/packcli.toml", config.to_toml())

    def sweep(self) -> None:
        """Removes what dead processes left half written. The lock is held, so nobody else writes here."""
        for path in self.left_over():
            path.unlink(missing_ok=True)

    def left_over(self) -> list[Path]:
        """Files that are half written: by processes that died, or that write them now. None in an object store."""
        if isinstance(self.root, storage.RemotePath) or isinstance(self.state.folder, storage.RemotePath):
            return []
        places = (
            self.root,
            self.state.folder,
            self.state.folder / RANKS,
            *(self.root / name for name in OUR_DIRECTORIES),
        )
        return [path for place in places if place.is_dir() for path in place.glob(LEFT_OVER)]

    def clear(self) -> None:
        """Removes what packcli wrote here, and nothing else."""
        self.sweep()
        for folder, patterns in OUR_PATTERNS.items():
            for pattern in patterns:
                paths = (self.root / folder).glob(pattern)
                for _ in storage.concurrently(self.root, functools.partial(_unlink, missing_ok=True), paths):
                    pass
        for name in OURS:
            (self.root / name).unlink(missing_ok=True)
        for name in OUR_DIRECTORIES:
            with contextlib.suppress(OSError):  # it holds something else
                (self.root / name).rmdir()
        for pattern in ("*.json", "*.jsonl"):
            for each in (self.state.folder / RANKS).glob(pattern):
                each.unlink(missing_ok=True)
        for name in (*RANK_FILES, "inputs.json", MIX, PLAN):  # the plan last: by it the output is known as ours
            (self.state.folder / name).unlink(missing_ok=True)

    def commit(self, sidecar: Sidecar) -> None:
        """Commits a part: from here on it is done."""
        with committed(self.root / sidecar.file) as file:
            file.write(sealed_bytes(sidecar.as_dict()))

    def touch(self) -> None:
        """Marks the manifest as new, so that make does not ask again."""
        if isinstance(self.root, Path):
            os.utime(self.root / MANIFEST)

    def write_text(self, name: str, text: str) -> None:
        """Commits a text file."""
        with committed(self.root / name) as file:
            file.write(text.encode())


def _unlink(path: storage.Location, *, missing_ok: bool) -> None:
    path.unlink(missing_ok=missing_ok)
