"""Inputs of every format, on a disk and in a store."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq


def lines(first, count):
    rows = (
        {"text": f"document {number} of the cat and {'the dog ' * (number % 7)}"}
        for number in range(first, first + count)
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def make_inputs(folder):
    """A file of every format, plain JSONL and Parquet in several units; returns the folder."""
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines(0, 250))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines(250, 200), mtime=0))
    with pa.CompressedOutputStream(str(folder / "c.jsonl.zst"), "zstd") as file:
        file.write(lines(450, 100))
    table = pa.table({"text": [json.loads(line)["text"] for line in lines(550, 300).splitlines()], "n": range(300)})
    pq.write_table(table, folder / "d.parquet", row_group_size=50)
    with pa.ipc.new_stream(str(folder / "e.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "f.jsonl").write_bytes(lines(850, 20))
    return folder


def upload(folder, root):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (root / path.relative_to(folder).as_posix()).put(path.read_bytes())
    return root


REQUESTS = ("cat_file", "info", "ls", "find", "pipe_file", "put_file", "rm_file")


class Failing:
    """A file system whose request number `at` fails, and every one after it until `heal`."""

    def __init__(self, system, at):
        self._system, self.at, self.count, self.after = system, at, 0, False

    def __getattr__(self, name):
        method = getattr(self._system, name)
        if name not in REQUESTS:
            return method

        def request(*arguments, **settings):
            self.count += 1
            if self.at and self.count >= self.at:
                if self.after and name == "pipe_file":  # it came through; its answer did not come back
                    method(*arguments, **settings)
                raise OSError("the line is dead")
            return method(*arguments, **settings)

        return request
