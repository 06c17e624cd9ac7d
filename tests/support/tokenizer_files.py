"""Small tokenizers, made as data, and `tokenizers` as an oracle: with its version 0.x and with 1.x alike.

`tiny_tokenizer.json` is a byte-level BPE of 300 tokens: <|endoftext|> 0, <|pad|> 1, <|im_start|> 2, <|im_end|> 3, the
bytes, and merges learned from a few words.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import tokenizers

TINY = Path(__file__).parent / "tiny_tokenizer.json"
SPECIAL = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>")

IS_0 = tokenizers.__version__.startswith("0.")


class Oracle:
    """What `tokenizers` says of a tokenizer.json; special tokens in a text are ordinary text unless `allow_special`."""

    def __init__(self, source: Path | str | dict[str, Any], *, allow_special: bool = False) -> None:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        text = json.dumps(text) if isinstance(text, dict) else text
        self._split, self._data = not allow_special, json.loads(text)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "tokenizer.json")
            path.write_text(text, encoding="utf-8")
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(os.fspath(path))
        if IS_0:
            self._tokenizer.encode_special_tokens = self._split

    def encode(self, text: str) -> Any:
        """An object with `ids` and `offsets`; no control token is added. 1.x gives no offsets: see Encoded."""
        if IS_0:
            return self._tokenizer.encode(text, add_special_tokens=False)
        encoding = self._tokenizer.encode(text, add_special_tokens=False, encode_special_tokens=self._split)
        return Encoded(encoding.ids, text, self._data["model"]["vocab"])

    def decode(self, ids) -> str:
        """Control tokens are written out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id, added ones too."""
        added = {token["content"]: token["id"] for token in self._data["added_tokens"]}
        return {**self._data["model"]["vocab"], **added}

    def token_to_id(self, token: str) -> int:
        """The id of a token."""
        return self.vocab[token]


class Encoded:
    """The ids of a text; the places of byte-level tokens are counted in bytes, for their ids spell the text."""

    def __init__(self, ids: list[int], text: str, vocab: dict[str, int]) -> None:
        self.ids, self._text, self._vocab = ids, text, vocab

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(start, end) of each token, in characters."""
        spelled = {number: len(token) for token, number in self._vocab.items()}
        at = [index for index, character in enumerate(self._text) for _ in character.encode()]
        places, place = [], 0
        for number in self.ids:
            places.append((at[place], at[place + spelled[number] - 1] + 1))
            place += spelled[number]
        return places


def with_controls(controls: list[str]) -> dict[str, Any]:
    """The tiny tokenizer with other control tokens, which have the first ids."""
    data = json.loads(TINY.read_text(encoding="utf-8"))
    old = data["model"]["vocab"]
    shift = len(controls) - len(SPECIAL)
    data["model"]["vocab"] = {token: number for number, token in enumerate(controls)} | {
        token: number + shift for token, number in old.items() if token not in SPECIAL
    }
    data["added_tokens"] = [added(token, number) for number, token in enumerate(controls)]
    return data


def added(content: str, number: int, *, special: bool = True, normalized: bool = False) -> dict[str, Any]:
    """An entry of `added_tokens`."""
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": normalized,
        "special": special,
    }


def sentencepiece(controls: list[str]) -> dict[str, Any]:
    """A BPE with byte fallback that marks words by U+2581, as Llama 2's: the control tokens have the first ids."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + [
        *"\u2581abdehnost",
        "\u2581a",
        "ab",
        "th",
        "the",
        "\u2581the",
    ]
    names = [*dict.fromkeys([*controls, "<unk>"])]
    vocab = {token: number for number, token in enumerate([*names, *pieces])}
    steps = [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    spaces = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(token, number) for number, token in enumerate(controls)],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": [["\u2581", "a"], ["a", "b"], ["t", "h"], ["th", "e"], ["\u2581", "the"]],
            "unk_token": "<unk>",
            "byte_fallback": True,
            "fuse_unk": True,
        },
    }
