"""Chunks: cut between records, and a digest that does not depend on how they were read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from document_files import (
    MANY,
    write_parquet,
    write_stream,
)
from hypothesis import given
from hypothesis import strategies as st

from packcli.readers import (
    Chunk,
    Fields,
    arrow_files,
    cut_units,
    digest_parts,
    files,
    find_sources,
    text_files,
)
from packcli.readers.chunks import BytesChunk, Digest, LineChunk
from packcli.readers.chunks import ColumnChunk as Columns

# --- cutting a chunk, against a slow twin ---

TEXTS = st.lists(st.text("ab é\n", max_size=6), min_size=1, max_size=12)
AT = st.integers(-3, 80)


def check_cut(chunk: Chunk, sizes: list[int], at: int, rows_of: Callable[[Chunk], list[object]]) -> None:
    """Rows that start before byte `at` go left, the others right, row by row."""
    left_rows, position = 0, 0
    for size in sizes:
        left_rows += position < at
        position += size
    assert chunk.num_bytes == position
    left, right = chunk.split_at(at)
    rows = rows_of(chunk)
    assert (rows_of(left) if left else []) == rows[:left_rows]
    assert (rows_of(right) if right else []) == rows[left_rows:]
    assert (left is None) == (left_rows == 0)
    assert (right is None) == (left_rows == len(rows))
    assert left is None or (left.source, left.first_row) == (3, 100)
    assert right is None or (right.source, right.first_row) == (3, 100 + left_rows)
    together = Digest()
    for each in (left, right):
        if each is not None:
            each.add_to(together)
    alone = Digest()
    chunk.add_to(alone)
    assert together.hexdigest() == alone.hexdigest()


@given(texts=TEXTS, at=AT, final_newline=st.booleans())
def test_lines_are_cut_between_lines(texts: list[str], at: int, final_newline: bool) -> None:
    rows = [text.replace("\n", "").encode() + b"\n" for text in texts]
    if not final_newline:
        rows[-1] = rows[-1][:-1] or b"x"
    chunk = LineChunk(3, 100, b"".join(rows))
    check_cut(chunk, [len(row) for row in rows], at, lambda each: each.data.splitlines(keepends=True))


@given(texts=TEXTS, at=AT, raw=st.booleans())
def test_records_are_cut_between_records(texts: list[str], at: int, raw: bool) -> None:
    rows = [json.dumps(text).encode() if raw else text.encode() for text in texts]
    chunk = BytesChunk(3, 100, [msgspec.Raw(row) for row in rows] if raw else rows)
    check_cut(chunk, [len(row) for row in rows], at, lambda each: [bytes(record) for record in each.records])


@given(texts=TEXTS, at=AT, num_columns=st.integers(1, 2), skipped=st.integers(0, 2))
def test_columns_are_cut_between_rows(texts: list[str], at: int, num_columns: int, skipped: int) -> None:
    column = pa.array(["skipped"] * skipped + texts, pa.large_string())[skipped:]
    chunk = Columns(3, 100, [column] * num_columns)
    sizes = [len(text.encode()) * num_columns for text in texts]
    check_cut(chunk, sizes, at, lambda each: list(zip(*(column.to_pylist() for column in each.columns), strict=True)))


# --- digests ---


def digests(path: Path, fields: Sequence[str] = ("text",), *, unit_bytes: int = 1 << 20) -> list[str]:
    sources = find_sources([str(path)], [])
    split_on = "--" if ".txt" in path.name else None
    units = cut_units(sources, unit_bytes)
    return [
        digest
        for unit in units
        for digest in digest_parts(unit, sources, Fields(tuple(fields)), unit_bytes=unit_bytes, split_on=split_on)
    ]


def write_rows(path: Path, rows: Sequence[tuple[str | None, str]]) -> None:
    """Rows of two fields, `text` and `more`, in the format that the name says."""
    docs, more = [text for text, _ in rows], [each for _, each in rows]
    table = pa.table({"text": pa.array(docs, pa.string()), "more": pa.array(more, pa.string())})
    objects = [{"text": text, "more": each} for text, each in rows]
    if path.suffix == ".parquet":
        write_parquet(path, table)
    elif path.suffix == ".arrow":
        write_stream(path, table)
    elif path.suffix == ".json":
        path.write_text(json.dumps(objects))
    elif path.suffix == ".txt":
        path.write_text("--".join(str(text) for text in docs))
    else:
        data = b"".join(json.dumps(each).encode() + b"\n" for each in objects)
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


FORMS = ["a.jsonl", "a.jsonl.gz", "a.json", "a.txt", "a.parquet", "a.arrow"]


@pytest.mark.parametrize("unit_bytes", [1 << 20, 1000])
@pytest.mark.parametrize("name", FORMS)
def test_a_digest_does_not_depend_on_how_the_rows_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, unit_bytes: int
) -> None:
    """Without it a run that another packcli began would be refused: the input, it would say, has changed."""
    write_rows(tmp_path / name, [(doc, doc[::-1]) for doc in MANY])
    want = digests(tmp_path / name, ("text", "more"), unit_bytes=unit_bytes)
    assert len(set(want)) == len(want) > (unit_bytes == 1000)
    for block_bytes, batch_rows in ((1, 1), (7, 2), (64, 3), (4096, 100)):
        monkeypatch.setattr(files, "BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(arrow_files, "BATCH_ROWS", batch_rows)
        monkeypatch.setattr(text_files, "BATCH_ROWS", batch_rows)
        assert digests(tmp_path / name, ("text", "more"), unit_bytes=unit_bytes) == want, (block_bytes, batch_rows)


@pytest.mark.parametrize("name", FORMS)
def test_a_digest_tells_other_rows(tmp_path: Path, name: str) -> None:
    """Without it a changed input would be packed half old and half new."""
    variants: list[list[tuple[str | None, str]]] = [
        [("ab", ""), ("c", "")],
        [("ab", ""), ("d", "")],
        [("a", ""), ("bc", "")],
        [("c", ""), ("ab", "")],
        [("abc", "")],
        [("ab", ""), ("c", ""), ("", "")],
        [("ab", ""), ("", ""), ("c", "")],
    ]
    if name != "a.txt":
        variants += [
            [("ab", ""), (None, "c")],
            [("ab", ""), ("", "c")],
            [("ab", "c"), ("", "")],
            [("", "ab"), ("c", "")],
        ]
    if name == "a.txt":
        variants.remove([("ab", ""), ("c", ""), ("", "")])  # a separator at the end begins no document
    seen = []
    for rows in variants:
        write_rows(tmp_path / name, rows)
        seen += digests(tmp_path / name, ("text", "more"))
    assert len(seen) == len(set(seen)) == len(variants)


def test_columns_of_a_digest_do_not_mix(tmp_path: Path) -> None:
    """Other row groups could make (a, c) (b, d) look like (a, b) (c, d)."""
    one = pa.table({"text": ["a", "b"], "more": ["c", "d"]})
    other = pa.table({"text": ["a", "c"], "more": ["b", "d"]})
    pq.write_table(one, tmp_path / "one.parquet", row_group_size=2)
    pq.write_table(other, tmp_path / "other.parquet", row_group_size=1)
    pq.write_table(one, tmp_path / "again.parquet", row_group_size=1)
    fields = ("text", "more")
    assert digests(tmp_path / "one.parquet", fields) != digests(tmp_path / "other.parquet", fields)
    assert digests(tmp_path / "one.parquet", fields) == digests(tmp_path / "again.parquet", fields)


def test_columns_that_are_not_read_are_not_in_the_digest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "more": ["b"]}), tmp_path / "one.parquet")
    pq.write_table(pa.table({"text": ["a"], "more": ["other"]}), tmp_path / "other.parquet")
    assert digests(tmp_path / "one.parquet") == digests(tmp_path / "other.parquet")
