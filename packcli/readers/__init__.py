"""Paths -> sources -> units -> documents. The door to pyarrow's readers and msgspec.

    inputs (files, directories, globs, -)   sources.find_sources   -> Source, one a file
    Source                                  units.cut_units        -> Unit, spans of about unit_bytes
    Unit                                    records.read_parts     -> chunks of rows, cut into parts
    Chunk                                   fields.TextExtractor   -> texts
                                            rows.RowExtractor      -> rows of parts, for every format but text

A unit that is plain JSONL or Parquet is one part. A compressed or otherwise sequential file is one unit
that gives several parts, each about unit_bytes of text, because nobody knows its size beforehand.
"""

from packcli.readers.chunks import Chunk, RawChunk, ThinnedChunk, raw_of
from packcli.readers.fields import TextExtractor, find_fields
from packcli.readers.mixed import MixedUnit, Take, cut_mixed, hash_seed
from packcli.readers.picking import PickedRows
from packcli.readers.records import Meter, Part, digest_parts, read_parts
from packcli.readers.rejecting import HINT, BadRows, Rejected, place_of
from packcli.readers.rows import Row, RowExtractor
from packcli.readers.shapes import Fields
from packcli.readers.sources import Source, default_output_name, find_sources, spool_stdin
from packcli.readers.units import Span, Unit, cut_source, cut_units, is_read_to_be_cut, most_rows

__all__ = [
    "HINT",
    "BadRows",
    "Chunk",
    "Fields",
    "Meter",
    "MixedUnit",
    "Part",
    "PickedRows",
    "RawChunk",
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
