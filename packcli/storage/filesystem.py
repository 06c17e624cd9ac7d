"""Requests to the stores: who speaks to them, what is tried again, and errors in our words. The door to fsspec."""

from __future__ import annotations

import datetime
import errno
import functools
import importlib
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from packcli.errors import StorageError, UsageError

Answer = TypeVar("Answer")

SCHEMES = {
    "s3": ("s3fs", "packcli[s3]"),
    "gs": ("gcsfs", "packcli[gcs]"),
    "hf": ("huggingface_hub", "huggingface_hub"),
    "memory": ("fsspec", "fsspec"),
}
"""Scheme -> the module that speaks to the store, and what to install for it. memory:// is of one process: for tests."""

TRIES = 2
"""How often a request is sent at most. The libraries of the stores try again themselves before it counts as failed."""

WAIT_S = 0.5
"""Pause before a request is sent again."""

SILENT_S = 60.0
"""A connection on which nothing arrived for so long counts as broken."""

VERSIONS = ("ETag", "generation", "etag", "blob_id", "md5Hash", "created", "mtime")
"""Keys under which stores report the version of an object; the first that is there counts. (Google's `etag` comes
late, since it changes also when only the labels of an object do.)"""

_TRIED = (("aiohttp", "ClientError"), ("requests", "RequestException"), ("google.auth.exceptions", "GoogleAuthError"))
"""Module and class of the errors without a status that gcsfs raises after it has tried for half a minute."""

_NO_CREDENTIALS = (
    ("botocore.exceptions", "NoCredentialsError"),
    ("botocore.exceptions", "PartialCredentialsError"),
    ("botocore.exceptions", "CredentialRetrievalError"),
    ("botocore.exceptions", "TokenRetrievalError"),
    ("botocore.exceptions", "SSOError"),
    ("google.auth.exceptions", "DefaultCredentialsError"),
    ("google.auth.exceptions", "RefreshError"),
)
"""Module and class of the errors that are raised when there are no credentials to send a request with."""

RANGE_STATUS = 416
"""The HTTP status that says that an object has none of the requested bytes."""

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "GOOGLE_TOKEN")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store says about an object."""

    size: int
    version: str
    """Changes when the object does: its ETag, generation or time."""
    is_directory: bool = False

    @property
    def st_size(self) -> int:
        """Bytes, under the name that os.stat gives them."""
        return self.size


@functools.cache
def filesystem(scheme: str) -> Any:
    """What speaks to the stores of a scheme, one a process. It finds credentials as the store's own tools do."""
    module, install = SCHEMES[scheme]
    import fsspec

    try:
        importlib.import_module(module)
        settings: dict[str, Any] = {"use_listings_cache": False} if scheme in ("s3", "gs") else {}
        if scheme == "gs":
            timeout = importlib.import_module("aiohttp").ClientTimeout
            settings["requests_timeout"] = timeout(sock_connect=SILENT_S, sock_read=SILENT_S)  # by default for ever
            logging.getLogger(module).addHandler(logging.NullHandler())  # it logs errors that we report as well
        system = fsspec.filesystem(scheme, **settings)
        if scheme == "s3":
            system.retries = TRIES  # on top of the five tries of botocore below it
        return system
    except ImportError as error:
        raise UsageError(
            f"{scheme}:// needs {module}, which is not installed ({error})", f"pip install '{install}'"
        ) from None
    except Exception as error:
        raise _failed(f"{scheme}://", error) from None


def to_entry(info: Mapping[str, Any]) -> Entry:
    """What a listing or a look at an object says, in any of the dialects of stores."""
    version = next((info[name] for name in VERSIONS if info.get(name) is not None), "")
    if isinstance(version, datetime.datetime):
        version = version.timestamp()
    return Entry(int(info.get("size") or 0), str(version), info.get("type") == "directory")


def persist(place: str, request: Callable[[], Answer]) -> Answer:
    """The answer to a request, which is tried again when it fails in a way that may pass."""
    for tried in range(1, TRIES + 1):
        try:
            return request()
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", place) from None
        except (FileExistsError, NotADirectoryError, StorageError, UsageError):
            raise
        except (TypeError, AttributeError, NameError, AssertionError):  # a bug, here or there
            raise
        except Exception as error:  # each library has errors of its own
            if tried == TRIES or _is_final(place, error):
                raise _failed(place, error) from None  # the cause might show a signed request
            time.sleep(WAIT_S * tried)
    raise AssertionError("unreachable")


def _is_final(place: str, error: Exception) -> bool:
    """Whether a request would fail again in the same way."""
    tried = place.startswith("gs://") and (status_of(error) is not None or _is_one_of(error, _TRIED))
    return tried or _is_refusal(place, error)


def _is_refusal(place: str, error: Exception) -> bool:
    """Whether a store wants other credentials, or any."""
    if isinstance(error, PermissionError) or status_of(error) in (401, 403) or _is_one_of(error, _NO_CREDENTIALS):
        return True
    # gcsfs makes of the status 403 an OSError that has these words and nothing else to tell it by. Should they change,
    # a refused request is sent twice, and the hint is a general one.
    return place.startswith("gs://") and type(error) is OSError and str(error).startswith("Forbidden")


def status_of(error: Exception) -> int | None:
    """The HTTP status of the answer that is behind an error; None when there was no answer, or nobody says."""
    for each in (error, error.__cause__):  # s3fs raises errors of Python's from those of botocore
        response = getattr(each, "response", None)
        if isinstance(response, Mapping):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:  # huggingface_hub and requests
            status = getattr(response, "status_code", None)
        status = status or getattr(each, "code", None) or getattr(each, "status", None)  # gcsfs; aiohttp
        if str(status).isdecimal():
            return int(str(status))
    return None


def _is_one_of(error: Exception, classes: Sequence[tuple[str, str]]) -> bool:
    """Whether an error is of one of these classes; one whose module nobody has imported has raised nothing."""
    kinds = (getattr(sys.modules.get(module), name, None) for module, name in classes)
    return any(isinstance(each, type) and isinstance(error, each) for each in kinds)


def _failed(place: str, error: Exception) -> StorageError:
    lines = str(error).strip().splitlines() or [""]
    reason = f"{type(error).__name__}: {lines[0]}" if lines[0] else type(error).__name__
    for name in _SECRETS:
        if len(secret := os.environ.get(name, "")) >= 8:  # a shorter one would hit ordinary words
            reason = reason.replace(secret, "***")
    reason = re.sub(r"\?[^ ]*", "?***", reason)  # the query of a URL may hold a signature
    if _is_refusal(place, error):
        hint = "packcli takes credentials from where the store's own tools do (environment, profile, role)"
    else:
        hint = "what is committed is kept: the same command resumes"
    return StorageError(f"{place}: {reason}", hint)
