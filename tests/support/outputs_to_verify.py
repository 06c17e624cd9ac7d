"""Outputs to verify, and what is wrong with them."""

import json
import re

import pyarrow as pa
from helpers import SAMPLE
from typer.testing import CliRunner

import packcli
from packcli import cli
from packcli.dataset import fingerprint
from packcli.dataset.fingerprint import sealed_bytes
from packcli.verification import verify

TINY = {}
"""Settings of a tokenizer that loads in no time."""


def pack(output, inputs=SAMPLE, **settings):
    settings = {**TINY, "max_len": 256, "workers": 1, "unit_bytes": 50_000, "strategy": "best-fit", **settings}
    return packcli.pack(inputs, output, **settings).output


def wrong(output, **options):
    """(file, what) of every problem, sorted."""
    return sorted((each.file, each.what) for each in verify(output, **options).problems)


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["verify", *map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})


def reseal(manifest, *, fingerprinted):
    """The manifest as someone leaves it who knows how it is sealed."""
    del manifest["sha256"]
    if fingerprinted:
        run = {key: manifest[key] for key in manifest if key not in ("splits", "parts", "files", "fingerprint")}
        manifest["fingerprint"] = fingerprint(run)
    return sealed_bytes(manifest).decode()


def file_hash(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def rewrite_shard(output, name, change):
    """Writes a shard with other rows, and lets the sidecar and the manifest know: only the rows can tell."""
    with pa.ipc.open_stream((output / name).read_bytes()) as reader:
        schema, table = reader.schema, reader.read_all()
    table = pa.Table.from_pylist(change(table.to_pylist()), schema=schema)
    with pa.ipc.new_stream(output / name, schema) as writer:
        writer.write_table(table)
    match = re.search(r"(\d{5}-\d{3})\.arrow", name)
    sidecar_name = f"units/{match[1]}.json"
    sidecar = json.loads((output / sidecar_name).read_bytes())
    manifest = json.loads((output / "manifest.json").read_bytes())
    split = next(split for split, info in sidecar["shards"].items() if info["file"] == name)
    facts = {"num_rows": len(table), "num_bytes": (output / name).stat().st_size, "sha256": file_hash(output / name)}
    sidecar["shards"][split] |= facts
    for entry in manifest["splits"][split]:
        if entry["file"] == name:
            entry |= facts
    del sidecar["sha256"]
    (output / sidecar_name).write_bytes(sealed_bytes(sidecar))
    manifest["files"][sidecar_name] = file_hash(output / sidecar_name)
    (output / "manifest.json").write_text(reseal(manifest, fingerprinted=False))


def of_row(number, column, at, value):
    def change(rows):
        rows[number][column][at] = value
        return rows

    return change
