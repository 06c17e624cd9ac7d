"""Parquet as the Hugging Face Hub lays it out: data/SPLIT-00000-of-00003.parquet, and a card that names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from packcli.config.choices import COLUMNS
from packcli.dataset import PackedDataset, Rows, make_schema
from packcli.exports.base import Export, ExportPart, Sink, quoted

ROW_GROUP_POSITIONS = 1 << 22
"""Positions in a row group, about: 16 MiB a column before compression."""


class Parquet(Export):
    """Every column, also those that the packed directory leaves out; padding is stored."""

    def write_part(self, packed: PackedDataset, split: str, index: int, sink: Sink, lossy: bool) -> dict[str, Any]:
        """data/SPLIT-INDEX-of-COUNT.parquet."""
        name = f"data/{split}-{index:05d}-of-{len(packed.splits[split]):05d}.parquet"
        columns = [column for column in COLUMNS if column != "sources" or "sources" in packed.config.columns]
        described = {
            "max_len": packed.config.max_len,
            "pad_id": packed.tokenizer.pad_id,
            "eos_id": packed.tokenizer.eos_id,
        }
        schema = make_schema(columns, {**described, "isolate": packed.config.isolate, "ragged": False})
        num_tokens = 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal num_tokens
            for rows in packed.rows(packed.splits[split][index]):
                num_tokens += int(rows.num_real.sum())
                yield record_batch(rows, schema)

        num_rows = write_parquet(sink, name, schema, batches(), packed.config.max_len)
        return {"num_rows": num_rows, "num_tokens": num_tokens}

    def finish(self, packed: PackedDataset, parts: Mapping[str, Sequence[ExportPart]], sink: Sink) -> None:
        """README.md with the configs that load_dataset reads."""
        max_len = packed.config.max_len
        files = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in parts)
        card = f"""---
configs:
- config_name: default
  data_files:
{files}tags:
- packed
- tokenized
task_categories:
- text-generation
---

# Packed training data

{packed.stats.num_packs:,} packs of {max_len:,} tokens, made by packcli. Labels are not shifted; they are -100 on
padding and on the first token of each document. Documents of one pack do not see each other as long as no
attention_mask is passed.

```python
from datasets import load_dataset

dataset = load_dataset("PATH").with_format("torch", columns=["input_ids", "labels", "position_ids"])
```
"""
        with sink.open("README.md") as file:
            file.write(card.encode())

    def load_lines(self, packed: PackedDataset, output: str) -> str:
        """For datasets."""
        return f"datasets.load_dataset({quoted(output)})"


def write_parquet(sink: Sink, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch], max_len: int) -> int:
    """Streams record batches into a Parquet file, zstd; returns how many rows there were."""
    num_rows, step = 0, max(ROW_GROUP_POSITIONS // max_len, 1)
    waiting: list[pa.RecordBatch] = []
    with sink.open(name) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            waiting.append(batch)
            num_rows += batch.num_rows
            if sum(each.num_rows for each in waiting) >= step:
                writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=step)
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=step)
    return num_rows


def record_batch(rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
    """Rows as the columns that a schema of ours names."""
    made: dict[str, Any] = {}
    for name in schema.names:
        if name == "seq_lengths":
            made[name] = lists(*rows.seq_lengths)
        elif name == "sources" and rows.sources is not None:
            kind = schema.field(name).type.value_type
            fields = [pa.array(getattr(rows.sources, field.name), field.type) for field in kind]
            made[name] = pa.ListArray.from_arrays(
                pa.array(rows.sources.offsets, pa.int32()), pa.StructArray.from_arrays(fields, fields=list(kind))
            )
        else:
            made[name] = matrix(getattr(rows, name))
    return pa.record_batch(made, schema=schema)


def matrix(values: NDArray[np.integer], kind: pa.DataType | None = None) -> pa.ListArray:
    """[P, L] -> P lists of L."""
    offsets = np.arange(0, values.size + 1, values.shape[1])
    return lists(values.reshape(-1), offsets, kind)


def lists(values: NDArray[np.integer], offsets: NDArray[np.integer], kind: pa.DataType | None = None) -> pa.ListArray:
    """Flat values and where each list begins -> lists, of int32 by default."""
    flat = pa.array(values, kind or pa.int32())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
