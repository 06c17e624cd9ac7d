"""What the first rows of an input show: texts for the guard, and the room that the output needs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

from packcli import readers, tokenization
from packcli.config import PackConfig
from packcli.errors import BadRowError
from packcli.pipeline.documents import make_extractor
from packcli.pipeline.job import RunSpec
from packcli.tokenization import BATCH_DOCUMENTS, Engine, RecordMarker

BYTES_A_TOKEN = {"input_ids": 4, "labels": 4, "position_ids": 4}
"""What a token takes on disk; the other columns are a few bytes a document."""

COMPRESSION_GUESS = 3
"""Bytes of text for a byte of a compressed file; rather too few, since a wrong refusal is worse than a late one."""

SAMPLE_CHARS = 4096
"""Of a text, for the estimate."""

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


def marker_of(spec: RunSpec, config: PackConfig) -> RecordMarker:
    """What turns the records of a run into text with marks."""
    return RecordMarker(config, spec.fields, spec.tokenizer, spec.template)


def text_bytes(sources: Sequence[readers.Source]) -> int:
    """About how much the sources hold when they are unpacked."""
    return sum(source.num_bytes * (1 if source.compression is None else 4) for source in sources)


def sample(
    spec: RunSpec, config: PackConfig, *, most_chars: int = GUARD_MAX_CHARS
) -> tuple[list[str], list[tuple[readers.Row, Callable[[], str]]]]:
    """Texts from the beginning of the input for the guard, long ones cut, about 1/500 of the input.

    Of records with a loss mask they are the pieces between control tokens, and the rows that gave them come as well,
    each with its place.
    """
    if config.format == "tokenized":
        return [], []
    left = min(max(text_bytes(spec.sources) // GUARD_SHARE, GUARD_MIN_CHARS), most_chars)
    extract = make_extractor(spec.fields, spec.sources)
    marker = marker_of(spec, config) if config.masked else None
    texts: list[str] = []
    rows: list[tuple[readers.Row, Callable[[], str]]] = []
    for part in read_first(spec, config):
        for chunk in part.chunks():
            for document, row in zip(*extract(chunk), strict=True):
                if marker is None:
                    new_texts = [document]
                else:
                    place = functools.partial(readers.place_of, spec.sources, chunk.source, int(row))
                    try:
                        new_texts = marker.stretches(document, place)
                    except BadRowError:
                        if config.on_error == "stop":
                            raise
                        continue
                    rows.append((document, place))
                for text in new_texts:
                    texts.append(text[: min(left, GUARD_TEXT_CHARS)])
                    left -= len(texts[-1])
                    if left <= 0:
                        return texts, rows
    return texts, rows


def read_first(spec: RunSpec, config: PackConfig) -> Iterator[readers.Part]:
    """The parts of the first unit."""
    return readers.read_parts(
        spec.units[0],
        spec.sources,
        spec.fields,
        unit_bytes=config.unit_bytes,
        split_on=config.split_on,
        hashed=False,
    )


def bytes_needed(spec: RunSpec, config: PackConfig, engine: tokenization.Engine, left_bytes: int) -> int:
    """About what the output of the rest of the input takes, from a look at its first rows; 0 when nothing is known.

    Args:
        spec: The run.
        config: Its settings.
        engine: Encodes some texts.
        left_bytes: What is left of the input files.
    """
    if config.format == "tokenized":
        return 0  # packs of ids are about as large as rows of them
    extract = make_extractor(spec.fields, spec.sources)
    chunk = next((chunk for part in read_first(spec, config) for chunk in part.chunks()), None)
    if chunk is None:
        return 0
    texts, rows = extract(chunk)
    row_bytes = chunk.num_bytes
    if config.masked:
        row_bytes = row_bytes * min(ROOM_ROWS, len(texts)) // max(len(texts), 1)
        marker = marker_of(spec, config)
        place = functools.partial(readers.place_of, spec.sources, chunk.source)
        first_rows = list(zip(texts[:ROOM_ROWS], rows[:ROOM_ROWS].tolist(), strict=True))
        texts = []
        for document, row in first_rows:
            with contextlib.suppress(*([] if config.on_error == "stop" else [BadRowError])):
                texts.append("".join(marker.stretches(document, functools.partial(place, row))))
    first = spec.sources[chunk.source]
    if first.compression or first.format == "parquet":
        left_bytes *= COMPRESSION_GUESS
    return bytes_for_texts(engine, texts, row_bytes, left_bytes, config)


def bytes_for_texts(engine: Engine, texts: Sequence[str], row_bytes: int, left_bytes: int, config: PackConfig) -> int:
    """Bytes of shards that the rest of the input gives, about, padding not counted.

    Args:
        engine: Encodes some of the texts.
        texts: Of some rows.
        row_bytes: What these rows take in the input.
        left_bytes: What is left of the input.
        config: Its columns.
    """
    cuts = [text[:SAMPLE_CHARS] for text in texts[:BATCH_DOCUMENTS]]
    chars = sum(map(len, cuts))
    if not chars or not row_bytes:
        return 0
    tokens_a_char = len(engine.encode(cuts)[0]) / chars
    chars_a_byte = sum(map(len, texts)) / row_bytes
    return bytes_of_tokens(left_bytes * chars_a_byte * tokens_a_char, config)


def bytes_of_tokens(num_tokens: float, config: PackConfig) -> int:
    """Bytes of shards that hold some tokens, about."""
    return round(num_tokens * sum(BYTES_A_TOKEN.get(column, 0) for column in config.written_columns))
