r"""Megatron-LM's indexed dataset: SPLIT.bin with the ids of all documents, SPLIT.idx with where they are.

The index (little-endian): b"MMIDIDX\0\0", u64 version 1, u8 code of the dtype, u64 sequences, u64 document indices,
then int32 lengths, int64 byte offsets, int64 document indices 0..D. A document is one sequence.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.dataset import PackedDataset, WholeDocuments
from packcli.exports.base import Export, ExportPart, Sink, quoted, refuse_hidden_ends, refuse_masks
from packcli.packing import offsets

UINT16_IDS = 65_500
"""Megatron-LM stores vocabularies below this many ids as uint16, others as int32."""
DTYPE_CODES = {np.dtype(np.int32): 4, np.dtype(np.uint16): 8}


class Megatron(Export):
    """Documents in the order of the input; Megatron shuffles them and cuts them anew, so it is the tokens that stay."""

    rows_are = "documents"
    ends_by_eos = True

    def write_part(self, packed: PackedDataset, split: str, index: int, sink: Sink, lossy: bool) -> dict[str, Any]:
        """A stretch of the .bin, and the lengths of its documents."""
        documents = packed.documents(packed.splits[split][index])
        refuse_masks(documents.has_mask, lossy)
        return write_flat_part(documents, packed, split, index, sink, lossy, dtype_of(packed.tokenizer.vocab_size))

    def finish(self, packed: PackedDataset, parts: Mapping[str, Sequence[ExportPart]], sink: Sink) -> None:
        """SPLIT.bin, then SPLIT.idx."""
        dtype = dtype_of(packed.tokenizer.vocab_size)
        for split, each in parts.items():
            sink.join(f"{split}.bin", [part.files[0].name for part in each])
            lengths = joined_lengths(each, sink)
            with sink.open(f"{split}.idx") as file:
                file.write(b"MMIDIDX\x00\x00")
                file.write(struct.pack("<QBQQ", 1, DTYPE_CODES[dtype], len(lengths), len(lengths) + 1))
                file.write(lengths.astype("<i4").tobytes())
                file.write(offsets(lengths * dtype.itemsize)[:-1].astype("<i8").tobytes())
                file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())

    def load_lines(self, packed: PackedDataset, output: str) -> str:
        """Options of pretrain_gpt.py."""
        return (
            f"--data-path {output}/train --seq-length {packed.config.max_len} "
            f"--reset-position-ids --reset-attention-mask --eod-mask-loss\n"
            f"megatron.core.datasets.indexed_dataset.IndexedDataset({quoted(output + '/train')})"
        )


def dtype_of(vocab_size: int) -> np.dtype[Any]:
    """How Megatron-LM stores ids of a vocabulary."""
    return np.dtype(np.uint16 if vocab_size < UINT16_IDS else np.int32)


def write_flat_part(
    documents: WholeDocuments,
    packed: PackedDataset,
    split: str,
    index: int,
    sink: Sink,
    lossy: bool,
    dtype: np.dtype[Any],
) -> dict[str, Any]:
    """Writes the ids of documents one after the other, and their lengths; returns num_rows and num_tokens."""
    refuse_hidden_ends(documents.ids, documents.offsets[:-1], documents.lengths, packed.tokenizer.eos_id, False, lossy)
    if len(documents.ids) and int(documents.ids.max()) > np.iinfo(dtype).max:
        raise AssertionError(f"an id over the vocabulary of {packed.tokenizer.vocab_size}")
    with sink.open(f".packcli/parts/{split}-{index:05d}.bin") as file:
        file.write(documents.ids.astype(dtype.newbyteorder("<")).tobytes())
    with sink.open(f".packcli/parts/{split}-{index:05d}.lengths") as file:
        file.write(documents.lengths.astype("<i8").tobytes())
    return {"num_rows": len(documents.lengths), "num_tokens": len(documents.ids)}


def joined_lengths(parts: Sequence[ExportPart], sink: Sink) -> NDArray[np.int64]:
    """Lengths of all documents of a split, int64[D]."""
    lengths = [np.fromfile(sink.root / part.files[1].name, dtype="<i8") for part in parts]
    return np.concatenate(lengths).astype(np.int64) if lengths else np.empty(0, dtype=np.int64)
