"""Files with something wrong in them, through the command: the exit code and the words of each, by --on-error."""

import gzip
import json
import re
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encryption_properties
from typer.testing import CliRunner

from packcli import cli

TEXTS = [f"document {number} of some text" for number in range(200)]
LINES = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS)
OK = b'{"text":"a cat"}\n'


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


def holds(data):
    return lambda path: path.write_bytes(data)


def parquet(column=TEXTS, kind=None, name="text", **options):
    return lambda path: pq.write_table(pa.table({name: pa.array(column, kind)}), path, **options)


def arrow(column, kind=None):
    def write(path):
        table = pa.table({"text": pa.array(column, kind)})
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)

    return write


def then(write, change):
    """A file that is written and then changed."""
    return lambda path: (write(path), path.write_bytes(change(path.read_bytes())))


def as_text(values):
    return pa.array(values, pa.binary()).view(pa.string())


def encrypted(path):
    parquet(encryption_properties=encryption_properties())(path)


def nested(path):
    words = pa.StructArray.from_arrays([pa.array(["user"] * 3), as_text([b"q", b"q\xff", b"q"])], ["role", "content"])
    pq.write_table(pa.table({"messages": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), words)}), path)


CHAT = ["--loss", "all", "--chat-template", "t.jinja"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
FIELD = ["--text-field", "text"]

FILES = {
    # rows: what is passed over, and what is mended
    "malformed.jsonl": (holds(OK + b'{"text":"a",}\n' + OK), []),
    "bytes.jsonl": (holds(OK + b'{"text":"caf\xe9"}\n' + OK), []),
    "half.jsonl.gz": (holds(gzip.compress(OK + b'{"text":"\\udc00"}\n' + OK)), []),
    "twice.jsonl.zst": (holds(zstd(OK + b'{"text":"a","text":"b"}\n' + OK)), []),
    "utf16.jsonl": (holds('{"text": "a"}\n'.encode("utf-16")), FIELD),
    "binary.jsonl": (holds(bytes(range(256)) * 9), FIELD),
    "element.json": (holds(b'[{"text":"a"},{"text":NaN},{"text":"b"}]'), []),
    "comma.json": (holds(b'[{"text":"a"},{"text":"b"},]'), []),
    "bytes.json": (holds(b'[{"text":"a"},{"text":"\xff"},{"text":"\\ud800"}]'), []),
    "long.jsonl": (holds(OK + b'{"text":"' + b"x" * 400 + b'"}\n' + OK), ["--max-line-bytes", "300"]),
    "bytes.txt": (holds(b"one|tw\xff|three"), ["--split-on", "|"]),
    "whole.txt": (holds(b"caf\xe9"), []),
    "hole.parquet": (parquet(["a", None, "b"]), []),
    "bytes.parquet": (parquet(as_text([b"a", b"b\xffd", b"c"])), []),
    "bytes.arrow": (arrow(as_text([b"a", b"b\xffd", b"c"])), []),
    "nested.parquet": (nested, CHAT),
    "ids.parquet": (parquet([[1, 2], [3, None], [4, 5]], pa.list_(pa.int32()), "input_ids"), []),
    # files: damage is damage, whatever is passed over
    "cut.jsonl.gz": (holds(gzip.compress(LINES, mtime=0)[:-100]), []),
    "cut.jsonl.zst": (holds(zstd(LINES)[:-10]), []),
    "tail.jsonl.gz": (holds(gzip.compress(LINES, mtime=0) + b"more"), []),
    "plain.jsonl.zst": (holds(LINES), []),
    "open.json": (holds(b'[{"text":"a"},{"text":"b"}'), []),
    "after.json": (holds(b'[{"text":"a"}] {"text":"b"}'), []),
    "cut.parquet": (then(parquet(), lambda data: data[:900]), []),
    "empty.parquet": (holds(b""), []),
    "footer.parquet": (then(parquet(), lambda data: data[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1"), []),
    "page.parquet": (
        then(
            parquet(write_page_checksum=True, use_dictionary=False, compression="none"),
            lambda data: data.replace(b"document 150", b"document 151", 1),
        ),
        [],
    ),
    "encrypted.parquet": (encrypted, []),
    "cut.arrow": (then(arrow(TEXTS), lambda data: data[:-8]), []),
    # settings, and files that are as they should be
    "number.parquet": (parquet([1, 2]), FIELD),
    "binary.parquet": (parquet([b"a"], pa.binary()), FIELD),
    "rowless.parquet": (parquet([], pa.string()), []),
    "other.jsonl": (holds(b'{"body":"a","title":"b"}\n'), []),
    "blank.jsonl": (holds(b"\n \n"), []),
    "two.jsonl.gz": (holds(gzip.compress(LINES) * 2), []),
    "two.jsonl.zst": (holds(zstd(LINES) * 2), []),
    "view.parquet": (parquet(TEXTS, pa.string_view()), []),
    "large.parquet": (parquet(TEXTS, pa.large_string()), []),
    "dictionary.parquet": (parquet(TEXTS, pa.dictionary(pa.int32(), pa.string())), []),
}
"""Name -> how it is made, and options."""

MODES = {"stop": [], "skip": ["--on-error", "skip", "--max-bad", "60%"], "lenient": ["--lenient"]}

SAID = {
    "malformed.jsonl": {
        "stop": (4, "malformed.jsonl:2: not valid JSON: JSON is malformed: trailing comma in object (byte 12)"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 not-json): rejected.jsonl"),
    },
    "bytes.jsonl": {
        "stop": (4, "bytes.jsonl:2: not UTF-8: invalid continuation byte at byte 12 of the row"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 not-utf8): rejected.jsonl"),
        "lenient": (0, "documents 3 from 1 file; repaired 1 row: U+FFFD stands for what is no text"),
    },
    "half.jsonl.gz": {
        "stop": (4, "half.jsonl.gz:2: a \\ud800..\\udfff escape without its other half is no character"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 lone-surrogate): rejected.jsonl"),
        "lenient": (0, "documents 3 from 1 file; repaired 1 row: U+FFFD stands for what is no text"),
    },
    "twice.jsonl.zst": {
        "stop": (4, "twice.jsonl.zst:2: the field 'text' stands 2 times"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 duplicate-field): rejected.jsonl"),
    },
    "utf16.jsonl": {
        "stop": (4, "utf16.jsonl:1: not UTF-8: invalid start byte at byte 0 of the row"),
        "lenient": (4, "utf16.jsonl:1: not valid JSON: JSON is malformed: invalid character (byte 0)"),
    },
    "binary.jsonl": {"stop": (4, "binary.jsonl:1: not valid JSON: JSON is malformed: invalid character (byte 0)")},
    "element.json": {
        "stop": (4, "element.json:2: not valid JSON: JSON is malformed: invalid character (byte 8)"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 not-json): rejected.jsonl"),
    },
    "comma.json": {
        "stop": (4, "comma.json:3: not valid JSON: nothing stands there"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 not-json): rejected.jsonl"),
    },
    "bytes.json": {
        "stop": (4, "bytes.json:2: not UTF-8: invalid start byte at byte 9 of the row"),
        "skip": (
            4,
            "2 of 3 rows cannot be used, over --max-bad 60%, which is 1 here; most often lone-surrogate (1): ...",
        ),
        "lenient": (0, "documents 3 from 1 file; repaired 2 rows: U+FFFD stands for what is no text"),
    },
    "long.jsonl": {
        "stop": (4, "long.jsonl:2: the row is longer than 300 bytes"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 too-long): rejected.jsonl"),
    },
    "bytes.txt": {
        "stop": (4, "bytes.txt: document 1, byte 2: not UTF-8: invalid start byte"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 not-utf8): rejected.jsonl"),
        "lenient": (0, "documents 3 from 1 file; repaired 1 row: U+FFFD stands for what is no text"),
    },
    "whole.txt": {
        "stop": (4, "whole.txt: document 0, byte 3: not UTF-8: unexpected end of data"),
        "skip": (4, "1 of 1 rows cannot be used, over --max-bad 60%, which is 0 here; most often not-utf8 (1): ..."),
        "lenient": (0, "documents 1 from 1 file; repaired 1 row: U+FFFD stands for what is no text"),
    },
    "hole.parquet": {
        "stop": (4, "hole.parquet: row 1: 'text' is null"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 null): rejected.jsonl"),
    },
    "bytes.parquet": {
        "stop": (4, "bytes.parquet: row 1: 'text' is not UTF-8: invalid start byte at byte 1 of the value"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 not-utf8): rejected.jsonl"),
        "lenient": (0, "documents 3 from 1 file; repaired 1 row: U+FFFD stands for what is no text"),
    },
    "bytes.arrow": {
        "stop": (4, "bytes.arrow: row 1: 'text' is not UTF-8: invalid start byte at byte 1 of the value"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 not-utf8): rejected.jsonl"),
        "lenient": (0, "documents 3 from 1 file; repaired 1 row: U+FFFD stands for what is no text"),
    },
    "nested.parquet": {
        "stop": (4, "nested.parquet: row 1: 'messages' is not UTF-8: invalid start byte at byte 31 of the JSON of it"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 not-utf8): rejected.jsonl"),
        "lenient": (0, "documents 3 from 1 file; repaired 1 row: U+FFFD stands for what is no text"),
    },
    "ids.parquet": {
        "stop": (4, "ids.parquet: row 1: 'input_ids' holds a null"),
        "skip": (0, "documents 2 from 1 file; rejected 1 of 3 rows (1 null): rejected.jsonl"),
    },
    "cut.jsonl.gz": {"stop": (6, "cut.jsonl.gz: the file is damaged or cannot be read: Truncated compressed stream")},
    "cut.jsonl.zst": {"stop": (6, "cut.jsonl.zst: the file is damaged or cannot be read: Truncated compressed stream")},
    "tail.jsonl.gz": {"stop": (6, "tail.jsonl.gz: the file is damaged or cannot be read: zlib...")},
    "plain.jsonl.zst": {"stop": (6, "plain.jsonl.zst: the file is damaged or cannot be read: ZSTD...")},
    "open.json": {
        "stop": (
            6,
            "open.json: begins like a JSON array and is not one: it has no end; the last of its elements that is "
            "whole is number 1",
        )
    },
    "after.json": {
        "stop": (6, "after.json: begins like a JSON array and is not one: it goes on after its end, at byte 14")
    },
    "cut.parquet": {"stop": (6, "HERE/cut.parquet: not a readable Parquet file (...")},
    "empty.parquet": {"stop": (2, "empty.parquet: every input file is empty")},
    "footer.parquet": {"stop": (6, "HERE/footer.parquet: not a readable Parquet file (...")},
    "page.parquet": {"stop": (6, "page.parquet: the file is damaged or cannot be read: could not verify...")},
    "encrypted.parquet": {"stop": (6, "HERE/encrypted.parquet: not a readable Parquet file (...")},
    "cut.arrow": {
        "stop": (
            6,
            "cut.arrow: the file is damaged or cannot be read: the Arrow stream is cut short: it has no end mark",
        )
    },
    "number.parquet": {"stop": (2, "number.parquet: column 'text' is int64, not text; it has text (int64)")},
    "binary.parquet": {"stop": (2, "binary.parquet: column 'text' is binary, not text; it has text (binary)")},
    "rowless.parquet": {"stop": (2, "no document to pack: 0 read, 0 of them empty, 0 too long")},
    "other.jsonl": {"stop": (2, "other.jsonl: several fields could be the text: body (string), title (string)")},
    "blank.jsonl": {"stop": (2, "blank.jsonl: no record in it")},
    "two.jsonl.gz": {"stop": (0, "documents 400 from 1 file")},
    "two.jsonl.zst": {"stop": (0, "documents 400 from 1 file")},
    "view.parquet": {"stop": (0, "documents 200 from 1 file")},
    "large.parquet": {"stop": (0, "documents 200 from 1 file")},
    "dictionary.parquet": {"stop": (0, "documents 200 from 1 file")},
}
"""Name -> mode -> exit code and message; a mode that is not there is as stop.

At ... the words of a library follow, or an example.
"""


@pytest.fixture
def pack(tmp_path, monkeypatch, tokenizer_dir):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jinja").write_text(TEMPLATE)

    def run(name, mode):
        arguments = ["pack", name, "-w", "1", "--tokenizer", str(tokenizer_dir), "-o", mode, *FILES[name][1]]
        arguments += ["--tokenizer-engine", "tokenizers", *MODES[mode]]
        result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "300", "NO_COLOR": "1"})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        lines = [line.rstrip() for line in result.stderr.splitlines()]
        if result.exit_code:
            (first,) = (number for number, line in enumerate(lines) if line.startswith("error: "))
            shown = lines[first].removeprefix("error: ").replace(str(tmp_path), "HERE")
            return result.exit_code, shown, [line.strip() for line in lines[first + 1 :]]
        told = [
            re.sub(r" {2,}", " ", line) for line in lines if line.startswith(("documents ", "rejected ", "repaired "))
        ]
        return 0, "; ".join(told), []

    return run


@pytest.mark.parametrize("name", FILES)
def test_a_file_ends_as_it_should_in_every_mode(tmp_path, pack, name):
    """The table is what users read: a change of it is a change of what packcli says."""
    FILES[name][0](tmp_path / name)
    before = (tmp_path / name).read_bytes()
    found = {mode: pack(name, mode) for mode in MODES}
    said = {mode: (code, shown) for mode, (code, shown, _) in found.items()}
    for mode, (code, shown) in said.items():
        wanted_code, wanted = SAID[name].get(mode, SAID[name]["stop"])
        assert code == wanted_code, (mode, shown)
        assert shown.startswith(wanted[:-3]) if wanted.endswith("...") else shown == wanted, mode
    for mode, (code, _, rest) in found.items():
        assert (tmp_path / mode / "manifest.json").exists() == (code == 0)
        assert (tmp_path / mode / "rejected.jsonl").exists() == (code == 0 and "rejected" in said[mode][1])
        if code == 4:
            assert rest, "an excerpt, or what to do about it"
            assert "--" in rest[-1]
    assert (tmp_path / name).read_bytes() == before
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
