"""What a run is to those who work on its units: the job, its splits, and the schema of its shards."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from packcli import readers, tokenization
from packcli.config import PackConfig
from packcli.dataset import NO_LIMIT, Limit
from packcli.seeds import derive
from packcli.storage import Location, is_remote, locate


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Everything that run_unit needs besides the unit; picklable."""

    config: PackConfig
    root: Location
    sources: tuple[readers.Source, ...]
    fields: readers.Fields
    tokenizer: tokenization.TokenizerSpec
    template: tokenization.TemplateSpec | None
    """The chat template, where records can hold messages."""
    engine: str
    """Engine of tokenization."""
    threads: int
    """Threads of that engine in one process."""
    committed: frozenset[tuple[int, int]]
    """(unit, part) of the parts that need not be done again."""
    limit: Limit = NO_LIMIT
    """How many rows may be skipped."""

    @property
    def encoder_key(self) -> object:
        """What decides whether a loaded engine can be used again."""
        return self.tokenizer, self.engine, self.threads

    def parts(
        self, unit: readers.Unit, *, meter: readers.ReadProgress | None = None, hashed: bool = True
    ) -> Iterator[readers.Part]:
        """The parts of a unit, as the settings cut them; see readers.read_parts."""
        return readers.read_parts(
            unit,
            self.sources,
            self.fields,
            unit_bytes=self.config.unit_bytes,
            split_on=self.config.split_on,
            hashed=hashed,
            meter=meter,
        )

    def anywhere(self) -> Job:
        """The same job with absolute paths: workers on other machines have another current directory."""
        sources = (dataclasses.replace(each, path=_absolute(each.path)) for each in self.sources)
        tokenizer = dataclasses.replace(self.tokenizer, path=_absolute(self.tokenizer.path))
        return dataclasses.replace(self, root=locate(_absolute(self.root)), sources=tuple(sources), tokenizer=tokenizer)


def _absolute(path: str | Location) -> str:
    return str(path) if is_remote(str(path)) else os.path.abspath(str(path))


def plan_seed(config: PackConfig, unit: int, part: int, split: int) -> int:
    """The seed of the plan of one split of one part.

    The parts of a compressed file, which is one unit, are the units of the same file when it is plain: both are
    numbered alike here, so that both give the same packs.
    """
    return derive(config.seed, unit + part, 0, split)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run before it is carried out."""

    sources: list[readers.Source]
    fields: readers.Fields
    units: list[readers.Unit]
    tokenizer: tokenization.TokenizerSpec
    template: tokenization.TemplateSpec | None
    run: dict[str, Any]
    counted: dict[str, Any] | None = None
    """What a mixture was counted for, see mixture.mixed."""
