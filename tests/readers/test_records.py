"""Bytes -> rows: every format gives the same documents, damage is an error and never fewer rows, digests hold."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from document_files import (
    COLUMNAR,
    DOCS,
    MANY,
    STREAMS,
    lines,
    table_of,
    write_parquet,
    write_stream,
    zstd,
)
from helpers import read
from hypothesis import given
from hypothesis import strategies as st

from packcli.readers import (
    Fields,
    ReadProgress,
    arrow_files,
    cut_units,
    files,
    find_sources,
    read_parts,
    text_files,
)


def write_as(stream: str, stem: Path, data: bytes) -> Path:
    """Writes the data in one of the STREAMS."""
    suffix, pack = STREAMS[stream]
    path = stem.with_name(stem.name + suffix)
    path.write_bytes(b"".join(pack(data)))
    return path


KINDS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "dictionary of large": pa.dictionary(pa.int8(), pa.large_string()),
}


@pytest.fixture(params=[(1 << 20, 1024), (64, 2), (4, 1)], ids=["blocks as they are", "small", "tiny"])
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", request.param[0])
    monkeypatch.setattr(arrow_files, "BATCH_ROWS", request.param[1])
    monkeypatch.setattr(text_files, "BATCH_ROWS", request.param[1])


# --- every format gives the same documents ---


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("unit_bytes", [1 << 20, 150])
@pytest.mark.parametrize("stream", STREAMS)
def test_json_lines_and_arrays_give_the_documents(tmp_path: Path, stream: str, unit_bytes: int) -> None:
    contents = {
        ".jsonl": lines(DOCS),
        ".ndjson": lines(DOCS, ascii_only=True)[:-1],
        ".json": json.dumps([{"text": doc, "more": [1, {"x": None}]} for doc in DOCS], indent=1).encode(),
    }
    for name, data in contents.items():
        path = write_as(stream, tmp_path / f"data{name}", data)
        assert read(path, unit_bytes=unit_bytes) == list(enumerate(DOCS)), name


@pytest.mark.parametrize("batch_rows", [1024, 3, 1])
@pytest.mark.parametrize("unit_bytes", [1 << 20, 150])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", COLUMNAR)
def test_columns_of_every_text_type_give_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, kind: str, unit_bytes: int, batch_rows: int
) -> None:
    monkeypatch.setattr(arrow_files, "BATCH_ROWS", batch_rows)
    monkeypatch.setattr(text_files, "BATCH_ROWS", batch_rows)
    suffix, write = COLUMNAR[form]
    path = tmp_path / f"data{suffix}"
    write(path, table_of(DOCS, KINDS[kind]))
    assert read(path, unit_bytes=unit_bytes) == list(enumerate(DOCS))


def test_save_to_disk_gives_the_documents(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": DOCS}).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    half = len(DOCS) // 2
    assert read(tmp_path / "saved") == [*enumerate(DOCS[:half]), *enumerate(DOCS[half:])]


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("stream", STREAMS)
def test_a_text_file_is_one_document(tmp_path: Path, stream: str) -> None:
    text = "\n\n".join(DOCS)
    assert read(write_as(stream, tmp_path / "a.txt", text.encode())) == [(0, text)]


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("stream", STREAMS)
def test_a_text_file_is_cut_at_split_on(tmp_path: Path, stream: str) -> None:
    path = write_as(stream, tmp_path / "a.txt", "<|sep|>".join(DOCS).encode())
    assert read(path, split_on="<|sep|>", unit_bytes=100) == list(enumerate(DOCS))


@given(
    text=st.text("a-é\n", max_size=40),
    split_on=st.sampled_from(["-", "--", "-a-", "é", "\n\n", "aé-"]),
    block_bytes=st.integers(1, 9),
)
def test_separators_across_blocks_are_found(tmp_path: Path, text: str, split_on: str, block_bytes: int) -> None:
    """Without it a separator that lies on the border of two blocks would join two documents."""
    text = text or "a"
    (tmp_path / "a.txt").write_bytes(text.encode())
    want = text.split(split_on)
    if not want[-1]:
        want.pop()  # a separator at the end ends the last document and begins none
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", block_bytes)
        assert read(tmp_path / "a.txt", split_on=split_on) == list(enumerate(want))


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("stream", STREAMS)
def test_marks_blank_lines_and_crlf_change_no_text_and_no_row_number(tmp_path: Path, stream: str) -> None:
    """Row numbers are lines of the file: they lead from a pack back to its source."""
    data = b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\n   \t\n\n{"text": "c\\r\\n"}\r\n{"text": "d"}'
    path = write_as(stream, tmp_path / "a.jsonl", data)
    assert read(path) == [(0, "a"), (2, "b"), (5, "c\r\n"), (6, "d")]
    assert read(path, unit_bytes=20) == [(0, "a"), (2, "b"), (5, "c\r\n"), (6, "d")]


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_mark_in_a_member_of_its_own_is_no_text(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / ("a.jsonl.gz" if pack is gzip.compress else "a.jsonl.zst")
    path.write_bytes(pack(b"\xef\xbb") + pack(b"\xbf") + pack(b'{"text": "a"}'))
    assert read(path) == [(0, "a")]


@pytest.mark.parametrize("name", ["a.json", "a.txt"])
def test_a_mark_at_the_beginning_is_no_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'\xef\xbb\xbf [{"text": "a"}]' if name == "a.json" else b"\xef\xbb\xbfa")
    assert read(tmp_path / name) == [(0, "a")]


def test_rows_are_counted_in_each_file_anew(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(lines([f"{name}0", f"{name}1"]))
    assert read(tmp_path) == [(0, "a0"), (1, "a1"), (0, "b0"), (1, "b1")]


def test_a_compressed_file_without_content_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(["a"]))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "c.jsonl.zst").write_bytes(zstd(b""))
    assert read(tmp_path) == [(0, "a")]


# --- parts ---


def test_parts_hold_about_unit_bytes_and_the_last_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(MANY)))
    sources = find_sources([str(tmp_path)], [])
    (unit,) = cut_units(sources, 1000)
    seen = []
    for part in read_parts(unit, sources, Fields(("text",)), unit_bytes=1000):
        assert not part.is_last
        list(part.chunks())
        seen.append((part.index, part.num_bytes, part.is_last))
    assert [index for index, _, _ in seen] == list(range(len(seen)))
    assert len(seen) == len(lines(MANY)) // 1000 + 1
    assert all(900 < num_bytes < 1100 for _, num_bytes, _ in seen[:-1])
    assert [is_last for *_, is_last in seen] == [False] * (len(seen) - 1) + [True]
    assert sum(num_bytes for _, num_bytes, _ in seen) == len(lines(MANY))


def test_a_part_that_is_skipped_leaves_the_next_as_it_is(tmp_path: Path) -> None:
    """Resume skips what is committed; the rest must be the rows that it would have been."""
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(MANY)))
    sources = find_sources([str(tmp_path)], [])
    (unit,) = cut_units(sources, 1000)
    whole = [list(part.chunks()) for part in read_parts(unit, sources, Fields(()), unit_bytes=1000)]
    assert len(whole) > 10
    for part in read_parts(unit, sources, Fields(()), unit_bytes=1000):
        if part.index % 2:
            part.skip()
            with pytest.raises(AssertionError, match="without a digest"):
                _ = part.digest
        else:
            assert list(part.chunks()) == whole[part.index]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.txt", "a.parquet", "a.arrow"])
def test_the_meter_ends_at_the_size_of_the_file(tmp_path: Path, name: str) -> None:
    """Without it the bar would stop at 40 %, or run on to 300 %."""
    path = tmp_path / name
    if name == "a.parquet":
        write_parquet(path, table_of(MANY, pa.string()))
    elif name == "a.arrow":
        write_stream(path, table_of(MANY, pa.string()))
    else:
        data = json.dumps([{"text": doc} for doc in MANY]).encode() if name == "a.json" else lines(MANY)
        pack = {".gz": gzip.compress, ".zst": zstd}.get(path.suffix, bytes)
        path.write_bytes(pack(data))
    sources = find_sources([str(path)], [])
    progress = ReadProgress()
    for unit in cut_units(sources, 3000):
        for part in read_parts(unit, sources, Fields(("text",)), unit_bytes=3000, progress=progress):
            part.skip()
    # An array is looked at twice, Parquet counts whole bytes a batch.
    assert path.stat().st_size * 0.98 <= progress.file_bytes <= path.stat().st_size * (2 if name == "a.json" else 1)
