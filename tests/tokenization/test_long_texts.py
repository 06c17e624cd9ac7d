"""Long texts in pieces: the same ids as whole, wherever pieces are made; and no pieces where that is not proven."""

import copy
import json

import numpy as np
import pytest
from helpers import SAMPLE
from hypothesis import given
from hypothesis import strategies as st

from packcli.config import PackConfig
from packcli.tokenization import find_tokenizer, long_texts, make_engine
from packcli.tokenization.engines import ENGINES
from packcli.tokenization.long_texts import SAFE_PATTERNS, LongTextEngine, cut_text, may_cut

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPLIT = {"type": "Split", "pattern": {"Regex": SAFE_PATTERNS[1]}, "behavior": "Isolated", "invert": False}
DIGITS = {"type": "Digits", "individual_digits": True}
WITHOUT = {**BYTE_LEVEL, "use_regex": False}
KINDS = {
    "as it is": {},
    "GPT-2": {"pre_tokenizer": BYTE_LEVEL},
    "NeoX": {"pre_tokenizer": BYTE_LEVEL, "normalizer": {"type": "NFC"}, "spaces": True},
    "Qwen": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, WITHOUT]}},
    "digits": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [DIGITS, SPLIT, WITHOUT]}},
}


def tokenizer(kind, directory):
    """The tokenizer.json of a directory with another front."""
    data = json.loads((directory / "tokenizer.json").read_bytes())
    spaces = kind.get("spaces")
    data |= copy.deepcopy({key: value for key, value in kind.items() if key != "spaces"})
    if spaces:
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
        size = len(data["model"]["vocab"])
        data["added_tokens"] += [{"id": size + n, "content": " " * n, **plain} for n in range(2, 12)]
    return data


@pytest.fixture(scope="module", params=KINDS)
def engines(request, tmp_path_factory, tokenizer_dir):
    """(piecewise, the same without pieces) for each engine."""
    directory = tmp_path_factory.mktemp("model")
    data = tokenizer(KINDS[request.param], tokenizer_dir)
    assert may_cut(data)
    (directory / "tokenizer.json").write_text(json.dumps(data))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    spec = find_tokenizer(PackConfig(tokenizer=str(directory)), allow_network=False)
    names = ["tokenizers"] if request.param == "digits" else list(ENGINES)
    return [(make_engine(name, spec), ENGINES[name](spec, spec.load(), 1)) for name in names]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(long_texts, "LONG_CHARS", 8)
    monkeypatch.setattr(long_texts, "CHUNK_CHARS", 3)
    monkeypatch.setattr(long_texts, "CALL_CHARS", 40)


def same(engines, texts):
    for piecewise, whole in engines:
        ids, offsets = piecewise.encode(texts)
        expected_ids, expected_offsets = whole.encode(texts)
        np.testing.assert_array_equal(offsets, expected_offsets)
        np.testing.assert_array_equal(ids, expected_ids)
        assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)


WORDS = st.sampled_from(
    [
        "the",
        "cat",
        "I'll",
        "don't",
        "x",
        "é",
        "e\u0301",
        "日本",
        "한국",
        "Слово",
        "שלום",
        "12",
        "1234567",
        "²",
        "!",
        "...",
        ",\n",
    ]
    + [
        " ",
        "  ",
        "     ",
        "\n",
        "\r\n",
        "\n\n",
        "\t",
        "\u00a0",
        "\u3000",
        "\u2028",
        "'",
        "'s",
        "_",
        "<|endoftext|>",
        "👩‍👩‍👧",
        "\u0300",
    ]
)


@given(texts=st.lists(st.lists(WORDS, max_size=30).map("".join), max_size=4))
def test_pieces_give_the_ids_of_the_whole(engines, texts):
    same(engines, texts)


@given(texts=st.lists(st.text("ab \n'1é", max_size=40), max_size=4))
def test_pieces_of_few_characters_give_the_ids_of_the_whole(engines, texts):
    same(engines, texts)


def test_documents_in_pieces_give_the_ids_of_the_whole(engines):
    texts = [json.loads(line)["text"] for line in SAMPLE.read_text(encoding="utf-8").split("\n") if line][:60]
    assert sum(len(list(cut_text(text))) for text in texts) > 3000
    same(engines, texts)


def test_pieces_are_the_text_and_end_after_a_letter():
    assert list(cut_text("the cat sat on the mat")) == ["the cat", " sat", " on the", " mat"]
    assert list(cut_text("no. cut! here? 1 2 3 4 5 6")) == ["no. cut! here? 1 2 3 4 5 6"]
    assert list(cut_text("a")) == ["a"]
    assert "".join(cut_text("word " * 100)) == "word " * 100


UNSAFE = {
    "a normalizer that prepends": {"normalizer": {"type": "Prepend", "prepend": "_"}},
    "a normalizer that lowers": {"normalizer": {"type": "Lowercase"}},
    "no pre-tokenizer": {"pre_tokenizer": None},
    "bytes without a pattern": {"pre_tokenizer": WITHOUT},
    "another pattern": {"pre_tokenizer": {**SPLIT, "pattern": {"Regex": r"\w+\s"}}},
    "a pattern whose rest is dropped": {"pre_tokenizer": {**SPLIT, "behavior": "Removed"}},
    "a space before the text": {"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}},
    "metaspace": {"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}},
    "white space": {"pre_tokenizer": {"type": "Whitespace"}},
    "a token of two words": {"added_tokens": [{"id": 0, "content": "two words", "special": False}]},
    "a token that takes the space": {"added_tokens": [{"id": 0, "content": "w", "special": True, "lstrip": True}]},
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_is_not_proven_is_not_cut(name, tokenizer_dir):
    assert not may_cut(tokenizer(UNSAFE[name], tokenizer_dir))


def test_an_engine_is_not_asked_for_too_much_at_once(monkeypatch):
    """It does not hear Ctrl-C meanwhile."""

    class Engine:
        name, version, calls = "fake", "1", []

        def encode(self, texts):
            self.calls.append(list(texts))
            return np.zeros(len(texts), dtype=np.uint32), np.arange(len(texts) + 1)

    spec = find_tokenizer(PackConfig(), allow_network=False)
    texts = ["short", "x" * 100, "word " * 30, "", "last"]
    engine = LongTextEngine(Engine(), spec)
    ids, offsets = engine.encode(texts)
    assert "".join(text for call in Engine.calls for text in call) == "".join(texts)
    assert all(sum(map(len, call)) <= 40 or len(call) == 1 for call in Engine.calls)
    assert len(offsets) == len(texts) + 1
    assert offsets[-1] == len(ids) > len(texts)
