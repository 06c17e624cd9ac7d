"""Files that are damaged, cut short or changed: an error, and never fewer records."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from document_files import (
    COLUMNAR,
    DOCS,
    MANY,
    STREAMS,
    lines,
    table_of,
    write_stream,
    zstd,
)
from helpers import read

from packcli.errors import StorageError
from packcli.readers import (
    Fields,
    cut_units,
    digest_parts,
    find_sources,
    read_parts,
)


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
