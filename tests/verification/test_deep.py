"""verify --deep: what only the inputs and the tokenizer can tell."""

import gzip
import json
import re
import shutil

import pytest
from helpers import SAMPLE
from outputs_to_verify import invoke, of_row, pack, rewrite_shard, wrong

from packcli.errors import UsageError
from packcli.verification import parse_sample, verify


@pytest.mark.parametrize("engine", ["auto", "tokenizers"])
def test_deep_finds_a_token_that_only_the_text_can_tell(tmp_path, source, engine):
    """The first token of a document has no label: no other column knows it."""
    output = pack(tmp_path / "out", source)
    rewrite_shard(output, "data-00001-000.arrow", of_row(2, "input_ids", 0, 7))
    assert wrong(output) == []
    ((file, what),) = wrong(output, deep=True, tokenizer_engine=engine)
    assert file == "data-00001-000.arrow"
    assert re.match(r"row 2: position 0 holds id 7, the text gives \d+", what)


def test_deep_finds_rows_exchanged_between_documents(tmp_path, source):
    output = pack(tmp_path / "out", source, max_len=2048)

    def exchange(rows):
        one, other = (
            next(source for row in rows for source in row["sources"] if source["row"] == number) for number in (2, 3)
        )
        one["row"], other["row"] = other["row"], one["row"]
        return rows

    rewrite_shard(output, "data-00000-000.arrow", exchange)
    assert wrong(output) == []
    assert len(wrong(output, deep=True)) >= 2


def test_a_sample_compares_a_part_of_the_parts(tmp_path, source):
    output = pack(tmp_path / "out", source)
    shards = len(list(output.glob("*.arrow")))
    assert shards == 6
    counts = [verify(output, deep=True, sample=(n, 3)).num_documents_compared for n in (1, 2, 3)]
    assert all(counts)
    assert sum(counts) == 300
    rewrite_shard(output, "data-00001-000.arrow", of_row(2, "input_ids", 0, 7))
    assert [bool(wrong(output, deep=True, sample=(n, 3))) for n in (1, 2, 3)] == [False, True, False]
    with pytest.raises(UsageError, match="the output has 6 parts"):
        verify(output, deep=True, sample=(7, 9))
    assert parse_sample("3/10") == (3, 10)
    for bad in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3"):
        with pytest.raises(UsageError, match="is not n/t"):
            parse_sample(bad)


def test_deep_finds_another_tokenizer_and_other_rows(tmp_path, source, tokenizer_dir):
    shutil.copytree(tokenizer_dir, tmp_path / "model")
    output = pack(tmp_path / "out", source, tokenizer=str(tmp_path / "model"))
    assert wrong(output, deep=True) == []
    text = (tmp_path / "model" / "tokenizer.json").read_text()
    (tmp_path / "model" / "tokenizer.json").write_text(text + "\n")
    ((file, what),) = wrong(output, deep=True)
    assert re.search(r"the tokenizer .*model/tokenizer.json is not that of the run: sha256 was", what)
    (tmp_path / "model" / "tokenizer.json").write_text(text)
    source.write_bytes(SAMPLE.read_bytes().replace(b"the", b"eht", 1))
    ((file, what),) = wrong(output, deep=True)
    assert file == "units/00000-000.json"
    assert "the rows of the inputs have changed: XXH3 was" in what
    source.write_bytes(SAMPLE.read_bytes() + b"\n")
    ((file, what),) = wrong(output, deep=True)
    assert re.fullmatch(r"input 0 \(docs\.jsonl\) has [\d,]+ bytes, had [\d,]+", what)


def test_against_says_which_documents_are_in_no_pack_and_why(tmp_path):
    rows = [{"text": "short"}, {"text": ""}, {"text": "word " * 300}, {"text": "last"}, {"text": ""}]
    source = tmp_path / "in" / "few.jsonl.gz"
    source.parent.mkdir()
    source.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    output = pack(tmp_path / "out", source, overlong="drop")
    verdict = verify(output, against=[str(source)])
    assert verdict.problems == []
    assert [(each.source, each.row, each.cause) for each in verdict.absent] == [
        ("few.jsonl.gz", 1, "empty"),
        ("few.jsonl.gz", 4, "empty"),
        ("few.jsonl.gz", 2, "overlong: 902 tokens"),
    ]
    moved = tmp_path / "moved.jsonl.gz"
    source.rename(moved)
    with pytest.raises(UsageError, match="the input is not there any more") as caught:
        verify(output, deep=True)
    assert "--against" in caught.value.hint
    assert len(verify(output, against=[str(moved)]).absent) == 3
    shown = invoke(output, "--against", moved)
    assert shown.exit_code == 0
    assert "in no pack: 2 documents, empty" in shown.stderr
    assert "few.jsonl.gz row 2" not in shown.stderr
    assert "moved.jsonl.gz row 2: overlong: 902 tokens" in shown.stderr


def test_a_document_that_is_missing_is_named(tmp_path, source):
    """Every hash is right, every row is right, and yet one document is not there."""
    output = pack(tmp_path / "out", source, strategy="pad", max_len=2048, unit_bytes=1 << 20)

    def lose(rows):
        return [row for row in rows if row["sources"][0]["row"] != 17]

    rewrite_shard(output, "data-00000-000.arrow", lose)
    found = wrong(output)
    assert ("units/00000-000.json", "num_documents_packed is not what the rows of its shards give") in found


def test_deep_needs_the_column_sources(tmp_path):
    output = pack(tmp_path / "out", columns="compact")
    with pytest.raises(UsageError, match="without the column `sources`"):
        verify(output, deep=True)
