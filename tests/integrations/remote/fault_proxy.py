"""An HTTP proxy that answers in the place of a server, now and then wrongly."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from integrations.remote.serving import Handler, Server

FAULTS = ("500", "503", "reset", "cut", "lost")
"""Before the server hears of it: 500, 503 SlowDown, the line is cut. After: half the body, or no answer at all."""

Plan = Callable[[str, str, int], str | None]
"""(method, path, number of the request) -> a fault, "slow", "silent" (no answer, on a line that stays), or None."""

ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>injected</Message></Error>"


class FaultProxy:
    """Passes requests on to 127.0.0.1:port, and counts them by method."""

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.plan: Plan = lambda method, path, number: None
        self.counts: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.requests: list[tuple[str, str, str]] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        proxy = self

        class ThisHandler(Handler):
            def handle_any(self) -> None:
                proxy._handle(self)

        self._server = Server(ThisHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def close(self) -> None:
        self._closed.set()
        self._server.close()

    def reset(self, plan: Plan | None = None) -> None:
        """Begins to count anew, with another plan."""
        with self._lock:
            self.plan = plan or (lambda method, path, number: None)
            self.counts.clear()
            self.injected.clear()
            self.requests.clear()

    def random(self, seed: int, share: float, faults: tuple[str, ...] = FAULTS) -> Plan:
        """A share of the requests fails, each in a way that chance chooses."""
        chance = random.Random(seed)
        return lambda method, path, number: chance.choice(faults) if chance.random() < share else None

    def _handle(self, handler: Handler) -> None:
        body = handler.body()
        with self._lock:
            self.counts[handler.command] += 1
            self.requests.append((handler.command, handler.path, handler.headers.get("Range", "")))
            fault = self.plan(handler.command, handler.path, sum(self.counts.values()))
            if fault:
                self.injected[fault] += 1
        if fault == "silent":
            self._closed.wait(60)
        if fault in ("reset", "silent"):
            self._drop(handler)
            return
        if fault in ("500", "503"):
            code = b"InternalError" if fault == "500" else b"SlowDown"
            self._answer(handler, int(fault), [("Content-Type", "application/xml")], ERROR % code)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        headers = {
            name: value for name, value in handler.headers.items() if name.lower() not in ("connection", "expect")
        }
        headers.pop("Transfer-Encoding", None)
        headers["Content-Length"] = str(len(body))
        try:
            upstream.request(handler.command, handler.path, body=body, headers=headers)
            response = upstream.getresponse()
            data = response.read()
        except OSError:
            self._drop(handler)
            return
        finally:
            upstream.close()
        if fault == "lost":
            self._drop(handler)
            return
        kept = [
            (name, value)
            for name, value in response.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date")
        ]
        length = response.getheader("Content-Length")
        self._answer(handler, response.status, kept, data, length=length, how=fault)

    def _answer(
        self,
        handler: Handler,
        status: int,
        headers: list[tuple[str, str]],
        data: bytes,
        *,
        length: str | None = None,
        how: str | None = None,
    ) -> None:
        try:
            handler.send_response(status)
            for name, value in headers:
                handler.send_header(name, value)
            handler.send_header("Content-Length", length if handler.command == "HEAD" and length else str(len(data)))
            handler.end_headers()
            if handler.command == "HEAD":
                return
            if how == "cut":
                handler.wfile.write(data[: len(data) // 2])
                handler.wfile.flush()
                self._drop(handler)
            elif how == "slow":
                for first in range(0, len(data), 4096):
                    handler.wfile.write(data[first : first + 4096])
                    handler.wfile.flush()
                    time.sleep(0.01)
            else:
                handler.wfile.write(data)
        except OSError:
            handler.close_connection = True

    def _drop(self, handler: Handler) -> None:
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)
