"""Units of a mixture: every unit, and every part of it, holds all components in proportion.

    component   takes of unit 1 of 3                               part 0          part 1
    web         second third of web, thinned to 1/4                first half      second half
    code        second third of code, last third, thinned to 1/2   first half      second half

A component is cut into slices, and consecutive slices make as many stretches as there are units. Where a component is
read several times (epochs), a unit takes another stretch for each time, so that copies of a document lie in other
units, or in one unit as far apart as possible. A part ends for every component at the same share of what the unit takes
of it, by the bytes of text that were counted before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packcli.readers.chunks import Chunk, RawChunk, ThinnedChunk
from packcli.readers.files import open_parquet
from packcli.readers.sources import Source, Span
from packcli.readers.units import Unit, cut_source
from packcli.seeds import ALL, derive

SLICES = 16
"""Into how many slices a component is cut for each unit, where its files can be cut anywhere."""

TOLERANCE = 0.1
"""By how much the size of a stretch may differ from the mean; where one differs more, there are fewer units."""

MIN_SLICE_BYTES = 1024

HASH_STREAM = 11
"""Keeps the hashes of rows independent of other uses of the seed."""


@dataclass(frozen=True, slots=True)
class Take:
    """A span of a component, and which of its rows a unit takes."""

    span: Span
    threshold: int
    """The rows whose hash is below it; ALL takes every row."""
    text_bytes: int
    """About how much text the span holds, after decompression."""
    seed: int
    """Seed of the hash of its rows."""

    @property
    def weight(self) -> int:
        """How much text it gives, in bytes times ALL."""
        return self.text_bytes * self.threshold


@dataclass(frozen=True, slots=True)
class MixedUnit(Unit):
    """A unit whose components are read side by side."""

    components: tuple[tuple[Take, ...], ...]
    num_parts: int


@dataclass(frozen=True, slots=True)
class _Slice:
    span: Span
    text_bytes: int


def hash_seed(seed: int, source: int) -> int:
    """Seed of the hash of the rows of a source."""
    return derive(seed, HASH_STREAM, source)


def cut_mixed(sources: Sequence[Source], mix: Mapping[str, Any], unit_bytes: int, seed: int) -> list[MixedUnit]:
    """Cuts a mixture into units that take about unit_bytes of text each, or more in several parts.

    Args:
        sources: The inputs.
        mix: From the manifest: components with epochs and threshold, and the text_bytes of every source.
        unit_bytes: About how much text a part takes.
        seed: Seed of the run.
    """
    text_bytes: Sequence[int] = mix["text_bytes"]
    passes: list[list[int]] = []
    sizes: list[int] = []
    for each in mix["components"]:
        passes.append([ALL] * each["epochs"] + [each["threshold"]] * (each["threshold"] > 0))
        sizes.append(sum(text_bytes[each["first_source"] : each["first_source"] + each["num_sources"]]))
    total = sum(size * threshold for size, taken in zip(sizes, passes, strict=True) for threshold in taken)
    wanted = max(1, -(-total // (unit_bytes * ALL)))
    slices = [
        _slices(sources, text_bytes, each, max(size // (SLICES * wanted), MIN_SLICE_BYTES)) if taken else []
        for each, size, taken in zip(mix["components"], sizes, passes, strict=True)
    ]
    num_units = wanted
    while True:
        stretches = [_stretches(each, num_units) for each in slices]
        if num_units == 1 or all(_is_even(each) for each in stretches):
            break
        num_units -= max(1, num_units // 8)
    units = []
    for index in range(num_units):
        components = []
        for of_component, taken in zip(stretches, passes, strict=True):
            takes: list[Take] = []
            for number, threshold in enumerate(taken):
                stretch = of_component[(index + number * num_units // len(taken)) % num_units]
                takes += (
                    Take(each.span, threshold, each.text_bytes, hash_seed(seed, each.span.source)) for each in stretch
                )
            components.append(tuple(takes))
        weight = sum(take.weight for takes in components for take in takes)
        spans = tuple(take.span for takes in components for take in takes)
        units.append(MixedUnit(index, spans, tuple(components), max(1, -(-weight // (unit_bytes * ALL)))))
    return units


def _slices(
    sources: Sequence[Source], text_bytes: Sequence[int], component: Mapping[str, Any], slice_bytes: int
) -> list[_Slice]:
    """A component as slices of about slice_bytes, in order; a file that cannot be cut is one slice."""
    slices: list[_Slice] = []
    for index in range(component["first_source"], component["first_source"] + component["num_sources"]):
        source = sources[index]
        if source.num_bytes == 0:
            continue
        spans = cut_source(index, source, slice_bytes) if source.num_bytes > slice_bytes else [Span(index)]
        if len(spans) == 1:
            sizes = [text_bytes[index]]
        elif source.format == "parquet":
            num_rows = open_parquet(source).metadata.num_rows
            firsts = [span.first_row for span in spans] + [num_rows]
            sizes = [text_bytes[index] * (after - first) // num_rows for first, after in itertools.pairwise(firsts)]
        else:
            sizes = [(span.stop if span.stop is not None else source.num_bytes) - span.start for span in spans]
        slices += map(_Slice, spans, sizes)
    return slices


def _stretches(slices: Sequence[_Slice], count: int) -> list[list[_Slice]]:
    """The slices as `count` stretches of about the same size; a slice belongs to the stretch that holds its middle."""
    total = sum(each.text_bytes for each in slices)
    stretches: list[list[_Slice]] = [[] for _ in range(count)]
    begin = 0
    for each in slices:
        middle = 2 * begin + each.text_bytes
        stretch = stretches[min(middle * count // max(2 * total, 1), count - 1)]
        begin += each.text_bytes
        last = stretch[-1] if stretch else None
        if last is not None and last.span.source == each.span.source and last.span.stop == each.span.start:
            whole = Span(last.span.source, last.span.start, each.span.stop, last.span.first_row)
            stretch[-1] = _Slice(whole, last.text_bytes + each.text_bytes)
        else:
            stretch.append(each)
    return stretches


def _is_even(stretches: Sequence[Sequence[_Slice]]) -> bool:
    """Whether all stretches of a component have about the same size; true as well where nothing of it is taken."""
    sizes = [sum(each.text_bytes for each in stretch) for stretch in stretches]
    share = sum(sizes) / len(sizes)
    return not share or all(abs(size - share) <= TOLERANCE * share for size in sizes)


class MixedReader:
    """Reads the components of a unit side by side, part by part."""

    def __init__(self, unit: MixedUnit, read: Callable[[Span], Iterator[RawChunk]]) -> None:
        self._components = [_Component(takes, read) for takes in unit.components]
        self._num_parts = unit.num_parts
        self._part = 0
        self.pending: object = self
        """None once no part is left; before that it only has to be something else."""

    def take(self) -> Iterator[Chunk]:
        """The chunks of the next part."""
        self._part += 1
        is_last = self._part == self._num_parts
        for component in self._components:
            yield from component.until(None if is_last else (self._part, self._num_parts))
        if is_last:
            self.pending = None


class _Component:
    """The chunks of what a unit takes of one component, in order."""

    def __init__(self, takes: Sequence[Take], read: Callable[[Span], Iterator[RawChunk]]) -> None:
        self._total = sum(take.weight for take in takes)
        self._chunks = _with_places(takes, read)
        self._pending = next(self._chunks, None)

    def until(self, share: tuple[int, int] | None) -> Iterator[Chunk]:
        """The chunks up to share[0]/share[1] of all that is taken; None: all that are left."""
        while self._pending is not None:
            take, before, offset, chunk = self._pending
            head: RawChunk | None = chunk
            after: RawChunk | None = None
            if share is not None:
                # Where the part ends, in bytes of this span: of a thinned span only a share of each byte counts.
                end = (self._total * share[0] // share[1] - before) // take.threshold
                if offset + chunk.num_bytes > end:
                    head, after = chunk.split_at(max(end - offset, 0))
            if head is None:
                return
            size = head.num_bytes
            self._pending = (take, before, offset + size, after) if after is not None else next(self._chunks, None)
            yield head if take.threshold == ALL else ThinnedChunk(head, take.threshold, take.seed)
            if after is not None:
                return


def _with_places(
    takes: Sequence[Take], read: Callable[[Span], Iterator[RawChunk]]
) -> Iterator[tuple[Take, int, int, RawChunk]]:
    """Each chunk as (its take, weight of the takes before, bytes of the take before the chunk, chunk)."""
    before = 0
    for take in takes:
        offset = 0
        for chunk in read(take.span):
            yield take, before, offset, chunk
            offset += chunk.num_bytes
        before += take.weight
