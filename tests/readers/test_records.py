"""Bytes -> rows: every format gives the same documents, damage is an error and never fewer rows, digests hold."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import read
from hypothesis import given
from hypothesis import strategies as st

from packcli.errors import StorageError
from packcli.readers import (
    Chunk,
    Fields,
    ReadProgress,
    arrow_files,
    cut_units,
    digest_parts,
    files,
    find_sources,
    read_parts,
    text_files,
)
from packcli.readers.chunks import BytesChunk, Digest, LineChunk
from packcli.readers.chunks import ColumnChunk as Columns

DOCS = [
    "plain",
    "",
    " ",
    "é ü 日本語 👩‍👩‍👧‍👦 \U0010ffff",
    "line\nbreak\r\nand\ttab",
    "\u2028 line separator \u0085 next line \u2029 \x1c \x0b \x0c",
    "nul \x00 inside",
    'quote " backslash \\ slash / {brace} {{two}}',
    "<|endoftext|>",
    "\ufeffmark at the start",
    "x" * 5000,
    "last",
]


def lines(docs: Sequence[str], *, ascii_only: bool = False) -> bytes:
    return b"".join(json.dumps({"id": 1, "text": doc}, ensure_ascii=ascii_only).encode() + b"\n" for doc in docs)


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def halves(data: bytes) -> tuple[bytes, bytes]:
    return data[: len(data) // 2], data[len(data) // 2 :]


STREAMS: dict[str, tuple[str, Callable[[bytes], list[bytes]]]] = {
    "plain": ("", lambda data: [data]),
    "gzip": (".gz", lambda data: [gzip.compress(data)]),
    "gzip, two members": (".gz", lambda data: [gzip.compress(half) for half in halves(data)]),
    "gzip, an empty member first": (".gz", lambda data: [gzip.compress(b""), gzip.compress(data)]),
    "zstd": (".zst", lambda data: [zstd(data)]),
    "zstd, two frames": (".zst", lambda data: [zstd(half) for half in halves(data)]),
    "zstd, an empty frame first": (".zst", lambda data: [zstd(b""), zstd(data)]),
    "zstd, skippable frames": (".zst", lambda data: [SKIPPABLE, zstd(data), SKIPPABLE]),
}
"""Name -> suffix, and the members or frames that hold the data."""

SKIPPABLE = b"\x50\x2a\x4d\x18\x03\0\0\0abc"


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


def table_of(docs: Sequence[str | None], kind: pa.DataType) -> pa.Table:
    column = pa.array(docs, pa.string())
    return pa.table({"id": pa.array(range(len(docs))), "text": column.cast(kind)})


def write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=5)


def write_stream(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


def write_file(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


COLUMNAR: dict[str, tuple[str, Callable[[Path, pa.Table], None]]] = {
    "parquet": (".parquet", write_parquet),
    "arrow stream": (".arrow", write_stream),
    "arrow file": (".arrow", write_file),
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


# --- damage ---

MANY = [f"document {index} {index * 7919 % 1000}" for index in range(300)]


def points(size: int, first: int = 1, count: int = 20) -> list[int]:
    return sorted({int(at) for at in np.linspace(first, size - 1, count)})


@pytest.mark.parametrize("stream", [name for name in STREAMS if name != "plain"])
def test_a_compressed_file_cut_short_is_always_an_error(tmp_path: Path, stream: str) -> None:
    """Most readers of .zst give the rows before the cut, and no error."""
    suffix, pack = STREAMS[stream]
    path = tmp_path / f"a.jsonl{suffix}"
    members = pack(lines(MANY))
    data = b"".join(members)
    whole = {len(b"".join(members[:count])) for count in range(len(members))}  # nobody can notice such a cut
    cuts = [at for at in points(len(data), count=110) if at not in whole]
    assert len(cuts) >= 100
    for at in cuts:
        path.write_bytes(data[:at])
        with pytest.raises(StorageError, match=rf"a\.jsonl\{suffix}: the file is damaged"):
            read(path, field="text")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    "garbage", [b"g", b"\0", b"garbage", b"\0" * 1000, b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"x" * 70000]
)
def test_garbage_after_the_end_is_always_an_error(tmp_path: Path, suffix: str, garbage: bytes) -> None:
    pack = gzip.compress if suffix == ".gz" else zstd
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(lines(MANY)) + garbage)
    with pytest.raises(StorageError, match="the file is damaged"):
        read(path)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", zstd), (".zst", gzip.compress), (".gz", bytes), (".zst", bytes)])
def test_a_wrong_suffix_is_an_error(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(lines(MANY)))
    with pytest.raises(StorageError, match="the file is damaged"):
        read(tmp_path / f"a.jsonl{suffix}")


@pytest.mark.parametrize("form", COLUMNAR)
def test_a_columnar_file_cut_short_is_always_an_error(tmp_path: Path, form: str) -> None:
    """An Arrow stream cut between two batches reads as a shorter stream, unless one looks for its end mark."""
    suffix, write = COLUMNAR[form]
    path = tmp_path / f"a{suffix}"
    write(path, table_of(MANY, pa.string()))
    data = path.read_bytes()
    cuts = points(len(data))
    if form == "arrow stream":
        cuts += _message_ends(path)
        assert len(cuts) > 60
    for at in cuts:
        path.write_bytes(data[:at])
        with pytest.raises(StorageError, match=rf"a\{suffix}: "):
            read(path, field="text")


def _message_ends(path: Path) -> list[int]:
    """Where a cut leaves whole messages: after the schema, and after each batch."""
    ends = []
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.MessageReader.open_stream(file)
        for _ in reader:
            ends.append(file.tell())
    return ends


@pytest.mark.parametrize("garbage", [b"x", b"\0" * 8, b"\xff\xff\xff\xff\0\0\0\0", "the same again"])
def test_what_follows_an_arrow_stream_is_an_error(tmp_path: Path, garbage: bytes | str) -> None:
    """`cat a.arrow b.arrow` would lose every row of b."""
    write_stream(tmp_path / "a.arrow", table_of(DOCS, pa.string()))
    data = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(data + (garbage if isinstance(garbage, bytes) else data))
    with pytest.raises(StorageError, match="there is more after the end of the Arrow stream"):
        read(tmp_path / "a.arrow")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_what_is_no_columnar_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(lines(DOCS))
    with pytest.raises(StorageError, match="not a readable (Parquet|Arrow) file"):
        read(tmp_path / f"a{suffix}")


def test_a_flipped_byte_in_a_parquet_page_is_an_error_or_changes_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table_of(MANY, pa.string()), path, compression="gzip", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"a\.parquet: the file is damaged"):
        read(path)


@pytest.mark.parametrize("form", COLUMNAR)
def test_a_columnar_file_without_rows_has_no_documents(tmp_path: Path, form: str) -> None:
    suffix, write = COLUMNAR[form]
    write(tmp_path / f"a{suffix}", table_of([], pa.string()))
    assert read(tmp_path / f"a{suffix}") == []


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(MANY))
    sources = find_sources([str(path)], [])
    (unit,) = cut_units(sources, 1 << 20)
    os.truncate(path, 100)
    with pytest.raises(StorageError, match=r"a\.jsonl: .*become shorter"):
        digest_parts(unit, sources, Fields(("text",)), unit_bytes=1 << 20, split_on=None)


def test_a_file_that_grows_is_read_to_where_it_was(tmp_path: Path) -> None:
    """Otherwise rows would come in that no unit was cut for, and a resumed run would differ."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(["a", "b"]))
    sources = find_sources([str(path)], [])
    (unit,) = cut_units(sources, 1 << 20)
    with open(path, "ab") as file:
        file.write(lines(["c"]))
    (chunks,) = [list(part.chunks()) for part in read_parts(unit, sources, Fields(("text",)), unit_bytes=1 << 20)]
    assert b"".join(chunk.data for chunk in chunks) == lines(["a", "b"])


@pytest.mark.parametrize(
    "data", [b'[{"text": "a"}', b'[{"text": "a]', b'[{"text": "a"}] [', b"[1]]", b"[NaN", b"[" * 100000]
)
def test_what_begins_like_an_array_and_is_none_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(StorageError, match=r"a\.json: begins like a JSON array and is not one"):
        read(tmp_path / "a.json", field="text")


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
    meter = ReadProgress()
    for unit in cut_units(sources, 3000):
        for part in read_parts(unit, sources, Fields(("text",)), unit_bytes=3000, meter=meter):
            part.skip()
    # An array is looked at twice, Parquet counts whole bytes a batch.
    assert path.stat().st_size * 0.98 <= meter.file_bytes <= path.stat().st_size * (2 if name == "a.json" else 1)


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
