"""Fixtures of the tests in this folder."""

import pytest
from helpers import BUILTIN
from tokenizer_files import Oracle


@pytest.fixture(scope="module")
def builtin():
    return Oracle(BUILTIN)
