"""Fixtures of the tests in this folder."""

import pytest
from stored_inputs import make_inputs

import packcli
from packcli.storage import filesystem


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(filesystem, "WAIT_S", 0.0)


@pytest.fixture
def pack(tokenizer_dir):
    def run(inputs, output, **settings):
        settings = {
            "max_len": 64,
            "workers": 1,
            "unit_bytes": 6_000,
            "tokenizer": str(tokenizer_dir),
            "tokenizer_engine": "tokenizers",
            **settings,
        }
        return packcli.pack(
            [str(each) for each in inputs] if isinstance(inputs, list) else str(inputs), str(output), **settings
        )

    return run


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    """The inputs, in a folder."""
    return make_inputs(tmp_path_factory.mktemp("same") / "in")
