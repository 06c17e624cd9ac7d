"""What a run is to those who work on its units: the job, its splits, and the schema of its shards."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass

from packcli import chat, readers, tokenizing
from packcli.config import PackConfig
from packcli.rejects import NO_LIMIT, Limit
from packcli.shards import Schema, make_schema
from packcli.stores import Location, is_remote, locate
from packcli.strategies.random import mix

TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Everything that run_unit needs besides the unit; picklable."""

    config: PackConfig
    root: Location
    sources: tuple[readers.Source, ...]
    fields: readers.Fields
    tokenizer: tokenizing.TokenizerSpec
    template: chat.TemplateSpec | None
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
        self, unit: readers.Unit, *, meter: readers.Meter | None = None, hashed: bool = True
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


def run_schema(config: PackConfig, tokenizer: tokenizing.TokenizerSpec) -> Schema:
    """The schema of every shard of a run."""
    return make_schema(
        config.written_columns,
        {
            "max_len": config.max_len,
            "pad_id": tokenizer.pad_id,
            "eos_id": tokenizer.eos_id,
            "isolate": config.isolate,
            "ragged": config.ragged,
            "tokenizer_sha256": tokenizer.sha256,
        },
    )


def splits_of(config: PackConfig) -> tuple[str, ...]:
    """The splits of a run, in order."""
    return (TRAIN, VALIDATION) if config.val_fraction else (TRAIN,)


def plan_seed(config: PackConfig, unit: int, part: int, split: int) -> int:
    """The seed of the plan of one split of one part.

    The parts of a compressed file, which is one unit, are the units of the same file when it is plain: both are
    numbered alike here, so that both give the same packs.
    """
    return mix(config.seed, unit + part, 0, split)


def folder_of(config: PackConfig, split: str) -> str:
    """Where the shards of a split are, below the output: '' or 'train/'."""
    return f"{split}/" if config.val_fraction else ""
