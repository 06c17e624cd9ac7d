"""What packcli, through huggingface_hub's HfFileSystem, asks of the Hub, in memory. Nothing can be written."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from integrations.remote.serving import Handler, Server

PAGE = 10
"""Entries of a listing; the Hub gives 1000."""

TOKEN = "hf_t0ken-of-the-tests"

MISSING = {
    "RepoNotFound": (401, "Invalid username or password."),  # so a private repository and none look the same
    "RevisionNotFound": (404, "Invalid rev id"),
    "EntryNotFound": (404, "Entry not found"),
    "GatedRepo": (403, "Access to this dataset is restricted. Visit its page to ask for access."),
}


class RefusedError(Exception):
    """An answer that is an error; its argument is a key of MISSING."""


@dataclass
class Repository:
    """Revisions, each with its files; `main` is one of them."""

    revisions: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    private: bool = False
    gated: bool = False


class FakeHub:
    """Repositories by path: datasets/me/mine, me/model."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        hub = self

        class ThisHandler(Handler):
            def handle_any(self) -> None:
                body = self.body().decode()
                try:
                    answer = hub.answer(self.command, self.path, self.headers, body)
                except RefusedError as error:
                    status, message = MISSING[str(error)]
                    answer = status, {"X-Error-Code": str(error), "X-Error-Message": message}, b"{}"
                self.answer(*answer)

        self._server = Server(ThisHandler)
        self.port = self._server.port

    def answer(self, method: str, url: str, headers: Any, body: str) -> tuple[int, dict[str, str], bytes]:
        split = urllib.parse.urlsplit(url)
        query = dict(urllib.parse.parse_qsl(split.query))
        if found := re.fullmatch(r"/cdn/(.+)/(\w+)", split.path):  # signed: knows no token
            assert "X-Amz-Signature" in query
            return self._range(*self._blob(found[1], found[2]), headers)
        found = re.fullmatch(
            r"/api/(datasets|models)/(\w+/\w+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?", split.path
        )
        if found:
            name = f"datasets/{found[2]}" if found[1] == "datasets" else found[2]
            what, revision = found[3] or "revision", urllib.parse.unquote(found[4] or "main")
            files = self._files(name, revision, headers)
            if what == "paths-info":
                asked = urllib.parse.parse_qs(body)["paths"]
                return self._json([_entry(files, path) for path in asked if _there(files, path)])
            if what == "revision":
                return self._json({"id": found[2], "sha": hashlib.sha1(revision.encode()).hexdigest(), "tags": []})
            entries = self._entries(files, urllib.parse.unquote(found[5] or ""), query.get("recursive") == "true")
            if not entries and found[5]:
                raise RefusedError("EntryNotFound")
            first = int(query.get("cursor", 0))
            link = {}
            if first + PAGE < len(entries):
                again = urllib.parse.urlencode({**query, "cursor": first + PAGE})
                link = {"Link": f'<http://{headers["Host"]}{split.path}?{again}>; rel="next"'}
            status, more, data = self._json(entries[first : first + PAGE])
            return status, {**more, **link}, data
        found = re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", split.path)
        if not found:
            return 404, {}, b"{}"
        path = urllib.parse.unquote(found[3])
        files = self._files(found[1], urllib.parse.unquote(found[2]), headers)
        if self.repositories[found[1]].gated:
            raise RefusedError("GatedRepo")
        if path not in files:
            raise RefusedError("EntryNotFound")
        etag = _blob_id(files[path])
        if not path.endswith((".jsonl", ".json")):  # large files are elsewhere
            return (
                302,
                {"Location": f"/cdn/{found[1]}/{etag}?X-Amz-Signature=s3cr3t", "X-Linked-Etag": f'"{etag}"'},
                b"",
            )
        return self._range(files[path], etag, headers)

    def _files(self, name: str, revision: str, headers: Any) -> dict[str, bytes]:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and headers.get("Authorization") != f"Bearer {TOKEN}"):
            raise RefusedError("RepoNotFound")
        if revision not in repository.revisions:
            raise RefusedError("RevisionNotFound")
        return repository.revisions[revision]

    def _blob(self, name: str, blob_id: str) -> tuple[bytes, str]:
        revisions = self.repositories[name].revisions.values()
        blobs = {_blob_id(data): data for files in revisions for data in files.values()}
        return blobs[blob_id], blob_id

    def _entries(self, files: dict[str, bytes], path: str, recursive: bool) -> list[dict[str, Any]]:
        """Of a folder what is in it; of a file itself."""
        if path in files:
            return [_entry(files, path)]
        found: dict[str, dict[str, Any]] = {}
        prefix = f"{path}/" if path else ""
        for name in sorted(name for name in files if name.startswith(prefix)):
            steps = name[len(prefix) :].split("/")
            for depth in range(1, len(steps)):
                folder = prefix + "/".join(steps[:depth])
                if depth == 1 or recursive:
                    found[folder] = _entry(files, folder)
            if len(steps) == 1 or recursive:
                found[name] = _entry(files, name)
        return list(found.values())

    def _json(self, content: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()

    def _range(self, data: bytes, etag: str, headers: Any) -> tuple[int, dict[str, str], bytes]:
        known = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        asked = headers.get("Range")
        if asked is None:
            return 200, known, data
        first, last = asked.removeprefix("bytes=").split("-")
        start, stop = int(first), int(last) + 1 if last else len(data)
        if start >= len(data):
            return 416, {**known, "Content-Range": f"bytes */{len(data)}"}, b""
        data, size = data[start:stop], len(data)
        return 206, {**known, "Content-Range": f"bytes {start}-{start + len(data) - 1}/{size}"}, data


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _there(files: dict[str, bytes], path: str) -> bool:
    return path in files or any(name.startswith(f"{path}/") for name in files)


def _entry(files: dict[str, bytes], path: str) -> dict[str, Any]:
    if path not in files:
        return {"type": "directory", "path": path, "oid": "0" * 40}
    return {"type": "file", "path": path, "size": len(files[path]), "oid": _blob_id(files[path])}
