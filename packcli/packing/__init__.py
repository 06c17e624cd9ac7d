"""Lengths -> plan -> rows. Pure NumPy: no file, no tokenizer; usable in a notebook.

lengths          overlong.split_documents   -> segments, none longer than a row
segments         plan.make_plan             -> Plan: which segments share a pack, by one of `strategies`
plan, ids        assemble.Assembler         -> PackBatch: rows with labels, positions, boundaries, sources
lists, tensors   in_memory.pack_sequences   -> rows, in memory
a stream         stream.stream_packs        -> rows, window by window

tokens    ids, lengths and loss masks while they grow;  columns   what a row is made of;  arrays   lists in an array
"""

from __future__ import annotations

from packcli.packing.arrays import offsets, ranges
from packcli.packing.assemble import Assembler
from packcli.packing.columns import Lists, Origin, PackBatch, RowLayout, Sources, rows_per_batch
from packcli.packing.overlong import OverlongDocumentError, Segments, kept_lengths, split_documents
from packcli.packing.plan import Plan, balance_plan, make_plan
from packcli.packing.tokens import LengthBuffer, LossRuns, TokenBatch, TokenBuffer

__all__ = [
    "Assembler",
    "LengthBuffer",
    "Lists",
    "LossRuns",
    "Origin",
    "OverlongDocumentError",
    "PackBatch",
    "Plan",
    "RowLayout",
    "Segments",
    "Sources",
    "TokenBatch",
    "TokenBuffer",
    "balance_plan",
    "kept_lengths",
    "make_plan",
    "offsets",
    "ranges",
    "rows_per_batch",
    "split_documents",
]
