"""Fuzzes the row decoder: any bytes give rows or a PackcliError, and what JSON is given is what `json` reads in it.

pip install atheris
python tests/fuzz/fuzz_rows.py -max_total_time=3600 [CORPUS]

The first byte of an input chooses the kind of file and the shape of its records.
"""

import gzip
import io
import json
import sys
import tempfile
from pathlib import Path

import atheris
import pyarrow as pa
import pyarrow.parquet as pq

with atheris.instrument_imports(include=["packcli"]):
    from packcli import readers
    from packcli.errors import PackcliError
    from packcli.pipeline.documents import make_extractor
    from packcli.readers.files import begins_array

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
SUFFIXES = (".jsonl", ".json", ".txt", ".jsonl.gz", ".jsonl.zst", ".parquet", ".arrow")
SHAPES = ("text", "prompt-completion", "chat", "sharegpt", "alpaca", "tokenized", None)
UNIT_BYTES = 1 << 16
"""Small, so that files have several units and parts."""


def read(path: Path, shape: str | None) -> list[tuple[int, object]]:
    """Every row of a file, with its number."""
    sources = readers.find_sources([str(path)], [], max_row_bytes=1 << 16)
    fields = readers.find_fields(sources, None, None, format_=None if path.suffix == ".txt" else shape, mapped=())
    extract = make_extractor(fields, sources)
    rows: list[tuple[int, object]] = []
    for unit in readers.cut_units(sources, UNIT_BYTES):
        for part in readers.read_parts(unit, sources, fields, unit_bytes=UNIT_BYTES, split_on=None):
            for chunk in part.chunks():
                documents, numbers = extract(chunk)
                assert len(documents) == len(numbers)
                rows += zip(numbers.tolist(), documents, strict=True)
    assert [number for number, _ in rows] == sorted({number for number, _ in rows}), "rows out of order, or twice"
    return rows


def compare(content: bytes, rows: list[tuple[int, object]]) -> None:
    """A line that was taken is JSON, and its text is the text."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, text in rows:
        record = json.loads(lines[number].decode("utf-8", "replace"))  # fields that are not used may be anything
        assert text in record.values(), (number, text)


def test_one_input(data: bytes) -> None:
    """Reads a file of these bytes."""
    if not data:
        return
    suffix = SUFFIXES[data[0] % len(SUFFIXES)]
    shape = SHAPES[data[0] // len(SUFFIXES) % len(SHAPES)]
    path = FOLDER / f"data{suffix}"
    path.write_bytes(data[1:])
    try:
        rows = read(path, shape)
    except PackcliError as error:
        if not str(error):
            raise
    else:
        if suffix == ".jsonl" and shape == "text" and not begins_array(data[1:]):
            compare(data[1:], rows)
    finally:
        path.unlink()


def seeds() -> dict[str, bytes]:
    """One sound file of each kind and shape."""
    records = {
        "text": [{"text": "the cat"}, {"text": "a\\u00e9\\ud83d\\ude00 \u00e9 b", "n": 1.5e3}],
        "prompt-completion": [{"prompt": "a", "completion": "b"}],
        "chat": [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}],
        "sharegpt": [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}],
        "alpaca": [{"instruction": "a", "input": "", "output": "b"}],
        "tokenized": [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}],
    }
    found = {}
    for number, shape in enumerate(SHAPES[:-1]):
        rows = records[shape] * 3
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        table = pa.Table.from_pylist(rows)
        parquet, arrow = io.BytesIO(), io.BytesIO()
        pq.write_table(table, parquet)
        with pa.ipc.new_stream(arrow, table.schema) as writer:
            writer.write_table(table)
        files = {
            ".jsonl": lines,
            ".json": json.dumps(rows).encode(),
            ".txt": b"some words\n\nand more\n",
            ".jsonl.gz": gzip.compress(lines, mtime=0),
            ".jsonl.zst": pa.compress(lines, codec="zstd", asbytes=True),
            ".parquet": parquet.getvalue(),
            ".arrow": arrow.getvalue(),
        }
        for kind, suffix in enumerate(SUFFIXES):
            found[f"{shape}{suffix}"] = bytes([number * len(SUFFIXES) + kind]) + files[suffix]
    return found


if __name__ == "__main__":
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for name, content in seeds().items():
        (corpus / name).write_bytes(content)
    atheris.Setup([*sys.argv, str(corpus)], test_one_input)
    atheris.Fuzz()
