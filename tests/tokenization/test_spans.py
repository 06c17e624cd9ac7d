"""Ids and masks of texts with spans, for tokenizers of every odd kind."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from helpers import BUILTIN
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_files import IS_0

from packcli import errors, tokenization
from packcli.config import PackConfig
from packcli.tokenization import MarkedText, SpanEncoder, read_vocabulary
from packcli.tokenization.offsets import _byte_places, _clusters, _monotone, load_whole

WORDS = st.lists(
    st.sampled_from([*"ab \n'1.<>|", "é", "日", "👩", "\u0301", "\u2581", "the", " and", "<|im_end|>"]), max_size=20
).map("".join)


def encoder_of(directory, engine="fastokens"):
    spec = tokenization.find_tokenizer(PackConfig(tokenizer=str(directory)), allow_network=False)
    made = tokenization.make_engine(engine, spec)
    return SpanEncoder(spec, made, tokenization.SpotCheck(spec, made), has_controls=True), spec


@pytest.fixture(scope="module")
def odd_tokenizers(tmp_path_factory):
    """The builtin one, and the same with NFC, with a space put in front, and in the form of SentencePiece."""
    root = tmp_path_factory.mktemp("odd")
    data = json.loads(BUILTIN.read_text(encoding="utf-8"))
    made = {"builtin": data}
    made["NFC"] = {**data, "normalizer": {"type": "NFC"}}
    step = {**data["pre_tokenizer"]}
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    steps = [{**each, "add_prefix_space": True} if each["type"] == "ByteLevel" else each for each in steps]
    if IS_0:  # 1.x does not load it, and says so
        made["prefix space"] = {**data, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + [
        "\u2581",
        "a",
        "b",
        "\u2581a",
        "ab",
        "é",
        "t",
        "h",
        "e",
        "th",
        "the",
    ]
    vocab = {"<unk>": 0, "<|endoftext|>": 1, "<|pad|>": 2, "<|im_end|>": 3}
    vocab |= {piece: number + 4 for number, piece in enumerate(pieces)}
    sentencepiece = {
        **data,
        "added_tokens": [
            {
                "id": vocab[name],
                "content": name,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for name in ("<|endoftext|>", "<|pad|>", "<|im_end|>")
        ],  # fmt: skip
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": [["\u2581", "a"], ["a", "b"], ["t", "h"], ["th", "e"]],
            "unk_token": "<unk>",
            "byte_fallback": True,
            "fuse_unk": True,
        },  # fmt: skip
    }
    made["prepend"] = sentencepiece
    made["metaspace first"] = {
        **sentencepiece,
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
    }
    encoders = {}
    for name, content in made.items():
        directory = root / name
        directory.mkdir()
        (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        names = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
        (directory / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
        encoders[name] = encoder_of(directory, "tokenizers" if name.startswith("meta") else "fastokens")
    return encoders


class Talk:
    """A text with control tokens: what a rendered chat is to the encoder."""

    has_literals = False

    def __init__(self, pieces, spans, control, number):
        self.parts, self.roles = [pieces[0].replace("<|im_end|>", "im_end")], []
        for piece in pieces[1:]:
            self.parts += [control, piece.replace("<|im_end|>", "im_end")]
        self.text, self.numbers = "".join(self.parts), [number] * (len(pieces) - 1)
        size = len(self.text)
        edges = sorted({min(edge, size) for edge in spans})
        self.spans = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False) if end > start]


ODD = ["builtin", "NFC", "prepend", "metaspace first"] + ["prefix space"] * IS_0


@pytest.mark.parametrize("name", ODD)
@settings(max_examples=30, derandomize=True)
@given(
    st.lists(
        st.tuples(st.lists(WORDS, min_size=1, max_size=4), st.lists(st.integers(0, 90), max_size=8)),
        min_size=1,
        max_size=4,
    )
)
def test_ids_and_masks_equal_those_of_tokenizers(odd_tokenizers, name, talks):
    """Cut at control tokens and counted in bytes, or encoded whole with offsets: the same."""
    encoder, spec = odd_tokenizers[name]
    number = read_vocabulary(spec).special["<|im_end|>"]
    talks = [Talk(pieces, spans, "<|im_end|>", number) for pieces, spans in talks]
    talks = [talk for talk in talks if talk.text]
    if not talks:
        return
    encoded = encoder.encode(talks)
    for index, talk in enumerate(talks):
        encoder.compare(talk, encoded, index)  # raises when ids or mask differ
        assert int(encoded.offsets[index + 1] - encoded.offsets[index]) > 0
    assert len(encoded.loss) == len(encoded.ids) == encoded.offsets[-1]


@pytest.mark.parametrize("name", ["builtin", "NFC", "prepend"])
@settings(max_examples=60, derandomize=True)
@given(WORDS.filter(bool), st.lists(st.integers(0, 40), min_size=2, max_size=2))
def test_masks_without_offsets_are_those_with_them(odd_tokenizers, name, text, edges):
    """tokenizers 1.x gives no offsets: how tokens spell the text must tell the same, e and its accent as one."""
    _, spec = odd_tokenizers[name]
    whole = load_whole(spec)
    found = whole._whole.places(text, split_special=True)
    ids = whole._whole.encode([text], split_special=True)[0]
    spelled = whole._spelled(text, ids)
    assert spelled is not None
    if found is None:  # 1.x itself: nothing to compare with
        return
    borders = [0, *itertools.accumulate(map(len, _clusters(text)))]
    begin, end = sorted(min(edge, len(borders) - 1) for edge in edges)
    at = np.array(_byte_places(text))
    with_offsets = [at[each] for each in _monotone(found[1])]
    masks = []
    for starts, ends in (with_offsets, spelled):
        first = np.searchsorted(ends, at[borders[begin]], side="right")
        masks.append((int(first), int(np.searchsorted(starts, at[borders[end]], side="left"))))
    assert masks[0] == masks[1] or begin == end


def test_a_wrong_engine_is_noticed(odd_tokenizers):
    """The comparison itself: it would be no proof if it passed anything."""
    encoder, _ = odd_tokenizers["builtin"]
    text = MarkedText("the cat sat on the mat", [(4, 11)])
    encoded = encoder.encode([text])
    encoder.compare(text, encoded, 0)
    with pytest.raises(errors.EngineError, match="mask differs"):
        encoder.compare(MarkedText(text.text, [(4, 15)]), encoded, 0)
    encoded = dataclasses.replace(encoded, ids=encoded.ids + 1)
    with pytest.raises(errors.EngineError, match="other ids"):
        encoder.compare(text, encoded, 0)
