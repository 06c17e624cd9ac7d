"""In every Python that a test starts: no socket but those of this machine's own system. See conftest."""

import os
import socket
import sys


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook cannot be taken back, and what raises here cannot be passed over by `except Exception`."""
    if event == "socket.__new__" and arguments[1] in (socket.AF_INET, socket.AF_INET6):
        raise SystemExit(f"tests have no network: {sys.argv} opened a socket")
    if event == "socket.getaddrinfo":
        raise SystemExit(f"tests have no network: {sys.argv} looked up {arguments[0]!r}")


THIS_MACHINE, *OWN = os.environ.get("PACKCLI_TESTS_MAY_REACH", "").split(",")
"""`this machine`, and addresses that it has besides those of the loopback."""


def refuse_others(event: str, arguments: tuple[object, ...]) -> None:
    """For tests against a server on this machine."""
    address = arguments[1] if event == "socket.connect" else None
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", *OWN):
        raise SystemExit(f"tests reach this machine only: {sys.argv} tried {address}")


if THIS_MACHINE == "this machine":
    sys.addaudithook(refuse_others)
else:
    sys.addaudithook(refuse)
    socket.has_ipv6 = False  # urllib3, below huggingface_hub 0.x, opens a socket on import to see whether it is true
