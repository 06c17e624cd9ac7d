"""What a run is (RunSpec), what turns its records into documents (Recipe), and what a worker is given (Job)."""

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
class Recipe:
    """What turns the records of a unit into documents: the same for packing, counting, measuring and verifying.

    It can be pickled, so that it travels to workers.
    """

    config: PackConfig
    sources: tuple[readers.Source, ...]
    fields: readers.Fields
    tokenizer: tokenization.TokenizerSpec
    template: tokenization.TemplateSpec | None
    """The chat template, where records can hold messages."""
    tokenizer_engine: str
    """The library that encodes: fastokens or tokenizers."""
    threads: int
    """Threads of that library in one process."""

    def load_encoder(self) -> tuple[tokenization.Engine, tokenization.SpotCheck]:
        """The engine of tokenization and its spot check; a process loads them once."""
        return tokenization.load_encoder(self.tokenizer, self.tokenizer_engine, self.threads)

    def parts(
        self, unit: readers.Unit, *, progress: readers.ReadProgress | None = None, hashed: bool = True
    ) -> Iterator[readers.Part]:
        """The parts of a unit, as the settings cut them; see readers.read_parts."""
        return readers.read_parts(
            unit,
            self.sources,
            self.fields,
            unit_bytes=self.config.unit_bytes,
            split_on=self.config.split_on,
            hashed=hashed,
            progress=progress,
        )

    def anywhere(self) -> Recipe:
        """The same with absolute paths: workers on other machines have another current directory."""
        sources = tuple(dataclasses.replace(each, path=_absolute(each.path)) for each in self.sources)
        tokenizer = dataclasses.replace(self.tokenizer, path=_absolute(self.tokenizer.path))
        return dataclasses.replace(self, sources=sources, tokenizer=tokenizer)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Everything that run_unit needs besides the unit. It can be pickled."""

    recipe: Recipe
    root: Location
    """The output."""
    committed: frozenset[tuple[int, int]] = frozenset()
    """(unit, part) of the parts that need not be done again."""
    limit: Limit = NO_LIMIT
    """How many rows may be skipped."""

    def anywhere(self) -> Job:
        """The same with absolute paths; see Recipe.anywhere."""
        return dataclasses.replace(self, recipe=self.recipe.anywhere(), root=locate(_absolute(self.root)))


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
    """What a run is, before it is carried out."""

    sources: list[readers.Source]
    fields: readers.Fields
    units: list[readers.Unit]
    tokenizer: tokenization.TokenizerSpec
    template: tokenization.TemplateSpec | None
    run: dict[str, Any]
    """What the manifest says of it."""
    counted_for: dict[str, Any] | None = None
    """Settings for which the tokens of a mixture were counted, see mixture.mixed; None: it is none."""

    def recipe(self, config: PackConfig, choice: tokenization.Choice, threads: int) -> Recipe:
        """What workers need to make documents of its records.

        Args:
            config: Resolved.
            choice: The engine of tokenization.
            threads: Threads of that engine in one process.
        """
        return Recipe(
            config=config,
            sources=tuple(self.sources),
            fields=self.fields,
            tokenizer=self.tokenizer,
            template=self.template,
            tokenizer_engine=choice.engine.name,
            threads=threads,
        )
