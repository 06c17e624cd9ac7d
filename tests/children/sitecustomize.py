"""In every Python that a test starts: no socket but those of this machine's own system. See conftest."""

import socket
import sys


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook cannot be taken back, and what raises here cannot be passed over by `except Exception`."""
    if event == "socket.__new__" and arguments[1] in (socket.AF_INET, socket.AF_INET6):
        raise SystemExit(f"tests have no network: {sys.argv} opened a socket")
    if event == "socket.getaddrinfo":
        raise SystemExit(f"tests have no network: {sys.argv} looked up {arguments[0]!r}")


sys.addaudithook(refuse)
