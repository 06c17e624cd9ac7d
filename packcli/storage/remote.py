"""Objects of a store, by URL: look, list, read a range, put whole, delete."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from packcli.errors import StorageError, UsageError
from packcli.storage.filesystem import RANGE_STATUS, Entry, filesystem, persist, status_of, to_entry

Found = TypeVar("Found")

READ_ONLY = ("hf",)
"""Schemes that packcli only reads: on the Hub every file that is written is a commit of its own."""

_EXACTLY = {"hf": {"cache_type": "none"}}
"""Settings with which a file system fetches the requested range only. The one of the Hub would read 5 MiB ahead."""

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, order=True)
class RemotePath:
    """An object, or a prefix of objects. Whatever a method asks the store is asked anew: nothing is remembered.

    Raises, from any method:
        StorageError: the store does not answer, refuses, or fails again and again.
        UsageError: what speaks to this store is not installed.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}".rstrip("/")) if name else self

    @property
    def scheme(self) -> str:
        """s3, gs, hf or memory."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return posixpath.basename(self.url)

    @property
    def suffix(self) -> str:
        """The last suffix of the name."""
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> RemotePath:
        """The prefix that this is under."""
        return RemotePath(posixpath.dirname(self.url))

    @property
    def _key(self) -> str:
        from fsspec.core import strip_protocol

        return str(strip_protocol(self.url))

    def find(self) -> Entry | None:
        """What is there; None when nothing is."""
        system = filesystem(self.scheme)

        def look() -> Mapping[str, Any]:
            system.invalidate_cache()
            return dict(system.info(self._key))

        with contextlib.suppress(FileNotFoundError):
            return to_entry(persist(self.url, look))
        return None

    def stat(self) -> Entry:
        """What is there; raises FileNotFoundError."""
        entry = self.find()
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", self.url)
        return entry

    def exists(self) -> bool:
        """Whether there is an object of this name, or one under it."""
        return self.find() is not None

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        entry = self.find()
        return entry is not None and not entry.is_directory

    def is_dir(self) -> bool:
        """Whether there are objects under this name, and none of it."""
        entry = self.find()
        return entry is not None and entry.is_directory

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start..stop-1, exactly; raises FileNotFoundError, and StorageError when the object is shorter."""
        if stop <= start:
            return b""
        system, settings = filesystem(self.scheme), _EXACTLY.get(self.scheme, {})

        def read() -> bytes:
            try:
                data = bytes(system.cat_file(self._key, start=start, end=stop, **settings))
            except Exception as error:  # gcsfs has errors that are no OSError
                if status_of(error) == RANGE_STATUS:
                    self._refuse_shorter(stop)
                raise
            if len(data) != stop - start:
                self._refuse_shorter(stop)
                raise OSError(f"bytes {start} to {stop} were asked for, and {len(data)} came")
            return data

        return persist(self.url, read)

    def _refuse_shorter(self, size: int) -> None:
        if self.stat().size < size:
            raise StorageError(
                f"{self}: it has become shorter while it was read", "the same command looks at the input again"
            )

    def read_bytes(self) -> bytes:
        """All of it; raises FileNotFoundError."""
        system = filesystem(self.scheme)

        def read() -> bytes:
            try:
                return bytes(system.cat_file(self._key, start=0))  # without a start s3fs asks for the size first
            except Exception as error:  # gcsfs has errors that are no OSError
                if status_of(error) == RANGE_STATUS and not self.stat().size:  # a range of nothing
                    return b""
                raise

        return persist(self.url, read)

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of it as text."""
        return self.read_bytes().decode(encoding)

    def entries(self) -> dict[str, Entry]:
        """Objects and prefixes one level below, by name; empty when nothing is there."""
        system = filesystem(self.scheme)
        key = self._key

        def list_() -> list[Mapping[str, Any]]:
            system.invalidate_cache()
            return list(system.ls(key, detail=True))

        try:
            listing = persist(self.url, list_)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        by_key = {str(each["name"]).rstrip("/"): to_entry(each) for each in listing}
        return {posixpath.basename(each): entry for each, entry in by_key.items() if each != key.rstrip("/")}

    def iterdir(self) -> Iterator[RemotePath]:
        """Objects and prefixes one level below."""
        for name in self.entries():
            yield self / name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Objects one level below whose name fits the pattern."""
        for name, entry in self.entries().items():
            if fnmatch.fnmatchcase(name, pattern) and not entry.is_directory:
                yield self / name

    def tree(self) -> dict[str, Entry]:
        """Every object below, by URL, sorted: one listing, however deep."""
        system = filesystem(self.scheme)

        def list_() -> dict[str, Mapping[str, Any]]:
            system.invalidate_cache()
            return dict(system.find(self._key, detail=True))

        try:
            listing = persist(self.url, list_)
        except FileNotFoundError:
            return {}
        urls = {f"{self.scheme}://{key.lstrip('/')}": to_entry(each) for key, each in listing.items()}
        return {url: urls[url] for url in sorted(urls) if not urls[url].is_directory and not url.endswith("/")}

    def matches(self) -> dict[str, Entry]:
        """Every object and prefix, by URL, sorted, that this pattern means: * ? [] inside a name, ** across names."""
        below = RemotePath(posixpath.dirname(_MAGIC.split(self.url)[0]))
        if not below.url.partition("://")[2]:
            raise UsageError(f"{self}: a pattern in the name of the bucket", "name the bucket")
        entries = below.tree()
        for folder in {posixpath.dirname(url) for url in entries}:
            while len(folder) >= len(below.url):
                entries[folder] = Entry(0, "", is_directory=True)
                folder = posixpath.dirname(folder)
        pattern = _pattern(self.url)
        return {url: entries[url] for url in sorted(entries) if pattern.fullmatch(url)}

    def put(self, data: bytes) -> None:
        """Puts an object; it appears, or is replaced, when all of it is there."""
        system = filesystem(self.scheme)
        self._send(lambda: system.pipe_file(self._key, data))

    def put_file(self, path: str, size: int) -> None:
        """Puts the content of a local file, which has `size` bytes, in several requests when it is large."""
        system = filesystem(self.scheme)

        def put() -> None:
            try:
                system.put_file(path, self._key)
            except FileNotFoundError:
                if self._has_bucket():  # the answer to the last request of an upload was lost: it is there no more
                    raise OSError("the upload is there no more") from None
                raise
            if self.stat().size != size:
                raise OSError(f"{size} bytes were put, and {self.stat().size} are there")

        self._send(put)

    def create(self, data: bytes) -> bool:
        """Puts an object unless there is one; whether it was put. One of several who try at once succeeds.

        Where the store does not know conditional requests, what is there afterwards decides.
        """
        system = filesystem(self.scheme)

        def create() -> None:
            try:
                system.pipe_file(self._key, data, mode="create")
            except Exception:  # each store says in its own way that there is one
                if not self.is_file():
                    raise
                if self.read_bytes() != data:  # else: an earlier try came through, and only its answer was lost
                    raise FileExistsError(errno.EEXIST, "there is such an object", self.url) from None

        try:
            self._send(create)
        except FileExistsError:
            return False
        return self.read_bytes() == data

    def _has_bucket(self) -> bool:
        try:
            return RemotePath("/".join(self.url.split("/")[:3])).exists()
        except StorageError:  # nobody may look, so it is there
            return True

    def _send(self, request: Callable[[], None]) -> None:
        try:
            persist(self.url, request)
        except FileNotFoundError:
            bucket = posixpath.join(*self.url.split("/")[2:3])
            raise StorageError(f"{self}: there is no {bucket} to write to", "create the bucket first") from None

    def check_writable(self) -> None:
        """Raises UsageError for a store that packcli only reads."""
        if self.scheme in READ_ONLY:
            raise UsageError(
                f"{self}: packcli reads {self.scheme}:// and does not write there",
                "pack into a local directory, then upload it: hf upload REPO DIR --repo-type dataset",
            )

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes the object."""
        system = filesystem(self.scheme)
        try:
            persist(self.url, lambda: system.rm_file(self._key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a prefix is there when something is under it."""

    def rmdir(self) -> None:
        """Does nothing."""


def _pattern(url: str) -> re.Pattern[str]:
    """What glob.glob(recursive=True) means by a pattern: a name that begins with a dot is matched by a dot only."""
    parts = url.split("/")
    regex = ""
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part == "**":
            # At the end it is also the folder before it, as glob has it.
            regex = regex.removesuffix("/") + r"(?:/(?!\.)[^/]+)*" if is_last else regex + r"(?:(?!\.)[^/]+/)*"
            continue
        hidden = r"(?!\.)" if _MAGIC.match(part) else ""
        regex += hidden + "".join(map(_symbol_to_regex, re.findall(r"\[[^]]+\]|.", part))) + ("" if is_last else "/")
    return re.compile(regex)


def _symbol_to_regex(symbol: str) -> str:
    if len(symbol) > 1:
        inner = re.sub(r"([\\\[&~|])", r"\\\1", symbol[1:-1].removeprefix("!"))  # sets of sets mean something in re
        return f"[{'^' if symbol[1] == '!' else ''}{inner}]"
    return {"*": "[^/]*", "?": "[^/]"}.get(symbol) or re.escape(symbol)
