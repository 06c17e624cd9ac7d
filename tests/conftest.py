"""What every test has: no network, a steady hypothesis, and a tiny tokenizer."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from tokenizer_files import TINY

if TYPE_CHECKING:
    from packcli.storage import RemotePath

settings.register_profile(
    "packcli",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("packcli")


# pytest-socket holds this process; the processes that tests start are held by tests/support/children/sitecustomize.py.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "support" / "children"), *filter(None, [os.environ.get("PYTHONPATH")])]
)

_REFUSED: list[object] = []
"""Whatever a test tried to reach."""


@pytest.fixture(scope="session", autouse=True)
def blocked_sockets() -> Iterator[None]:
    """Refuses to look up or connect to a machine; sockets of the system itself (AF_UNIX) stay."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _REFUSED.append(address)
            raise OSError(f"tests have no network: {address}")
        connect(self, address)

    def refuse_name(host: object, *args: object, **settings: object) -> None:
        _REFUSED.append(host)
        raise OSError(f"tests have no network: {host}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket.socket, "connect_ex", refuse)
        patch.setattr(socket, "getaddrinfo", refuse_name)
        yield


@pytest.fixture(autouse=True)
def no_network(blocked_sockets: None) -> Iterator[None]:
    """Fails a test that went to the network, even when the code under test made nothing of the error."""
    _REFUSED.clear()
    yield
    assert not _REFUSED, f"went to the network: {_REFUSED}"


@pytest.fixture(scope="session", autouse=True)
def engines_loaded_once() -> Iterator[None]:
    """Loading the built-in tokenizer takes 0.4 s, which half of the tests would do; engines keep no state."""
    from packcli.tokenization import engines

    with pytest.MonkeyPatch.context() as patch:
        for name, load in engines.ENGINES.items():
            patch.setitem(engines.ENGINES, name, functools.lru_cache(maxsize=4)(load))
        yield


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 300 tokens with EOS 0, pad 1, BOS 2, in a directory as save_pretrained writes it."""
    directory = tmp_path_factory.mktemp("tokenizer")
    shutil.copy(TINY, directory / "tokenizer.json")
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "bos_token": "<|im_start|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(names))
    return directory


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[RemotePath]:
    """An empty bucket of memory://, which is one for the whole process; what fails is tried again at once."""
    from packcli.storage import RemotePath, filesystem

    monkeypatch.setattr(filesystem, "WAIT_S", 0.0)
    root = RemotePath(f"memory://bucket-{uuid.uuid4().hex}")
    yield root
    store = filesystem.filesystem("memory").store
    for key in [key for key in store if key.startswith(f"/{root.name}/")]:
        del store[key]
