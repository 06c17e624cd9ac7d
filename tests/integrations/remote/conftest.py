"""Servers of object stores on this machine, and a proxy before them that breaks what passes through it."""

from __future__ import annotations

import gzip
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from integrations.remote.runs import SETTINGS, run, tree

# These are read when google.auth and huggingface_hub are imported.
os.environ["NO_GCE_CHECK"] = "true"
os.environ["HF_TOKEN_PATH"] = "/nonexistent"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key-of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "2",  # five would take half a minute
    "CLOUDSDK_CONFIG": "/nonexistent",
    "PACKCLI_TESTS_MAY_REACH": "this machine",
}


@pytest.fixture(scope="session", autouse=True)
def blocked_sockets() -> Iterator[None]:
    """Instead of tests/conftest.py's: this machine may be reached, and no other."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):  # type: ignore[index]
            raise AssertionError(f"tests reach this machine only: {address}")
        connect(self, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name in ("GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind: 60 kB of JSONL in three units, .gz, .zst, Parquet, Arrow."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [{"text": f"document {number}: the cat, and {'the dog ' * (number % 17)}"} for number in range(700)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    (folder / "a.jsonl").write_bytes(data)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
    with pa.CompressedOutputStream(str(folder / "c.jsonl.zst"), "zstd") as file:
        file.write(data[:20_000].rpartition(b"\n")[0] + b"\n")
    table = pa.table(
        {"text": [row["text"] for row in rows], "other": [f"{number**9:060d}" for number in range(len(rows))]}
    )
    pq.write_table(table, folder / "d.parquet", row_group_size=100, compression="none")
    with pa.ipc.new_stream(str(folder / "e.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
    return folder


@pytest.fixture(scope="session")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Name -> bytes of the output that a disk gives."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run("pack", inputs, "-o", out, *SETTINGS)[0] == 0
    return tree(out)
