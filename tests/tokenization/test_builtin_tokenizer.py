"""The tokenizer that packcli brings along: what is promised of it in its README, and that it can be made again."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_files import IS_0, Oracle

from packcli.config import PackConfig
from packcli.tokenization import TokenizerSpec, builtin, choose_engine, find_tokenizer, make_engine
from packcli.tokenization.builtin import train
from packcli.tokenization.guard import awkward_strings

HOME = Path(builtin.__file__).parent


@pytest.fixture(scope="module")
def spec() -> TokenizerSpec:
    return find_tokenizer(PackConfig(), allow_network=False)


@pytest.fixture(scope="module")
def tokenizer(spec: TokenizerSpec) -> Oracle:
    return Oracle(spec.load())


def tokens(tokenizer: Oracle, text: str) -> list[str]:
    return [tokenizer.decode([token]) for token in tokenizer.encode(text).ids]


def test_it_is_the_tokenizer_without_an_option(spec: TokenizerSpec) -> None:
    assert (spec.name, spec.vocab_size) == ("builtin", 32_768)
    assert (spec.eos_token, spec.eos_id) == ("<|endoftext|>", 0)
    assert (spec.pad_token, spec.pad_id) == ("<|pad|>", 1)
    assert (spec.bos_id, spec.needs_edit) == (None, False)


def test_the_file_is_the_one_that_the_readme_describes(spec: TokenizerSpec) -> None:
    """Other ids under the same version would make every dataset packed with it unreadable."""
    raw = (HOME / "tokenizer.json").read_bytes()
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(raw).hexdigest() == spec.sha256
    assert spec.sha256 in readme
    assert f"{len(raw):,}" in readme


def test_its_ids_are_dense_and_the_special_ones_come_first(spec: TokenizerSpec, tokenizer: Oracle) -> None:
    vocab = tokenizer.vocab
    assert sorted(vocab.values()) == list(range(32_768))
    assert [tokenizer.token_to_id(token) for token in train.SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert all(added["special"] for added in json.loads(spec.load())["added_tokens"])
    single = {token for token, index in vocab.items() if 4 <= index < 260}
    assert {len(token) for token in single} == {1}, "ids 4..259 are the bytes"


def test_the_fast_engine_is_exact_on_it(spec: TokenizerSpec) -> None:
    choice = choose_engine(spec, "auto", ["first text", "second text"])
    assert choice.engine.name == "fastokens"
    assert choice.reason.startswith("equal to tokenizers on 9")


@pytest.mark.parametrize("name", ["fastokens", "tokenizers"])
def test_every_awkward_string_decodes_to_itself(spec: TokenizerSpec, tokenizer: Oracle, name: str) -> None:
    texts = awkward_strings(json.loads(spec.load()))
    assert len(texts) > 900
    ids, offsets = make_engine(name, spec).encode(texts)
    for index, text in enumerate(texts):
        assert tokenizer.decode(ids[offsets[index] : offsets[index + 1]].tolist()) == text


@given(text=st.text(max_size=200))
def test_every_text_decodes_to_itself(tokenizer: Oracle, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1234567", ["123", "456", "7"]),
        ("3.14159", ["3", ".", "141", "59"]),
        ("x007y", ["x", "007", "y"]),
        ("2024-11-20", ["202", "4", "-", "11", "-", "20"]),
    ],
)
def test_digits_go_in_threes(tokenizer: Oracle, text: str, want: list[str]) -> None:
    assert tokens(tokenizer, text) == want


def test_every_number_of_up_to_three_digits_is_one_token(tokenizer: Oracle) -> None:
    numbers = [f"{n:0{width}d}" for width in (1, 2, 3) for n in range(10**width)]
    assert len(numbers) == 1110
    assert [number for number in numbers if len(tokenizer.encode(number).ids) != 1] == []


def test_no_token_is_longer_than_32_bytes(tokenizer: Oracle) -> None:
    longest = max(len(token) for token, index in tokenizer.vocab.items() if index >= 4)
    assert longest == train.MAX_TOKEN_BYTES


def test_the_template_and_the_config_are_those_of_train() -> None:
    assert (HOME / "chat_template.jinja").read_text(encoding="utf-8") == train.CHAT_TEMPLATE
    assert json.loads((HOME / "tokenizer_config.json").read_bytes()) == train.TOKENIZER_CONFIG


# --- train.py ---

ROWS = [f"the cat number {n} sat on the mat, and the dog ran after cat {n}" for n in range(60)]


def write_rows(root: Path) -> list[str]:
    data = b"".join(json.dumps({"text": row}).encode() + b"\n" for row in ROWS)
    (root / "a.jsonl").write_bytes(data[: len(data) // 2].rsplit(b"\n", 1)[0] + b"\n\n")
    (root / "b.jsonl.gz").write_bytes(gzip.compress(data))
    (root / "c.jsonl.zst").write_bytes(pa.compress(data, codec="zstd", asbytes=True))
    return [str(root / name) for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst")]


def test_train_makes_the_same_files_from_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "NUMBERS_REPEATED", 2)
    inputs = write_rows(tmp_path)
    made = []
    if not IS_0:
        with pytest.raises(ValueError, match=r"tokenizers 1\.x trains no tokenizer: pip install 'tokenizers<1'"):
            train.train(["abc"], 300)
        return
    for name in ("one", "two"):
        command = ["train.py", *inputs, "--vocab-size", "300", "--output", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", command)
        train.main()
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1]
    assert set(made[0]) == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    spec = find_tokenizer(PackConfig(tokenizer=str(tmp_path / "one")), allow_network=False)
    assert (spec.vocab_size, spec.eos_id, spec.pad_id) == (300, 0, 1)
    assert choose_engine(spec, "auto", ROWS).engine.name == "fastokens"


def test_train_reads_plain_and_compressed_rows(tmp_path: Path) -> None:
    for path in write_rows(tmp_path)[1:]:
        assert list(train.read_texts(Path(path), "text")) == ROWS
    assert len(list(train.read_texts(tmp_path / "a.jsonl", "text"))) == 30


@pytest.mark.parametrize("line", ['{"text": 1}', '{"other": "a"}', '{"text": "a"', "[1]"])
def test_train_names_a_bad_row(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}:3: no text in field 'text'")):
        list(train.read_texts(path, "text"))


def test_train_refuses_too_little_text() -> None:
    with pytest.raises(ValueError, match="tokens, not 300: too little text" if IS_0 else "trains no tokenizer"):
        train.train(["abc"], 300)
