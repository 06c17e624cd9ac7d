"""What several test files need."""

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "sample_data" / "docs.jsonl"
BUILTIN = ROOT / "packcli" / "tokenizing" / "builtin" / "tokenizer.json"
PACKCLI = [sys.executable, "-m", "packcli"]


def tree_hash(root):
    """sha256 over names and bytes of everything but the machine's own state."""
    digest = hashlib.sha256()
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and ".packcli" not in path.parts]
    assert files
    for path in files:
        assert not path.name.endswith(".tmp")
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def big_input(path, copies=60):
    rows = SAMPLE.read_bytes()
    with open(path, "wb") as file:
        for number in range(copies):
            file.write(rows.replace(b'"text": "', b'"text": "%d ' % number))
    return path
