"""The inputs, the tokenizer and the template of a run, found again."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from packcli import readers, tokenization
from packcli.config import PackConfig, RunOptions, read_toml
from packcli.dataset import (
    STATE_DIRECTORY,
    Output,
    PackedDataset,
    Problem,
    cut_units,
    find_again,
    members_of,
    path_of,
    remembered_inputs,
)
from packcli.errors import UsageError
from packcli.packing import Origin, TokenBatch
from packcli.pipeline import Recipe, RunSpec, read_documents, text_bytes, with_loss
from packcli.storage import Location, is_remote

ANY_DATE = "1970-01-01"
"""The day for chat templates that never ask for it."""


@dataclass(frozen=True, slots=True)
class OpenInputs:
    """The inputs of an output, found again, and what to read them with."""

    recipe: Recipe
    units: list[readers.Unit]
    choice: tokenization.Choice
    """The engine of tokenization."""

    def engine_loaded(self) -> AbstractContextManager[None]:
        """Inside, the engine is not loaded again; at the end its memory is freed."""
        return tokenization.keep_loaded(self.recipe.tokenizer, self.recipe.threads, self.choice)


def open_inputs(
    root: Location,
    record: PackedDataset,
    *,
    against: Sequence[str],
    tokenizer_engine: str,
    warn: Callable[[str], None],
) -> OpenInputs | Problem:
    """Finds the inputs, the tokenizer and the template of a run again; a Problem when they are not what they were.

    Raises:
        UsageError: nobody knows where the inputs or the settings are.
    """
    config, tokenizer = _settings(root, record)
    problem = _tokenizer_problem(record, tokenizer)
    if problem is None:
        warnings: list[str] = []
        paths = list(against) or _remembered(root, record)
        groups = [[path] for path in against] or [paths[member.inputs] for member in members_of(record.manifest)]
        sources = find_again(record.manifest, paths, groups, warnings)
        for message in warnings:
            warn(message)
        problem = _sources_problem(record, sources)
    if problem is not None:
        return Problem("", problem)
    text: dict[str, Any] = {**record.manifest["text"]}
    then = text.pop("chat_template")
    fields = readers.find_fields(
        sources, config.text_field, config.text_template, format_=config.format, mapped=config.field
    )
    if fields.identity() != text:
        return Problem("", f"the inputs have other fields: {', '.join(fields.names)}")
    template = None
    if then is not None:
        directory = Path(tokenizer.path).parent
        date = then["date"] or ANY_DATE
        template = tokenization.find_template(config.chat_template, directory, tokenizer.name, date)
        if template.identity() != then:
            return Problem("", f"the chat template {template.name} is not that of the run")
    threads = os.cpu_count() or 1
    choice = tokenization.choose_engine(tokenizer, tokenizer_engine, [], num_bytes=text_bytes(sources), threads=threads)
    units = cut_units(record.manifest, sources, record.config.unit_bytes)
    spec = RunSpec(list(sources), fields, units, tokenizer, template, dict(record.manifest))
    # The manifest keeps add_bos under "tokenizer", so that the settings read from it do not have it.
    recipe = spec.recipe(dataclasses.replace(record.config, add_bos=config.add_bos), choice, threads)
    return OpenInputs(recipe, units, choice)


def _settings(root: Location, record: PackedDataset) -> tuple[PackConfig, tokenization.TokenizerSpec]:
    """The settings with their paths, as this machine keeps them, and the tokenizer of today."""
    options = set(RunOptions.__dataclass_fields__)
    try:
        kept = read_toml(cast(Path, root / STATE_DIRECTORY / "packcli.toml"))  # read_text is all it needs
        config = PackConfig(**{name: value for name, value in kept.items() if name not in options})
    except UsageError as error:
        raise UsageError(f"--deep needs the settings of the run: {error.message}", "leave out --deep") from None
    path = Output(root).state.last_run().get("tokenizer_path")
    if isinstance(path, str) and os.path.isfile(path) and config.tokenizer != record.tokenizer.name:
        place = os.path.dirname(path) if os.path.basename(path) == "tokenizer.json" else path
        config = dataclasses.replace(config, tokenizer=place)
    return config, tokenization.find_tokenizer(config, allow_network=False)


def _tokenizer_problem(record: PackedDataset, tokenizer: tokenization.TokenizerSpec) -> str | None:
    now = tokenizer.identity()
    for name, then in record.manifest["tokenizer"].items():
        if now.get(name) != then:
            change = f"{name} was {then!r}, now it is {now.get(name)!r}"
            return f"the tokenizer {tokenizer.path} is not that of the run: {change}"
    return None


def _remembered(root: Location, record: PackedDataset) -> list[str]:
    """Where the inputs were when they were packed."""
    known = [path_of(each) for each in remembered_inputs(root, record.manifest)]
    paths = [path for path in known if path is not None]
    if len(paths) < len(known):
        raise UsageError(f"{root}: nobody knows where its inputs are", "name them with --against")
    missing = [path for path in paths if not is_remote(path) and not os.path.isfile(path)]
    if missing:
        raise UsageError(f"{missing[0]}: the input is not there any more", "say with --against where the inputs are")
    return paths


def _sources_problem(record: PackedDataset, sources: Sequence[readers.Source]) -> str | None:
    then = record.manifest["inputs"]
    if len(then) != len(sources):
        return f"the inputs are {len(sources)} files, and were {len(then)}"
    for index, (was, source) in enumerate(zip(then, sources, strict=True)):
        if was["num_bytes"] != source.num_bytes:
            return f"input {index} ({source.name}) has {source.num_bytes:,} bytes, had {was['num_bytes']:,}"
    return None


@dataclass(frozen=True, slots=True)
class TokenizedPart:
    """The documents of a part, tokenized but not packed."""

    index: int
    digest: str
    tokens: TokenBatch
    origin: Origin
    empty: list[tuple[int, NDArray[np.int64]]]
    """Source and rows of documents without text, which `tokens` and `origin` leave out."""
    of_split: Callable[[str], NDArray[np.int64]]
    """Indices of the documents of a split."""
    has_loss: NDArray[np.bool_]
    """bool[D]: documents with a label; the others are in no pack."""
    rejected: list[readers.Rejected]
    """Rows that cannot be used."""


def tokenize_unit(
    recipe: Recipe, unit: readers.Unit, left_out: Container[tuple[int, int]] = ()
) -> Iterator[TokenizedPart]:
    """What run_unit packs, part by part, without packing it. (unit, part) in `left_out` are passed over."""
    for part in recipe.parts(unit):
        if (unit.index, part.index) in left_out:
            part.skip()
            continue
        rejected: list[readers.Rejected] = []
        documents = read_documents(recipe, part, bad_rows=readers.BadRows(recipe.sources, rejected.append))
        tokens = documents.tokens.finish()
        of_split = functools.partial(documents.of_split, num_documents=len(tokens))
        has_loss = np.zeros(len(tokens), dtype=np.bool_)
        has_loss[with_loss(tokens, np.arange(len(tokens)), recipe.config)[0]] = True
        yield TokenizedPart(
            part.index, part.digest, tokens, documents.origin(), documents.empty, of_split, has_loss, rejected
        )


def tokenize_rows(recipe: Recipe, rows: readers.PickedRows) -> tuple[TokenBatch, Origin]:
    """Some documents and where they come from, as `run_unit` would tokenize them; empty ones are not among them."""
    documents = read_documents(recipe, rows, bad_rows=readers.BadRows(recipe.sources))
    return documents.tokens.finish(), documents.origin()
