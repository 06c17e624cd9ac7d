"""The columns of shards, as Arrow and `datasets` know them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import pyarrow as pa

from packcli import tokenization
from packcli.config import PackConfig
from packcli.config.choices import FORMAT_VERSION

_INT32_LIST = pa.list_(pa.int32())
SOURCE = pa.struct([("source", pa.int32()), ("row", pa.int64()), ("start", pa.int32()), ("end", pa.int32())])

Schema: TypeAlias = pa.Schema
"""For callers that pass one on without touching pyarrow."""

TYPES = {
    "input_ids": _INT32_LIST,
    "labels": _INT32_LIST,
    "position_ids": _INT32_LIST,
    "seq_lengths": _INT32_LIST,
    "sources": pa.list_(SOURCE),
}
"""Column -> Arrow type."""


def run_schema(config: PackConfig, tokenizer: tokenization.TokenizerSpec) -> Schema:
    """The schema of every shard of a run."""
    return make_schema(
        config.written_columns,
        {
            "max_len": config.max_len,
            "pad_id": tokenizer.pad_id,
            "eos_id": tokenizer.eos_id,
            "isolate": config.isolate,
            "ragged": config.ragged,
            "tokenizer_sha256": tokenizer.sha256,
        },
    )


def make_schema(columns: Iterable[str], metadata: Mapping[str, Any]) -> pa.Schema:
    """The schema of every shard of a run.

    Args:
        columns: Names of columns.
        metadata: What stands under the key `packcli`.
    """
    columns = list(columns)
    return pa.schema(
        [(name, TYPES[name]) for name in columns],
        metadata={
            "huggingface": _json({"info": {"features": features(columns)}}),
            "packcli": _json({**metadata, "format_version": FORMAT_VERSION, "label_shift": 0}),
        },
    )


def features(columns: Iterable[str]) -> dict[str, Any]:
    """The features of the columns, as `datasets` 4 and later writes them in JSON."""

    def value(dtype: str) -> dict[str, str]:
        return {"dtype": dtype, "_type": "Value"}

    out: dict[str, Any] = {}
    for name in columns:
        element = TYPES[name].value_type
        inner = {field.name: value(str(field.type)) for field in element} if name == "sources" else value(str(element))
        out[name] = {"feature": inner, "_type": "List"}
    return out


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
