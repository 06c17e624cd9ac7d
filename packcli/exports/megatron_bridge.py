"""Megatron-Bridge's packed SFT data: *.idx.parquet with input_ids, loss_mask and seq_start_id, and metadata.json.

Its loader drops the last token of every document as an input and the first as a target, so a mask value belongs to
the token that predicts: loss_mask[i] says whether token i+1 of the same document is a target.

    documents a0 a1 a2 | b0 b1, all targets:    loss_mask 1 1 0 1 0    seq_start_id 0 3    no padding
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from packcli.config.choices import IGNORE
from packcli.dataset import PackedDataset, Rows
from packcli.exports.base import Export, ExportPart, Sink, quoted
from packcli.exports.parquet import lists, write_parquet
from packcli.packing import offsets

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("loss_mask", pa.list_(pa.int8())),
        ("seq_start_id", pa.list_(pa.int32())),
    ]
)


class MegatronBridge(Export):
    """Packs, without padding; boundaries and masks are kept."""

    def write_part(self, packed: PackedDataset, split: str, index: int, sink: Sink, lossy: bool) -> dict[str, Any]:
        """SPLIT/data-INDEX.idx.parquet."""
        counts = {"num_tokens": 0, "num_sequences": 0, "max_seqlen": 0, "max_samples": 0}
        shortest = packed.config.max_len

        def batches() -> Any:
            nonlocal shortest
            for rows in packed.rows(packed.splits[split][index]):
                inputs = np.maximum(rows.attended.length - 1, 0)  # the last token of a document is a target only
                per_row = rows.num_real - np.diff(rows.attended.offsets)
                counts["num_tokens"] += int(rows.num_real.sum())
                counts["num_sequences"] += len(inputs)
                counts["max_seqlen"] = max(counts["max_seqlen"], int(inputs.max(initial=0)))
                counts["max_samples"] = max(counts["max_samples"], int(np.diff(rows.attended.offsets).max(initial=0)))
                shortest = min(shortest, int(per_row.min(initial=shortest)))
                yield _batch(rows)

        name = f"{split}/data-{index:05d}.idx.parquet"
        num_rows = write_parquet(sink, name, SCHEMA, batches(), packed.config.max_len)
        return {"num_rows": num_rows, **counts, "min_packed": shortest}

    def finish(self, packed: PackedDataset, parts: Mapping[str, Sequence[ExportPart]], sink: Sink) -> None:
        """metadata.json: what Megatron-Bridge's own packing records, a split an entry; lengths count inputs."""
        entries = []
        for each in parts.values():
            counts = [part.counts for part in each]
            num_rows = sum(count["num_rows"] for count in counts)
            if not num_rows:
                continue
            num_sequences = sum(count["num_sequences"] for count in counts)
            num_inputs = sum(count["num_tokens"] for count in counts) - num_sequences
            entries.append(
                {
                    "dataset_max_seqlen": max(count["max_seqlen"] for count in counts),
                    "max_samples_per_bin": max(count["max_samples"] for count in counts),
                    "packing_factor": round(num_sequences / num_rows, 2),
                    "packing_efficiency": round(num_inputs / num_rows / packed.config.max_len * 100, 2),
                    "pack_size": packed.config.max_len,
                    "min_packed_seqlen": min(count["min_packed"] for count in counts),
                }
            )
        sink.json("metadata.json", entries)

    def load_lines(self, packed: PackedDataset, output: str) -> str:
        """The fields of its packed sequence settings."""
        validation = f", packed_val_data_path={quoted(output + '/validation')}" if "validation" in packed.splits else ""
        return (
            f"PackedSequenceSpecs(packed_sequence_size={packed.config.max_len}, "
            f"packed_train_data_path={quoted(output + '/train')}{validation}, "
            f"packed_metadata_path={quoted(output + '/metadata.json')})  "
            '# dataset_kwargs={"answer_only_loss": True} makes it use the mask'
        )


def _batch(rows: Rows) -> pa.RecordBatch:
    real = rows.is_real
    runs = rows.attended
    starts = runs.begin % rows.max_len
    of_rows = offsets(rows.num_real)
    return pa.record_batch(
        [
            lists(rows.input_ids[real], of_rows),
            lists((rows.targets[real] != IGNORE).astype(np.int8), of_rows, pa.int8()),
            lists(starts, runs.offsets),
        ],
        schema=SCHEMA,
    )
