"""What several test files need."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from packcli.readers import TextExtractor, cut_units, find_fields, find_sources, read_parts
from packcli.storage import RemotePath

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_data" / "docs.jsonl"
BUILTIN = ROOT / "packcli" / "tokenization" / "builtin" / "tokenizer.json"
PACKCLI = [sys.executable, "-m", "packcli"]


def tree(root):
    """Name -> bytes of everything but the machine's own state, in a directory or an object store."""
    if isinstance(root, RemotePath):
        files = {url.removeprefix(f"{root}/"): RemotePath(url) for url in root.tree()}
    else:
        files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".packcli/")}


def tree_hash(root):
    """sha256 over a tree."""
    digest = hashlib.sha256()
    files = tree(root)
    assert files
    for name, data in sorted(files.items()):
        assert not name.endswith(".tmp")
        digest.update(name.encode() + b"\0" + data + b"\0")
    return digest.hexdigest()


def big_input(path, copies=60):
    rows = SAMPLE.read_bytes()
    with open(path, "wb") as file:
        for number in range(copies):
            file.write(rows.replace(b'"text": "', b'"text": "%d ' % number))
    return path


def read(
    *paths: object,
    unit_bytes: int = 1 << 20,
    split_on: str | None = None,
    field: str | None = None,
    template: str | None = None,
) -> list[tuple[int, str]]:
    """(row, text) of every document, as the pipeline reads them."""
    sources = find_sources([str(path) for path in paths], [])
    fields = find_fields(sources, field, template)
    extract = TextExtractor(fields, sources)
    out: list[tuple[int, str]] = []
    for unit in cut_units(sources, unit_bytes):
        for part in read_parts(unit, sources, fields, unit_bytes=unit_bytes, split_on=split_on):
            for chunk in part.chunks():
                texts, rows = extract(chunk)
                assert rows.dtype == np.int64
                out += zip(rows.tolist(), texts, strict=True)
    return out


def die_over(item, emit):
    """Work for engines: kills its process at the first tries; an item is a file that counts them, and how many."""
    path, deaths = item
    tries = path.read_text() if path.exists() else ""
    path.write_text(tries + "x")
    if len(tries) < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    emit(path.name)
    return len(tries) + 1


def members(group):
    """Living processes of a process group."""
    listed = subprocess.run(["ps", "-eo", "pgid,pid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    return [row for row in rows if row[0] == str(group) and not row[2].startswith("Z")]


def encryption_properties():
    """For pyarrow.parquet.write_table: the footer, and the column `text`, are encrypted."""
    import base64

    import pyarrow.parquet.encryption as encryption

    class Client(encryption.KmsClient):
        def wrap_key(self, key, name):
            return base64.b64encode(key)

        def unwrap_key(self, key, name):
            return base64.b64decode(key)

    factory = encryption.CryptoFactory(lambda config: Client())
    config = encryption.EncryptionConfiguration(footer_key="key", column_keys={"key": ["text"]})
    return factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
