"""Fixtures of the tests in this folder."""

import shutil

import pytest
from helpers import SAMPLE
from outputs_to_verify import TINY, pack


@pytest.fixture(scope="module", autouse=True)
def tiny(tokenizer_dir):
    TINY.update(tokenizer=str(tokenizer_dir), tokenizer_engine="tokenizers")


@pytest.fixture(scope="module")
def original(tmp_path_factory, tiny):
    return pack(tmp_path_factory.mktemp("verify") / "out", val_fraction=0.2)


@pytest.fixture
def output(original, tmp_path):
    shutil.copytree(original, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def source(tmp_path):
    shutil.copy(SAMPLE, tmp_path / "docs.jsonl")
    return tmp_path / "docs.jsonl"
