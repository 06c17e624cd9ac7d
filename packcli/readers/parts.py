"""Units -> chunks of rows, cut into parts of unit_bytes.

Chunks are not decoded here (extractors do that), so that a part which is committed already is skipped cheaply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from packcli import storage
from packcli.errors import StorageError
from packcli.readers.arrow_files import read_arrow, read_parquet
from packcli.readers.bad_rows import without_long
from packcli.readers.chunks import Chunk, Digest, RawChunk, cut_chunk
from packcli.readers.files import ReadProgress, first_line
from packcli.readers.mixture import MixedReader, MixedUnit
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source, Span
from packcli.readers.text_files import read_json_file, read_txt
from packcli.readers.units import Unit


class Part:
    """The rows of one shard. Exhaust `chunks` (or call `skip`) before you take the next part."""

    def __init__(self, index: int, reader: _PartReader | MixedReader, hashed: bool) -> None:
        self.index = index
        self.is_last = False
        """Known once the chunks are exhausted."""
        self.num_bytes = 0
        self._digest = Digest() if hashed else None
        self._reader = reader

    @property
    def digest(self) -> str:
        """XXH3 of the rows; complete once the chunks are exhausted."""
        if self._digest is None:
            raise AssertionError("this part was read without a digest")
        return self._digest.hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """The chunks of this part, in order."""
        for chunk in self._reader.take():
            self.num_bytes += chunk.num_bytes
            if self._digest is not None:
                chunk.add_to(self._digest)
            yield chunk
        self.is_last = self._reader.pending is None

    def skip(self, *, hashed: bool = False) -> None:
        """Reads the rows and drops them, so that the next part can be read; `hashed` keeps the digest."""
        if not hashed:
            self._digest = None
        for _ in self.chunks():
            pass


class _PartReader:
    """Cuts a stream of chunks at the first row that starts at or after each multiple of unit_bytes."""

    def __init__(self, chunks: Iterable[Chunk], unit_bytes: int) -> None:
        self._chunks = iter(chunks)
        self._unit_bytes = unit_bytes
        self._offset = 0
        self.pending: Chunk | None = next(self._chunks, None)

    def take(self) -> Iterator[Chunk]:
        limit = (self._offset // self._unit_bytes + 1) * self._unit_bytes
        while self.pending is not None:
            chunk: Chunk = self.pending
            after: Chunk | None = None
            if self._offset + chunk.num_bytes > limit:
                head, after = cut_chunk(chunk, limit - self._offset)
                if head is None:
                    return
                chunk = head
            self._offset += chunk.num_bytes
            self.pending = after if after is not None else next(self._chunks, None)
            yield chunk
            if after is not None or self._offset >= limit:
                return


def read_parts(
    unit: Unit,
    sources: Sequence[Source],
    fields: Fields,
    *,
    unit_bytes: int,
    split_on: str | None = None,
    hashed: bool = True,
    progress: ReadProgress | None = None,
) -> Iterator[Part]:
    """The parts of a unit, at least one.

    Args:
        unit: Which spans to read.
        sources: All sources of the run.
        fields: Name the columns to read from Parquet and Arrow files.
        unit_bytes: A part ends with the row that crosses a multiple of this.
        split_on: Where .txt files are cut into documents.
        hashed: Whether parts have a digest.
        progress: Updated while the chunks are read.

    Raises:
        StorageError: a file is damaged or cannot be read.
    """
    progress = progress or ReadProgress()
    reader: _PartReader | MixedReader
    if isinstance(unit, MixedUnit):
        reader = MixedReader(unit, lambda span: _read_unit(Unit(0, (span,)), sources, fields, split_on, progress))
    else:
        reader = _PartReader(_read_unit(unit, sources, fields, split_on, progress), unit_bytes)
    index = 0
    while index == 0 or reader.pending is not None:
        part = Part(index, reader, hashed)
        yield part
        index += 1


def digest_parts(
    unit: Unit, sources: Sequence[Source], fields: Fields, *, unit_bytes: int, split_on: str | None
) -> list[str]:
    """The digest of every part of a unit, without decoding a row."""
    digests = []
    for part in read_parts(unit, sources, fields, unit_bytes=unit_bytes, split_on=split_on):
        part.skip(hashed=True)
        digests.append(part.digest)
    return digests


def _read_unit(
    unit: Unit, sources: Sequence[Source], fields: Fields, split_on: str | None, progress: ReadProgress
) -> Iterator[RawChunk]:
    for span in unit.spans:
        source = sources[span.source]
        for chunk in _read_span(span, source, fields, split_on, progress):
            yield from without_long(chunk, source)


def _read_span(
    span: Span, source: Source, fields: Fields, split_on: str | None, progress: ReadProgress
) -> Iterator[RawChunk]:
    try:
        if source.format == "parquet":
            yield from read_parquet(span, source, fields, progress)
        elif source.format == "arrow":
            yield from read_arrow(span, source, fields)
            progress.file_bytes += source.num_bytes
        elif source.format == "txt":
            yield from read_txt(span, source, split_on, progress)
        else:
            yield from read_json_file(span, source, progress)
        _refuse_changed(source)
    except (pa.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise StorageError(
            f"{source.name}: the file is damaged or cannot be read: {reason}",
            "nothing was lost of what was committed; mend the file and run the same command again",
        ) from error


def _refuse_changed(source: Source) -> None:
    """Raises OSError when an object was replaced while it was read: its ranges may be from two versions."""
    if source.version and storage.RemotePath(source.path).stat().version != source.version:
        raise OSError("it has changed while it was read")
