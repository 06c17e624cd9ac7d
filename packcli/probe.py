"""What the first rows of an input tell: texts for the guard, and the room that the output needs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packcli import chat, readers, space, tokenizing
from packcli.config import PackConfig
from packcli.documents import Marker
from packcli.errors import BadRowError
from packcli.work import make_extractor

ROOM_ROWS = 64
"""Records that are rendered for an estimate of the output's size."""

GUARD_SHARE = 500
"""The first 1/500 of the input is encoded by both engines at start, but no less and no more than these."""
GUARD_MIN_CHARS = 1 << 16
GUARD_MAX_CHARS = 1 << 20
GUARD_ROWS = 64
"""Rows with control tokens that are compared as a whole at start; a share of the others is during the run."""
GUARD_TEXT_CHARS = 1 << 12
"""Of one text, so that the sample holds many."""


@dataclass(frozen=True, slots=True)
class Described:
    """A run before it is carried out."""

    sources: list[readers.Source]
    fields: readers.Fields
    units: list[readers.Unit]
    tokenizer: tokenizing.TokenizerSpec
    template: chat.TemplateSpec | None
    run: dict[str, Any]
    counted: dict[str, Any] | None = None
    """What a mixture was counted for, see mixing.mixed."""


def marker_of(described: Described, config: PackConfig) -> Marker:
    """What turns the records of a run into text with marks."""
    return Marker(config, described.fields, described.tokenizer, described.template)


def text_bytes(sources: Sequence[readers.Source]) -> int:
    """About how much the sources hold when they are unpacked."""
    return sum(source.num_bytes * (1 if source.compression is None else 4) for source in sources)


def sample(
    described: Described, config: PackConfig, *, most_chars: int = GUARD_MAX_CHARS
) -> tuple[list[str], list[tuple[readers.Row, Callable[[], str]]]]:
    """Texts from the beginning of the input for the guard, long ones cut, about 1/500 of the input.

    Of records with a loss mask they are the pieces between control tokens, and the rows that gave them come as well,
    each with its place.
    """
    if config.format == "tokenized":
        return [], []
    left = min(max(text_bytes(described.sources) // GUARD_SHARE, GUARD_MIN_CHARS), most_chars)
    extract = make_extractor(described.fields, described.sources)
    marker = marker_of(described, config) if config.masked else None
    texts: list[str] = []
    rows: list[tuple[readers.Row, Callable[[], str]]] = []
    for part in read_first(described, config):
        for chunk in part.chunks():
            for document, row in zip(*extract(chunk), strict=True):
                if marker is None:
                    found = [document]
                else:
                    place = functools.partial(readers.place_of, described.sources, chunk.source, int(row))
                    try:
                        found = marker.pieces(document, place)
                    except BadRowError:
                        if config.on_error == "stop":
                            raise
                        continue
                    rows.append((document, place))
                for text in found:
                    texts.append(text[: min(left, GUARD_TEXT_CHARS)])
                    left -= len(texts[-1])
                    if left <= 0:
                        return texts, rows
    return texts, rows


def read_first(described: Described, config: PackConfig) -> Iterator[readers.Part]:
    """The parts of the first unit."""
    return readers.read_parts(
        described.units[0],
        described.sources,
        described.fields,
        unit_bytes=config.unit_bytes,
        split_on=config.split_on,
        hashed=False,
    )


def bytes_needed(described: Described, config: PackConfig, engine: tokenizing.Engine, left_bytes: int) -> int:
    """About what the output of the rest of the input takes, from a look at its first rows; 0 when nothing is known.

    Args:
        described: The run.
        config: Its settings.
        engine: Encodes some texts.
        left_bytes: What is left of the input files.
    """
    if config.format == "tokenized":
        return 0  # packs of ids are about as large as rows of them
    extract = make_extractor(described.fields, described.sources)
    chunk = next((chunk for part in read_first(described, config) for chunk in part.chunks()), None)
    if chunk is None:
        return 0
    texts, rows = extract(chunk)
    row_bytes = chunk.num_bytes
    if config.masked:
        row_bytes = row_bytes * min(ROOM_ROWS, len(texts)) // max(len(texts), 1)
        marker = marker_of(described, config)
        place = functools.partial(readers.place_of, described.sources, chunk.source)
        first_rows = list(zip(texts[:ROOM_ROWS], rows[:ROOM_ROWS].tolist(), strict=True))
        texts = []
        for document, row in first_rows:
            with contextlib.suppress(*([] if config.on_error == "stop" else [BadRowError])):
                texts.append("".join(marker.pieces(document, functools.partial(place, row))))
    first = described.sources[chunk.source]
    if first.compression or first.format == "parquet":
        left_bytes *= space.COMPRESSION_GUESS
    return space.bytes_needed(engine, texts, row_bytes, left_bytes, config)
