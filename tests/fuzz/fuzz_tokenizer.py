"""Fuzzes the tokenizer loader: any tokenizer.json gives a PackcliError or a tokenizer that encodes.

pip install atheris
python tests/fuzz/fuzz_tokenizer.py -max_total_time=3600 [CORPUS]
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["packcli"]):
    from packcli.config import PackConfig
    from packcli.errors import PackcliError
    from packcli.tokenization import choose_engine, find_tokenizer

FOLDER = Path(tempfile.mkdtemp())

SEED = b"""{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{"id": 0, "content": "</s>",
"single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}], "normalizer": null,
"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
"post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
"use_regex": true}, "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
"end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
"vocab": {"</s>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]}}"""


def test_one_input(data: bytes) -> None:
    """Loads a tokenizer.json of these bytes, and encodes with it."""
    (FOLDER / "tokenizer.json").write_bytes(data)
    try:
        config = PackConfig(tokenizer=str(FOLDER), eos_token="</s>")
        choice = choose_engine(find_tokenizer(config, allow_network=False), "auto", ["ab ba </s>"])
        choice.engine.encode(["ab", "", "</s> a"])
    except PackcliError as error:
        if not str(error):
            raise


if __name__ == "__main__":
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(SEED)
    atheris.Setup([*sys.argv, str(corpus)], test_one_input)
    atheris.Fuzz()
