"""MosaicML Streaming's MDS: shards of samples with a header of offsets, and index.json.

A shard (little-endian): u32 samples, u32 offsets [samples + 1] from the beginning of the file, a JSON of settings, the
samples. A sample here is labels, position_ids and tokens (columns stand in the order of their names), L int32 each:
columns of a fixed size need no lengths in the sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from packcli.dataset import PackedDataset, Rows
from packcli.exports.base import Export, ExportPart, Sink, quoted, refuse_hidden_ends

COLUMNS = ("labels", "position_ids", "tokens")
SHARD_BYTES = 1 << 26
"""Size of a shard, about: what Streaming takes by default."""


class Mds(Export):
    """Packs; LLM Foundry reads `tokens` and finds documents by EOS, other loops have labels and position_ids."""

    ends_by_eos = True

    def write_part(self, packed: PackedDataset, split: str, index: int, sink: Sink, lossy: bool) -> dict[str, Any]:
        """[SPLIT/]shard.INDEX.NUMBER.mds."""
        shards: list[dict[str, Any]] = []
        num_rows = num_tokens = 0
        for rows in self._shards(packed, split, index, lossy):
            name = f"shard.{index:05d}.{len(shards):05d}.mds"
            data = _shard(rows)
            with sink.open(_folder(packed, split) + name) as file:
                file.write(data)
            num_tokens += sum(int(each.num_real.sum()) for each in rows)
            num_here = sum(map(len, rows))
            num_rows += num_here
            raw = {"basename": name, "bytes": len(data), "hashes": {}}
            shards.append({**_settings(packed.config.max_len), "raw_data": raw, "samples": num_here, "zip_data": None})
        return {"num_rows": num_rows, "num_tokens": num_tokens, "shards": shards}

    def _shards(self, packed: PackedDataset, split: str, index: int, lossy: bool) -> Iterator[list[Rows]]:
        waiting: list[Rows] = []
        for rows in packed.rows(packed.splits[split][index]):
            segments = rows.segments
            is_last = np.zeros(len(segments.length), dtype=np.bool_)
            is_last[segments.offsets[1:] - 1] = True
            ids, eos_id = rows.input_ids.reshape(-1), packed.tokenizer.eos_id
            refuse_hidden_ends(ids, segments.begin, segments.length, eos_id, is_last, lossy)
            waiting.append(rows)
            if sum(each.input_ids.nbytes for each in waiting) * len(COLUMNS) >= SHARD_BYTES:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def finish(self, packed: PackedDataset, parts: Mapping[str, Sequence[ExportPart]], sink: Sink) -> None:
        """index.json of every split."""
        for split, each in parts.items():
            shards = [shard for part in each for shard in part.counts["shards"]]
            sink.json(f"{_folder(packed, split)}index.json", {"version": 2, "shards": shards})

    def load_lines(self, packed: PackedDataset, output: str) -> str:
        """For streaming and LLM Foundry."""
        split = ', split="train"' if len(packed.splits) > 1 else ""
        eos = f", eos_token_id: {packed.tokenizer.eos_id}" if packed.tokenizer.eos_id is not None else ""
        return f"streaming.StreamingDataset(local={quoted(output)}{split}, batch_size=8)  # LLM Foundry:{eos[1:]}"


def _folder(packed: PackedDataset, split: str) -> str:
    return f"{split}/" if len(packed.splits) > 1 else ""


def _settings(max_len: int) -> dict[str, Any]:
    return {
        "column_encodings": [f"ndarray:int32:{max_len}"] * len(COLUMNS),
        "column_names": list(COLUMNS),
        "column_sizes": [4 * max_len] * len(COLUMNS),
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": 2,
    }


def _shard(batches: Sequence[Rows]) -> bytes:
    samples = np.concatenate(
        [np.concatenate((rows.labels, rows.position_ids, rows.input_ids), axis=1) for rows in batches]
    ).astype("<i4")
    settings = json.dumps(_settings(samples.shape[1] // len(COLUMNS)), sort_keys=True).encode()
    begin = 4 + 4 * (len(samples) + 1) + len(settings)
    offsets = begin + np.arange(len(samples) + 1) * samples.shape[1] * 4
    head = np.uint32(len(samples)).astype("<u4").tobytes() + offsets.astype("<u4").tobytes()
    return bytes(head) + settings + bytes(samples.data)
