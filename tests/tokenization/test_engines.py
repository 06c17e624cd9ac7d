"""Two engines, one answer: the same ids, and no text that spells a control token."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from packcli.config import PackConfig
from packcli.errors import TokenizerError, UnknownNameError
from packcli.tokenization import Engine, TokenizerSpec, find_tokenizer, make_engine
from packcli.tokenization.engines import ENGINES, ReferenceEngine
from packcli.tokenization.guard import awkward_strings

LITERALS = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
SPELLINGS = [
    spelling
    for literal in LITERALS
    for spelling in (
        literal,
        f" {literal} ",
        f"a{literal}b",
        literal * 3,
        f"\n{literal}\n",
        f"<|{literal}|>",
        f"{literal[:-1]}{literal}",
        f"é{literal}日",
        f"{literal}\x00",
        f"1{literal}2{LITERALS[0]}",
    )
]


@pytest.fixture(scope="module", params=["builtin", "tiny"])
def spec(request: pytest.FixtureRequest, tokenizer_dir: Path) -> TokenizerSpec:
    name = "builtin" if request.param == "builtin" else str(tokenizer_dir)
    return find_tokenizer(PackConfig(tokenizer=name), allow_network=False)


@pytest.fixture(scope="module")
def engines(spec: TokenizerSpec) -> dict[str, Engine]:
    return {name: make_engine(name, spec) for name in ENGINES}


def same(engines: dict[str, Engine], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """What both engines give, after a look that it is the same and has the promised form."""
    fast, reference = (engines[name].encode(texts) for name in ("fastokens", "tokenizers"))
    for ids, offsets in (fast, reference):
        assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
        assert (ids.ndim, offsets.shape) == (1, (len(texts) + 1,))
        assert (offsets[0], offsets[-1]) == (0, len(ids))
        assert (np.diff(offsets) >= 0).all()
    np.testing.assert_array_equal(fast[0], reference[0])
    np.testing.assert_array_equal(fast[1], reference[1])
    return fast


def test_both_give_the_same_ids_for_awkward_strings(spec: TokenizerSpec, engines: dict[str, Engine]) -> None:
    texts = awkward_strings(json.loads(spec.load()))
    assert len(texts) > 900
    ids, offsets = same(engines, texts)
    assert len(ids) > 5000
    assert (np.diff(offsets)[1:] > 0).all(), "only the empty text has no token"


@given(texts=st.lists(st.text(max_size=60), max_size=8))
def test_both_give_the_same_ids_for_any_text(engines: dict[str, Engine], texts: list[str]) -> None:
    same(engines, texts)


@given(texts=st.lists(st.text(" \t\n.,'stre1239é<|>", max_size=80), max_size=8))
def test_both_give_the_same_ids_for_texts_like_code(engines: dict[str, Engine], texts: list[str]) -> None:
    same(engines, texts)


def test_the_ids_of_a_text_do_not_depend_on_its_neighbours(engines: dict[str, Engine]) -> None:
    texts = ["the cat", "", " sat", "<|endoftext|>", "the cat", "日本語"]
    ids, offsets = same(engines, texts)
    for index, text in enumerate(texts):
        assert same(engines, [text])[0].tolist() == ids[offsets[index] : offsets[index + 1]].tolist()


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""], ["a", "", "b", ""]])
def test_no_texts_and_empty_texts(engines: dict[str, Engine], texts: list[str]) -> None:
    ids, offsets = same(engines, texts)
    assert len(ids) == sum(map(len, texts))
    assert np.diff(offsets).tolist() == [len(text) for text in texts]


def test_any_sequence_of_texts_is_taken(engines: dict[str, Engine]) -> None:
    for engine in engines.values():
        assert engine.encode(("a", "b"))[0].tolist() == engine.encode(["a", "b"])[0].tolist()


def test_engines_say_who_they_are(engines: dict[str, Engine]) -> None:
    """Name and version stand in the run log."""
    assert {name: engine.name for name, engine in engines.items()} == {name: name for name in ENGINES}
    assert engines["tokenizers"].version == tokenizers.__version__
    assert all(engine.version[0].isdigit() for engine in engines.values())


# --- special tokens written in the text ---


def test_no_spelling_gives_a_control_id(engines: dict[str, Engine]) -> None:
    """A document with <|endoftext|> in it would end itself, and begin another."""
    ids, offsets = same(engines, SPELLINGS)
    assert ids.min() >= len(LITERALS)
    assert (np.diff(offsets) > 3).all()


def test_allow_special_lets_them_through(spec: TokenizerSpec) -> None:
    allowed = dataclasses.replace(spec, allow_special=True)
    engines = {name: make_engine(name, allowed) for name in ENGINES}
    ids, offsets = same(engines, SPELLINGS)
    for index in range(len(SPELLINGS)):
        assert (ids[offsets[index] : offsets[index + 1]] < len(LITERALS)).any()
    assert same(engines, ["<|endoftext|><|im_end|>"])[0].tolist() == [0, 3]


CHILD = """
import pickle, sys
from packcli.tokenization import make_engine
spec = pickle.loads(sys.stdin.buffer.read())
for name in ("tokenizers", "fastokens"):
    print(name, min(make_engine(name, spec).encode(["a<|endoftext|>b <|im_start|>"])[0]))
"""


def test_a_worker_keeps_special_tokens_apart_too(tokenizer_dir: Path) -> None:
    """The switch is lost by pickling: a worker process must set it anew."""
    spec = find_tokenizer(PackConfig(tokenizer=str(tokenizer_dir)), allow_network=False)
    for allow_special, smallest in ((False, None), (True, 0)):
        told = dataclasses.replace(spec, allow_special=allow_special)
        child = subprocess.run([sys.executable, "-c", CHILD], input=pickle.dumps(told), capture_output=True, check=True)
        lines = [line.split() for line in child.stdout.decode().splitlines()]
        assert [name for name, _ in lines] == ["tokenizers", "fastokens"]
        assert all((int(least) == smallest) if allow_special else (int(least) > 3) for _, least in lines)


def test_a_library_that_forgets_the_switch_is_refused(spec: TokenizerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful:
        encode_special_tokens = property(lambda self: False, lambda self, value: None)

        @staticmethod
        def from_str(text: str) -> Forgetful:
            return Forgetful()

    monkeypatch.setattr(tokenizers, "Tokenizer", Forgetful)
    monkeypatch.setattr(tokenizers, "__version__", "0.99.0")  # 1.x is told at every call
    with pytest.raises(TokenizerError, match="cannot keep special tokens in text apart"):
        ReferenceEngine(spec, spec.load(), 1).encode(["a"])


# --- what is refused ---


def test_an_unknown_engine_names_the_nearest(spec: TokenizerSpec) -> None:
    with pytest.raises(UnknownNameError, match="'tokenizer' is not known; did you mean 'tokenizers'"):
        make_engine("tokenizer", spec)


def test_a_file_that_tokenizers_cannot_load_is_named(spec: TokenizerSpec) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizers \S+ cannot load it: "):
        make_engine("tokenizers", spec, text='{"model": {"type": "BPE", "vocab": {"a": 0}}}')
