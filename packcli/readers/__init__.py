"""Inputs -> sources -> units -> records, each with its place in a file.

    inputs (files, directories, globs, -)   sources.find_sources       -> Source, one a file
    Source                                  units.cut_units            -> Unit, spans of about unit_bytes
    options, the first record               fields.find_fields         -> Fields: which column is what
    Unit                                    parts.read_parts           -> chunks of rows, cut into parts
    Chunk                                   extractors.TextExtractor   -> texts
                                            extractors.RowExtractor    -> rows of parts, for every format but text
    rows that cannot be used                bad_rows.BadRows           -> the end of the run; or skipped and noted

A unit that is plain JSONL or Parquet is one part. A compressed or otherwise sequential file is one unit
that gives several parts, each about unit_bytes of text, because the size of its text is not known before it is read.
How inputs are cut depends on them and on unit_bytes alone, so that every run cuts them in the same way.
"""

from __future__ import annotations

from packcli.readers.bad_rows import HINT, BadRows, Rejected, place_of
from packcli.readers.chunks import Chunk, RawChunk, ThinnedChunk, raw_of
from packcli.readers.extractors import Row, RowExtractor, TextExtractor
from packcli.readers.fields import find_fields
from packcli.readers.files import ReadProgress
from packcli.readers.mixture import MixedUnit, Take, cut_mixed, hash_seed
from packcli.readers.parts import Part, digest_parts, read_parts
from packcli.readers.picked_rows import PickedRows
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source, Span, default_output_name, find_sources, spool_stdin
from packcli.readers.units import Unit, cut_source, cut_units, is_read_to_be_cut, most_rows

__all__ = [
    "HINT",
    "BadRows",
    "Chunk",
    "Fields",
    "MixedUnit",
    "Part",
    "PickedRows",
    "RawChunk",
    "ReadProgress",
    "Rejected",
    "Row",
    "RowExtractor",
    "Source",
    "Span",
    "Take",
    "TextExtractor",
    "ThinnedChunk",
    "Unit",
    "cut_mixed",
    "cut_source",
    "cut_units",
    "default_output_name",
    "digest_parts",
    "find_fields",
    "find_sources",
    "hash_seed",
    "is_read_to_be_cut",
    "most_rows",
    "place_of",
    "raw_of",
    "read_parts",
    "spool_stdin",
]
