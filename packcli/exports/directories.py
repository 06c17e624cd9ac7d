"""Directories for datasets.load_from_disk with the columns of other stacks: NeMo Automodel, LLaMA-Factory, axolotl."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from packcli.dataset import PackedDataset, Rows, ShardEntry
from packcli.exports.base import Export, ExportPart, Sink, quoted
from packcli.exports.parquet import lists, matrix

ROWS = 1000
"""Documents of a record batch."""


class Directory(Export):
    """A save_to_disk directory; with a validation split, a folder a split."""

    columns: tuple[str, ...]
    """Names of columns, all list<int32>."""

    @property
    def schema(self) -> pa.Schema:
        """The schema of the shards."""
        return pa.schema([(name, pa.list_(pa.int32())) for name in self.columns])

    @abstractmethod
    def batches(self, packed: PackedDataset, shard: ShardEntry, counts: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """The record batches of a shard; counts its tokens."""

    def write_part(self, packed: PackedDataset, split: str, index: int, sink: Sink, lossy: bool) -> dict[str, Any]:
        """data-INDEX.arrow, an uncompressed stream."""
        counts: dict[str, Any] = {"num_rows": 0, "num_tokens": 0}
        with (
            sink.open(f"{_folder(packed, split)}data-{index:05d}.arrow") as file,
            pa.ipc.new_stream(file, self.schema) as writer,
        ):
            for batch in self.batches(packed, packed.splits[split][index], counts):
                writer.write_batch(batch)
                counts["num_rows"] += batch.num_rows
        return counts

    def finish(self, packed: PackedDataset, parts: Mapping[str, Sequence[ExportPart]], sink: Sink) -> None:
        """dataset_info.json, state.json last; with two splits dataset_dict.json."""
        if len(parts) > 1:
            sink.json("dataset_dict.json", {"splits": list(parts)})
        feature = {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "List"}
        info = {"citation": "", "description": "", "features": dict.fromkeys(self.columns, feature), "homepage": ""}
        for split, each in parts.items():
            folder = _folder(packed, split)
            names = [file.name.removeprefix(folder) for part in each for file in part.files]
            digest = [file.sha256 for part in each for file in part.files]
            sink.json(f"{folder}dataset_info.json", {**info, "license": ""})
            sink.json(
                f"{folder}state.json",
                {
                    "_data_files": [{"filename": name} for name in names],
                    "_fingerprint": (digest[0] if digest else "0" * 16)[:16],
                    "_format_columns": None,
                    "_format_kwargs": {},
                    "_format_type": None,
                    "_output_all_columns": False,
                    "_split": split,
                },
            )


def _folder(packed: PackedDataset, split: str) -> str:
    return f"{split}/" if len(packed.splits) > 1 else ""


class PackDirectory(Directory):
    """A directory whose rows are packs."""

    def batches(self, packed: PackedDataset, shard: ShardEntry, counts: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """The rows of a shard."""
        for rows in packed.rows(shard):
            counts["num_tokens"] += int(rows.num_real.sum())
            yield pa.record_batch(self.arrays(rows), schema=self.schema)

    @abstractmethod
    def arrays(self, rows: Rows) -> list[pa.Array]:
        """The columns."""


class Automodel(PackDirectory):
    """NeMo Automodel: labels shifted, seq_lens of real tokens, seq_lens_padded with padding in the last one.

    documents of 3 and 2 tokens in 8: seq_lens 3 2, seq_lens_padded 3 5.
    """

    columns = ("input_ids", "labels", "position_ids", "seq_lens", "seq_lens_padded")

    def arrays(self, rows: Rows) -> list[pa.Array]:
        """The columns."""
        runs = rows.attended
        padded = runs.length.copy()
        padded[runs.offsets[1:] - 1] += rows.max_len - rows.num_real
        wide = [matrix(each) for each in (rows.input_ids, rows.targets, rows.position_ids)]
        return [*wide, lists(runs.length, runs.offsets), lists(padded, runs.offsets)]

    def load_lines(self, packed: PackedDataset, output: str) -> str:
        """For a dataset target of a recipe, with packed_sequence_thd_collater."""
        return f"datasets.load_from_disk({quoted(output)})  # prepacked: true; collate_fn: packed_sequence_thd_collater"


class LlamaFactory(PackDirectory):
    """LLaMA-Factory: attention_mask holds 1, 2, ... for the documents of a row, and 0 on padding."""

    columns = ("input_ids", "attention_mask", "position_ids", "labels")

    def arrays(self, rows: Rows) -> list[pa.Array]:
        """The columns."""
        return [matrix(each) for each in (rows.input_ids, rows.segment_ids, rows.position_ids, rows.labels)]

    def load_lines(self, packed: PackedDataset, output: str) -> str:
        """Settings of its YAML."""
        return f"tokenized_path: {output}\npacking: true\nneat_packing: true\ncutoff_len: {packed.config.max_len}"


class Unpacked(Directory):
    """Tokenized documents for stacks that pack on their own: axolotl, TRL, ms-swift."""

    rows_are = "documents"
    columns = ("input_ids", "attention_mask", "labels")

    def batches(self, packed: PackedDataset, shard: ShardEntry, counts: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """The documents of a shard, whole."""
        documents = packed.documents(shard)
        counts["num_tokens"] += len(documents.ids)
        ones = np.ones(len(documents.ids), dtype=np.int32)
        for first in range(0, len(documents.offsets) - 1, ROWS):
            offsets = documents.offsets[first : first + ROWS + 1]
            part = slice(int(offsets[0]), int(offsets[-1]))
            columns = (documents.ids[part], ones[part], documents.labels[part])
            yield pa.record_batch([lists(each, offsets - offsets[0]) for each in columns], schema=self.schema)

    def load_lines(self, packed: PackedDataset, output: str) -> str:
        """Settings of axolotl's YAML, and TRL's line."""
        max_len = packed.config.max_len
        return (
            f"datasets: [{{path: {output}, type: }}]  # axolotl: sample_packing: true, sequence_len: {max_len}\n"
            f"SFTTrainer(model, SFTConfig(packing=True, max_length={max_len}), "
            f"train_dataset=datasets.load_from_disk({quoted(output)}))"
        )
