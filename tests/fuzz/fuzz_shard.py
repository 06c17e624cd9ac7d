"""Fuzzes the shard reader: any bytes give problems or rows, never another exception.

pip install atheris
python tests/fuzz/fuzz_shard.py -max_total_time=3600 [CORPUS]
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["packcli"]):
    import packcli
    from packcli.dataset import check_files, run_schema
    from packcli.dataset.checks.rows import check_rows_of, rules_of

FOLDER = Path(tempfile.mkdtemp())
TARGET = FOLDER / "damaged.arrow"


def one_shard() -> Path:
    """A small output, whose only shard is where the fuzzer begins."""
    (FOLDER / "data.jsonl").write_text("".join('{"text": "the cat sat"}\n' for _ in range(20)))
    return packcli.pack(FOLDER / "data.jsonl", FOLDER / "out", max_len=16, workers=1, strategy="best-fit").output


OUTPUT = one_shard()
RECORD, _ = check_files(OUTPUT)
SCHEMA, RULES = run_schema(RECORD.config, RECORD.tokenizer), rules_of(RECORD)


def test_one_input(data: bytes) -> None:
    """What is wrong with a file of these bytes."""
    TARGET.write_bytes(data)
    for what in check_rows_of(TARGET, SCHEMA, RULES):
        assert what


if __name__ == "__main__":
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    (corpus / "shard").write_bytes(next(OUTPUT.glob("*.arrow")).read_bytes())
    atheris.Setup([*sys.argv, str(corpus)], test_one_input)
    atheris.Fuzz()
