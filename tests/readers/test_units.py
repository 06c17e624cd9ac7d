"""Sources -> units: the rule "a row belongs to the unit in which it starts", whatever the file is packed in."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packcli.errors import StorageError
from packcli.readers import Fields, Source, Span, Unit, cut_units, files, find_sources, read_parts, units

LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b"\r", b" ", b'{"text": "a"}', '{"text": "é"}'.encode()]),
        st.integers(0, 300).map(lambda size: b"x" * size),
        st.binary(max_size=30).map(lambda line: b"{" + line.replace(b"\n", b"")),
    ),
    max_size=40,
)


@st.composite
def jsonl(draw: st.DrawFn) -> bytes:
    """Lines of any length, blank ones, LF or CRLF, with or without a newline at the end; never empty."""
    data = draw(st.sampled_from([b"\n", b"\r\n"])).join(draw(LINES)) + draw(st.sampled_from([b"", b"\n", b"\r\n"]))
    return data or b"{}"


def write(root: Path, data: bytes, name: str = "data.jsonl") -> Source:
    if name.endswith(".gz"):
        data = gzip.compress(data, 1)
    if name.endswith(".zst"):
        data = pa.compress(data, codec="zstd", asbytes=True)
    (root / name).write_bytes(data)
    return find_sources([str(root / name)], [])[0]


def slow_starts(data: bytes, unit_bytes: int) -> list[tuple[int, int]]:
    """(byte, row) at which each unit begins, line by line: the twin of _cut_lines."""
    starts: list[tuple[int, int]] = []
    position, last_unit = 0, -1
    for row, line in enumerate(data.split(b"\n")):
        if position < len(data) and position // unit_bytes > last_unit:
            starts.append((position, row))
            last_unit = position // unit_bytes
        position += len(line) + 1
    return starts


# --- plain JSONL ---


@given(data=jsonl(), unit_bytes=st.integers(1, 400), scan=st.sampled_from([1, 3, 64, 1 << 22]))
@example(data=b"a\nb\nc\n", unit_bytes=2, scan=3)  # every line starts at a multiple of unit_bytes
@example(data=b"aaaaaaaaaa\nb", unit_bytes=3, scan=4)  # a line over three units
@example(data=b"\n\n\n", unit_bytes=1, scan=1)
@example(data=b"aa\n", unit_bytes=3, scan=3)  # ends where the next unit would begin
def test_spans_of_a_jsonl_file_equal_the_slow_twin(tmp_path: Path, data: bytes, unit_bytes: int, scan: int) -> None:
    """Without it rows at the border of two units could be read twice, or never."""
    source = write(tmp_path, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "SCAN_BYTES", scan)
        cut = cut_units([source], unit_bytes)
    assert [unit.index for unit in cut] == list(range(len(cut)))
    if len(data) <= unit_bytes:
        assert cut == [Unit(0, (Span(0),))]
        return
    spans = [unit.spans[0] for unit in cut]
    assert all(len(unit.spans) == 1 for unit in cut)
    assert [(span.start, span.first_row) for span in spans] == slow_starts(data, unit_bytes)
    # They tile the file, begin at the beginning of lines, and number the rows as wc -l would.
    assert [span.start for span in spans] + [len(data)] == [0, *(span.stop for span in spans)]
    for span in spans:
        assert span.start == 0 or data[span.start - 1 : span.start] == b"\n"
        assert span.first_row == data.count(b"\n", 0, span.start)


def rows_by_part(source: Source, unit_bytes: int, block_bytes: int) -> list[tuple[int, bytes]]:
    """(first row, bytes) of each part, over all units."""
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", block_bytes)
        for unit in cut_units([source], unit_bytes):
            for part in read_parts(unit, [source], Fields(()), unit_bytes=unit_bytes):
                chunks = list(part.chunks())
                row = chunks[0].first_row
                for chunk in chunks:
                    assert chunk.first_row == row, "rows of a part are numbered without a gap"
                    row += chunk.data.count(b"\n")
                parts.append((chunks[0].first_row, b"".join(chunk.data for chunk in chunks)))
    return parts


@given(data=jsonl(), unit_bytes=st.integers(1, 400), block_bytes=st.sampled_from([5, 64, 1 << 20]))
@example(data=b"aaaaaaaaaa\nb\nc", unit_bytes=3, block_bytes=5)
@example(data=b"a\n" * 20, unit_bytes=4, block_bytes=5)
def test_compressed_rows_fall_into_the_same_parts_as_plain_ones(
    tmp_path: Path, data: bytes, unit_bytes: int, block_bytes: int
) -> None:
    """Without it packing data.jsonl and data.jsonl.zst would give other packs."""
    plain = rows_by_part(write(tmp_path, data), unit_bytes, block_bytes)
    assert b"".join(rows for _, rows in plain) == data
    starts = slow_starts(data, unit_bytes)
    ends = [byte for byte, _ in starts[1:]] + [len(data)]
    assert plain == [(row, data[byte:end]) for (byte, row), end in zip(starts, ends, strict=True)]
    for name in ("data.jsonl.gz", "data.jsonl.zst"):
        assert rows_by_part(write(tmp_path, data, name), unit_bytes, block_bytes) == plain, name


def test_a_json_array_is_not_cut_inside(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf \n [{"text": "a"},\n{"text": "b"}]\n'
    assert cut_units([write(tmp_path, data, "data.json")], 4) == [Unit(0, (Span(0),))]
    assert len(cut_units([write(tmp_path, data.replace(b"[", b" "), "data.json")], 4)) == 3


# --- Parquet ---


@pytest.mark.parametrize("unit_bytes", [1, 300, 1000, 5000])
def test_parquet_is_cut_at_row_groups(tmp_path: Path, unit_bytes: int) -> None:
    """Without it a unit could hold the whole file, or a row group be in two units."""
    table = pa.table({"text": [f"{index} " + "x" * (index * 7 % 90) for index in range(103)]})
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=10, compression="none", use_dictionary=False)
    source = find_sources([str(tmp_path / "data.parquet")], [])[0]
    sizes = [pq.ParquetFile(source.path).metadata.row_group(group).total_byte_size for group in range(11)]
    cut = cut_units([source], unit_bytes)
    spans = [unit.spans[0] for unit in cut]
    assert [span.start for span in spans] + [11] == [0, *(span.stop for span in spans)]
    assert [span.first_row for span in spans] == [10 * span.start for span in spans]
    for span, after in itertools.zip_longest(spans, spans[1:]):
        size = sum(sizes[span.start : span.stop])
        assert size <= unit_bytes or span.stop == span.start + 1, "over unit_bytes only when alone"
        assert after is None or size + sizes[after.start] > unit_bytes, "no smaller than need be"
    read = []
    for unit in cut:
        for part in read_parts(unit, [source], Fields(("text",)), unit_bytes=1 << 30):
            for chunk in part.chunks():
                read += enumerate(chunk.columns[0].to_pylist(), start=chunk.first_row)
    assert read == list(enumerate(table["text"].to_pylist()))


def test_a_parquet_file_without_row_groups_is_one_unit_without_rows(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "data.parquet", pa.schema([("text", pa.string())])):
        pass
    source = find_sources([str(tmp_path / "data.parquet")], [])[0]
    (unit,) = cut_units([source], 1)
    (part,) = read_parts(unit, [source], Fields(("text",)), unit_bytes=1)
    assert list(part.chunks()) == []
    assert part.is_last


def test_what_is_no_parquet_file_is_named_before_the_run_begins(tmp_path: Path) -> None:
    source = write(tmp_path, b"PAR1 is not enough", "data.parquet")
    with pytest.raises(StorageError, match=r"data\.parquet: not a readable Parquet file"):
        cut_units([source], 1)


# --- small files ---


def fake(*sizes: int, name: str = "x.txt", compression: str | None = None) -> list[Source]:
    return [Source(name, "/nowhere", "txt", compression, size) for size in sizes]


def sources_of(cut: list[Unit]) -> list[list[int]]:
    return [[span.source for span in unit.spans] for unit in cut]


def test_small_files_share_a_unit() -> None:
    assert sources_of(cut_units(fake(40, 60, 1, 0, 100, 101, 5, 5), 100)) == [[0, 1], [2], [4], [5], [6, 7]]
    assert sources_of(cut_units(fake(40, 60, 1, 0, 98, 101, 5, 5), 100)) == [[0, 1], [2, 4], [5], [6, 7]]


def test_a_compressed_byte_stands_for_four() -> None:
    assert sources_of(cut_units(fake(10, 15, 1, 26, compression="gzip"), 100)) == [[0, 1], [2], [3]]


@given(sizes=st.lists(st.integers(0, 150), max_size=30), unit_bytes=st.integers(1, 120))
def test_every_file_is_in_one_unit_in_order(sizes: list[int], unit_bytes: int) -> None:
    cut = cut_units(fake(*sizes), unit_bytes)
    assert [source for unit in sources_of(cut) for source in unit] == [i for i, size in enumerate(sizes) if size]
    assert [unit.index for unit in cut] == list(range(len(cut)))
    weights = [sum(sizes[source] for source in unit) for unit in sources_of(cut)]
    assert all(w <= unit_bytes or len(unit) == 1 for w, unit in zip(weights, sources_of(cut), strict=True))


def test_small_files_of_every_kind_are_read_from_one_unit(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["p0", "p1"]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "j0"}\n{"text": "j1"}')
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "k0"}\n')
    sources = find_sources([str(tmp_path)], [])
    (unit,) = cut_units(sources, 1 << 20)
    parts = [list(part.chunks()) for part in read_parts(unit, sources, Fields(("text",)), unit_bytes=1 << 20)]
    assert len(parts) == 1
    assert [(chunk.source, chunk.first_row) for chunk in parts[0]] == [(0, 0), (1, 0), (1, 1), (2, 0)]
