"""Files and names from strangers, through the command: the exit code, and what is said, of each."""

import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_socket
from helpers import SAMPLE, encryption_properties
from typer.testing import CliRunner

from packcli import cli

TEXTS = [f"document {number} of some text" for number in range(200)]


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def write_parquet(path, column=TEXTS, kind=None, name="text", **options):
    pq.write_table(pa.table({name: pa.array(column, kind)}), path, **options)


def write_encrypted(path):
    write_parquet(path, encryption_properties=encryption_properties())


def damage_page(path):
    write_parquet(path, write_page_checksum=True, use_dictionary=False, compression="none")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"document 150", b"document 151", 1))


def bad_utf8(path):
    column = pa.array([b"good", b"b\xffd"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), path)


def text_of(content):
    return lambda path: path.write_bytes(content)


FILES = {
    "cut.parquet": (
        lambda path: (write_parquet(path), os.truncate(path, 900)),
        6,
        r"cut\.parquet: not a readable Parquet",
    ),
    "head.parquet": (text_of(b"PAR1"), 6, r"head\.parquet: not a readable Parquet file"),
    "empty.parquet": (text_of(b""), 2, r"every input file is empty"),
    "rowless.parquet": (lambda path: write_parquet(path, [], pa.string()), 2, r"no document to pack: 0 read"),
    "column.parquet": (lambda path: write_parquet(path, name="body"), 2, r"no field 'text'.*body \(string\)"),
    "int.parquet": (lambda path: write_parquet(path, [1, 2]), 2, r"column 'text' is int64, not text"),
    "list.parquet": (lambda path: write_parquet(path, [["a"], ["b"]]), 2, r"'text' is list<.*string>, not text"),
    "struct.parquet": (lambda path: write_parquet(path, [{"a": "b"}]), 2, r"'text' is struct<a: string>, not text"),
    "null.parquet": (lambda path: write_parquet(path, [None, None]), 2, r"column 'text' is null, not text"),
    "binary.parquet": (lambda path: write_parquet(path, [b"a"]), 2, r"column 'text' is binary, not text"),
    "ids.parquet": (
        lambda path: write_parquet(path, [1, 2], pa.dictionary(pa.int8(), pa.int64())),
        2,
        r"is .*int64.*not text",
    ),
    "hole.parquet": (lambda path: write_parquet(path, ["a", None]), 4, r"hole\.parquet: row 1: 'text' is null"),
    "utf8.parquet": (bad_utf8, 4, r"utf8\.parquet: row 1: 'text' is not UTF-8"),
    "encrypted.parquet": (write_encrypted, 6, r"encrypted\.parquet: not a readable Parquet file \(.*[Ee]ncrypt"),
    "crc.parquet": (damage_page, 6, r"crc\.parquet: the file is damaged or cannot be read: .*CRC"),
    "dictionary.parquet": (
        lambda path: write_parquet(path, TEXTS, pa.dictionary(pa.int32(), pa.string())),
        0,
        "200 from 1",
    ),
    "large.parquet": (lambda path: write_parquet(path, TEXTS, pa.large_string()), 0, "200 from 1 file"),
    "text.arrow": (text_of(b"no arrow"), 6, r"text\.arrow: not a readable Arrow file"),
    "cut.jsonl.gz": (text_of(gzip.compress(LINES)[:-100]), 6, r"cut\.jsonl\.gz: the file is damaged or cannot be read"),
    "cut.jsonl.zst": (text_of(zstd(LINES)[:-10]), 6, r"cut\.jsonl\.zst: the file is damaged .*[Tt]runcated"),
    "more.jsonl.gz": (text_of(gzip.compress(LINES) + b"more"), 6, r"more\.jsonl\.gz: the file is damaged"),
    "more.jsonl.zst": (text_of(zstd(LINES) + b"more"), 6, r"more\.jsonl\.zst: the file is damaged"),
    "two.jsonl.gz": (text_of(gzip.compress(LINES) * 2), 0, "documents +400 from 1 file"),
    "two.jsonl.zst": (text_of(zstd(LINES) * 2), 0, "documents +400 from 1 file"),
    "plain.jsonl.gz": (text_of(LINES), 6, r"plain\.jsonl\.gz: the file is damaged"),
    "two.jsonl": (text_of(b'{"text": "a"} {"text": "b"}\n'), 4, r"two\.jsonl:1: not valid JSON"),
    "binary.jsonl": (text_of(bytes(range(256)) * 100), 4, r"binary\.jsonl:1: "),
    "cr.jsonl": (text_of(b'{"text": "a"}\r{"text": "b"}\r'), 4, r"cr\.jsonl:1: not valid JSON"),
    "utf16.jsonl": (text_of('{"text": "a"}\n'.encode("utf-16")), 4, r"utf16\.jsonl:1: "),
    "deep.jsonl": (
        text_of(b'{"text": "a"}\n{"x": ' + b"[" * 100_000 + b"\n"),
        4,
        r"deep\.jsonl:2: .*nested too deeply",
    ),
    "bad.txt": (text_of(b"caf\xe9"), 4, r"bad\.txt: document 0, byte 3: not UTF-8"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pack(tokenizer_dir):
    def run(*arguments):
        command = ["pack", "-w", "1", "--tokenizer", str(tokenizer_dir), *map(str, arguments)]
        result = CliRunner().invoke(
            cli.app, [*command, "--tokenizer-engine", "tokenizers"], env={"COLUMNS": "300", "NO_COLOR": "1"}
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, re.sub(r"\s+", " ", result.stderr), result.stderr

    return run


@pytest.mark.parametrize("name", FILES)
def test_a_file_from_a_stranger(here, pack, name):
    make, code, said = FILES[name]
    make(here / name)
    field = ["--text-field", "text"] if name.endswith(".parquet") else []
    result = pack(name, "-o", "out", *field)
    assert (result[0], bool(re.search(said, result[1]))) == (code, True), result
    assert not [path for path in here.rglob("*") if path.name.endswith(".tmp")]
    assert (here / "out" / "manifest.json").exists() == (code == 0)


# --- places ---


def test_links_directories_and_loops(here, pack):
    """A loop is not walked for ever, a hole is not passed over, a directory called like a file is a directory."""
    (here / "in").mkdir()
    shutil.copy(SAMPLE, here / "in" / "docs.jsonl")
    (here / "in" / "loop").symlink_to(here / "in")
    assert pack("in", "-o", "loop")[0] == 0
    (here / "self.jsonl").symlink_to("self.jsonl")
    code, said, _ = pack("self.jsonl", "-o", "self")
    assert (code, "self.jsonl" in said) == (2, True) or (code, "self.jsonl" in said) == (6, True)
    (here / "gone.jsonl").symlink_to("nowhere.jsonl")
    assert pack("gone.jsonl", "-o", "gone")[0] == 2
    (here / "in" / "gone.jsonl").symlink_to("nowhere.jsonl")
    code, said, _ = pack("in", "-o", "hole")
    assert (code, "gone.jsonl: No such file" in said) == (6, True)
    (here / "dir.jsonl").mkdir()
    shutil.copy(SAMPLE, here / "dir.jsonl" / "docs.jsonl")
    assert pack("dir.jsonl", "-o", "dir")[0] == 0
    (here / "twice.jsonl").symlink_to(here / "dir.jsonl" / "docs.jsonl")
    code, said, _ = pack("dir.jsonl/docs.jsonl", "twice.jsonl", "-o", "twice")
    assert (code, "is named twice: it is read once" in said, "300 from 1 file" in said) == (0, True, True)


NAMES = [
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "\u202eltr",
    "\x07bell",
    "`code`",
    "](http:x)",
    "<script>",
    "a" * 200,
    "-n",
    "{x}",
    "%s",
    "[red]",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_only_a_name(here, pack, name):
    """In messages, in the table, in the card, in the name of the output."""
    (here / "in").mkdir()
    path = here / "in" / f"{name}.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    before = set(here.parent.iterdir())
    code, _, said = pack(path)
    assert code == 0, said
    assert all(char.isprintable() or char == "\n" for char in said)
    assert set(here.parent.iterdir()) == before
    assert sorted(entry.name for entry in here.iterdir()) == sorted(["in", f"{name.split('.')[0]}-packed"])
    path.write_text('{"text": "one"}\n{"text": 2}\n')
    code, _, said = pack(path, "-o", "bad")
    assert code == 4
    assert all(char.isprintable() or char == "\n" for char in said)
    assert said.startswith("error: ")
    assert len(said.splitlines()) < 6


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text(here, pack):
    path = os.fsencode(here) + b"/caf\xe9.jsonl"
    Path(os.fsdecode(path)).write_text('{"text": "one"}\n')
    code, _, said = pack(os.fsdecode(path), "-o", "out")
    assert code == 0, said
    manifest = json.loads((here / "out" / "manifest.json").read_bytes())
    assert manifest["inputs"][0]["name"] == "caf\\xe9.jsonl"


@pytest.mark.parametrize("name", ["a`b", "a\nb", "<script>", "[x](y)", "\x1b[31m"], ids=ascii)
def test_the_name_of_a_tokenizer_cannot_write_in_the_card(here, pack, tokenizer_dir, name):
    shutil.copytree(tokenizer_dir, here / name)
    shutil.copy(SAMPLE, here / "docs.jsonl")
    code, _, said = pack("docs.jsonl", "-o", "out", "--tokenizer", here / name)
    assert code == 0, said
    assert all(char.isprintable() or char == "\n" for char in said)
    card = (here / "out" / "README.md").read_text()
    assert "<script>" not in card.replace("`<script>`", "")
    (line,) = (line for line in card.splitlines() if "with the tokenizer" in line)
    assert re.search(r"with the tokenizer `[^`\n]+`\.$", line)


# --- more than memory holds ---

MIB = 1 << 20
BOMBS = {
    "a line": ("x.jsonl.zst", b'{"text": "a"}\n', b"x", 4, r"x\.jsonl\.zst:2: the row is longer than 8,388,608 bytes"),
    "a line, gzip": ("x.jsonl.gz", b'{"text": "a"}\n', b"x", 4, r"x\.jsonl\.gz:2: the row is longer than"),
    "a line, plain": ("x.jsonl", b'{"text": "a"}\n', b"x", 4, r"x\.jsonl:2: the row is longer than"),
    "a text": ("x.txt.zst", b"", b"x", 4, r"x\.txt\.zst: row 0: the document is longer than"),
    "an array": ("x.json.zst", b"[", b'"xxxxxxxxxx",', 4, r"x\.json\.zst:1: the array is longer than"),
}


def inflate(path, head, body, size):
    """A file of `size` bytes of text."""
    data = head + body * (size // len(body))
    pack = {".zst": zstd, ".gz": lambda each: gzip.compress(each, 1)}.get(path.suffix, bytes)
    path.write_bytes(pack(data))


MEASURED = """
import re, sys
from packcli.cli import main
try:
    main()
finally:
    print(re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_more_memory_than_a_row_may(here, name):
    """A few kilobytes of .zst can be a terabyte."""
    file, head, body, code, said = BOMBS[name]
    inflate(here / file, head, body, 150 * MIB)
    arguments = ["pack", file, "-w", "1", "-o", "out", "--max-line-bytes", "8MiB"]
    child = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=False)
    assert (child.returncode, bool(re.search(said, child.stderr))) == (code, True), child
    peak = int(child.stdout) * 1024
    assert peak < (220 if name != "an array" else 400) * MIB, peak / MIB


def test_a_limit_for_rows_counts_in_every_format(here, pack):
    """Rows of 100 characters where 90 bytes are allowed; and where 200 are."""
    rows = [{"text": "short"}, {"text": "y" * 100}]
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "a.json").write_text(json.dumps(rows))
    (here / "a.txt").write_text("short|" + "y" * 100)
    write_parquet(here / "a.parquet", [row["text"] for row in rows])
    places = {"a.jsonl": "a.jsonl:2", "a.json": "a.json:2", "a.txt": "a.txt: row 1", "a.parquet": "a.parquet: row 1"}
    for file, place in places.items():
        arguments = [file, "-o", f"{file}-out", *(["--split-on", "|"] if file == "a.txt" else [])]
        code, said, _ = pack(*arguments, "--max-line-bytes", "90")
        assert (code, f"{place}: the row is longer than 90 bytes --max-line-bytes" in said) == (4, True), said
        assert pack(*arguments, "--max-line-bytes", "200")[0] == 0
        manifest = (here / f"{file}-out" / "manifest.json").read_bytes()
        assert pack(*arguments)[0] == 0  # the limit is no part of the run
        assert (here / f"{file}-out" / "manifest.json").read_bytes() == manifest


# --- the network ---


def test_no_test_can_open_a_socket():
    """What `no network` in this suite rests on: this process, and every process that a test starts."""
    with pytest.warns(UserWarning, match="socket.socket"), pytest.raises(pytest_socket.SocketBlockedError):
        socket.socket()
    done = subprocess.run([sys.executable, "-c", "import socket; socket.socket()"], capture_output=True, text=True)
    assert (done.returncode, "opened a socket" in done.stderr) == (1, True)
    lookup = "import socket; socket.getaddrinfo('localhost', 80)"
    done = subprocess.run([sys.executable, "-c", lookup], capture_output=True, text=True)
    assert (done.returncode, "looked up 'localhost'" in done.stderr) == (1, True)
