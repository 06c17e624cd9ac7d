"""One flat file of ids, as nanoGPT, OLMo-core and datatrove/nanotron map it.

train.bin         uint16, or uint32 for vocabularies over 65,536: all documents, in the order of the input
train.bin.index   uint64: where each document ends, in tokens (datatrove's index)
train.bin.mask    bool: which tokens carry loss (OLMo-core's label_mask_paths); only where some do not
val.bin, ...      the validation split
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from packcli.config.choices import IGNORE
from packcli.dataset import PackedDataset
from packcli.exports.base import Export, ExportPart, Sink, quoted
from packcli.exports.megatron import joined_lengths, write_flat_part

NAMES = {"train": "train.bin", "validation": "val.bin"}


class Flat(Export):
    """Documents in the order of the input, each with its EOS."""

    rows_are = "documents"
    ends_by_eos = True

    def write_part(self, packed: PackedDataset, split: str, index: int, sink: Sink, lossy: bool) -> dict[str, Any]:
        """Stretches of the files."""
        documents = packed.documents(packed.splits[split][index])
        counts = write_flat_part(documents, packed, split, index, sink, lossy, _dtype(packed))
        kept = documents.labels != IGNORE
        kept[documents.offsets[:-1]] = True  # the label of a first token belongs to the packing, not to the document
        with sink.open(f".packcli/parts/{split}-{index:05d}.mask") as file:
            file.write(kept.tobytes())
        return counts | {"has_mask": bool(not kept.all())}

    def finish(self, packed: PackedDataset, parts: Mapping[str, Sequence[ExportPart]], sink: Sink) -> None:
        """The files."""
        has_mask = any(part.counts["has_mask"] for each in parts.values() for part in each)
        for split, each in parts.items():
            name = NAMES[split]
            sink.join(name, [part.files[0].name for part in each])
            with sink.open(f"{name}.index") as file:
                file.write(np.cumsum(joined_lengths(each, sink)).astype("<u8").tobytes())
            if has_mask:
                sink.join(f"{name}.mask", [part.files[2].name for part in each])

    def load_lines(self, packed: PackedDataset, output: str) -> str:
        """For nanoGPT, datatrove, and OLMo-core."""
        dtype = _dtype(packed)
        path = quoted(f"{output}/train.bin")
        return (
            f"numpy.memmap({path}, dtype=numpy.{dtype.name}, mode='r')\n"
            f"DatatroveFileDataset({path}, seq_len={packed.config.max_len}, token_size={dtype.itemsize}, "
            "return_positions=True)\n"
            f"NumpyFSLDatasetConfig(paths=[{path}], sequence_length={packed.config.max_len})"
        )


def _dtype(packed: PackedDataset) -> np.dtype[Any]:
    return np.dtype(np.uint16 if packed.tokenizer.vocab_size <= 1 << 16 else np.uint32)
