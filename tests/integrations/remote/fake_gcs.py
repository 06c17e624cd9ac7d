"""What packcli needs of the JSON API of Google Cloud Storage, in memory.

gcp-storage-emulator 2026.7 would not do: it passes over ifGenerationMatch, so everybody gets the lock; an empty object
is no 416 there, an object that is put again keeps its ETag, and listings have one page.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from integrations.remote.serving import Handler, Server

PAGE = 40
"""Entries of a listing; Google gives 1000."""

_GENERATIONS = itertools.count(1_700_000_000_000_000)


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Upload:
    """A resumable upload that goes on."""

    bucket: str
    name: str
    query: dict[str, str]
    data: bytearray = field(default_factory=bytearray)


class FakeGcs:
    """Buckets of objects: (bytes, generation). Anybody may read and write, unless the bucket is in `closed`."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, tuple[bytes, int]]] = {}
        self.closed: dict[str, int] = {}
        self.uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()
        store = self

        class ThisHandler(Handler):
            def handle_any(self) -> None:
                body = self.body()
                try:
                    with store._lock:
                        answer = store.answer(self.command, self.path, self.headers, body)
                except RefusedError as error:
                    content = {"error": {"code": error.status, "message": str(error)}}
                    answer = error.status, {}, json.dumps(content).encode()
                self.answer(*answer)

        self._server = Server(ThisHandler)
        self.port, self.close = self._server.port, self._server.close

    def answer(self, method: str, url: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        split = urllib.parse.urlsplit(url)
        query = dict(urllib.parse.parse_qsl(split.query))
        found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/([^/]+))?)?", split.path)
        assert found, f"not of this API: {method} {url}"
        door, bucket, key = found[1], urllib.parse.unquote(found[2]), found[3] and urllib.parse.unquote(found[3])
        if bucket in self.closed:
            code = self.closed[bucket]
            who = "Anonymous caller" if code == 401 else "someone@example.org"
            raise RefusedError(code, f"{who} does not have storage.objects access to the Google Cloud Storage bucket.")
        if bucket not in self.buckets:
            raise RefusedError(404, "The specified bucket does not exist.")
        objects = self.buckets[bucket]
        if door == "/upload":
            return self._upload(method, bucket, query, headers, body)
        if not split.path.endswith("/o") and key is None:
            return self._json({"kind": "storage#bucket", "name": bucket})
        if key is None:
            return self._json(self._list(bucket, query))
        if key not in objects:
            raise RefusedError(404, f"No such object: {bucket}/{key}")
        if method == "DELETE":
            del objects[key]
            return 204, {}, b""
        if door == "/download" or query.get("alt") == "media":
            return self._range(objects[key][0], headers.get("Range"))
        return self._json(self._resource(bucket, key))

    def _json(self, content: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()

    def _resource(self, bucket: str, key: str) -> dict[str, Any]:
        data, generation = self.buckets[bucket][key]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": key,
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "etag": base64.b64encode(f"{generation}/1".encode()).decode(),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
        }

    def _list(self, bucket: str, query: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        names: dict[str, bool] = {}
        for key in sorted(self.buckets[bucket]):
            if key.startswith(prefix) and key > query.get("pageToken", ""):
                head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                names[prefix + head + found if found else key] = bool(found)
        limit = min(PAGE, int(query.get("maxResults", PAGE)))
        page = dict(list(names.items())[:limit])
        answer: dict[str, Any] = {
            "kind": "storage#objects",
            "items": [self._resource(bucket, name) for name, is_prefix in page.items() if not is_prefix],
            "prefixes": [name for name, is_prefix in page.items() if is_prefix],
        }
        if len(names) > limit:
            last = list(page)[-1]
            answer["nextPageToken"] = last + "\U0010ffff" if page[last] else last
        return answer

    def _range(self, data: bytes, asked: str | None) -> tuple[int, dict[str, str], bytes]:
        if asked is None:
            return 200, {}, data
        first, last = asked.removeprefix("bytes=").split("-")
        start, stop = int(first), int(last) + 1 if last else len(data)
        if start >= len(data):
            return 416, {"Content-Type": "text/html"}, b"Request range not satisfiable"
        return 206, {"Content-Range": f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"}, data[start:stop]

    def _upload(
        self, method: str, bucket: str, query: dict[str, str], headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if "upload_id" in query:
            return self._go_on(method, query["upload_id"], headers, body)
        if query["uploadType"] == "multipart":
            boundary = re.search(r'boundary="([^"]+)"', headers["Content-Type"])
            assert boundary
            end = b"\r\n" if body.partition(b"\n")[0].endswith(b"\r") else b"\n"
            meta, data = (end + body).split(end + b"--" + boundary[1].encode())[1:3]
            return self._put(bucket, json.loads(meta.split(end * 2, 1)[1])["name"], data.split(end * 2, 1)[1], query)
        assert query["uploadType"] == "resumable"
        self._check(bucket, query["name"], query)
        number = f"upload{next(_GENERATIONS)}"
        self.uploads[number] = Upload(bucket, query["name"], query)
        place = f"http://{headers['Host']}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
        return 200, {"Location": place}, b""

    def _go_on(self, method: str, number: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if number not in self.uploads:
            raise RefusedError(404, "No such upload")
        upload = self.uploads[number]
        if method == "DELETE":
            del self.uploads[number]
            return 499, {}, b""
        first, size = map(int, re.match(r"bytes (\d+)-\d+/(\d+)", headers["Content-Range"]).groups())  # type: ignore[union-attr]
        there = len(upload.data)
        if first > there:
            raise RefusedError(503, "bytes are missing before these")
        upload.data += body[there - first :]  # what was there already is passed over
        if len(upload.data) < size:
            return 308, {"Range": f"bytes=0-{len(upload.data) - 1}"}, b""
        del self.uploads[number]
        return self._put(upload.bucket, upload.name, bytes(upload.data), upload.query)

    def _check(self, bucket: str, name: str, query: dict[str, str]) -> None:
        if query.get("ifGenerationMatch") == "0" and name in self.buckets[bucket]:
            raise RefusedError(412, "At least one of the pre-conditions you specified did not hold.")

    def _put(self, bucket: str, name: str, data: bytes, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        self._check(bucket, name, query)
        self.buckets[bucket][name] = (data, next(_GENERATIONS))
        return self._json(self._resource(bucket, name))
