"""A real S3 server on this machine (moto), and a proxy before it that breaks what passes through it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key-of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "2",  # five would take half a minute
    "PACKCLI_TESTS_MAY_REACH": "this machine",
}


@pytest.fixture(scope="session", autouse=True)
def blocked_sockets() -> Iterator[None]:
    """Instead of tests/conftest.py's: this machine may be reached, and no other."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):  # type: ignore[index]
            raise AssertionError(f"tests reach this machine only: {address}")
        connect(self, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield
