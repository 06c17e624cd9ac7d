"""Where a tokenizer comes from, and its special tokens. Directories are read as data, nothing in them is run."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import importlib.resources
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packcli.config import PackConfig
from packcli.config.choices import BUILTIN_TOKENIZER
from packcli.errors import StorageError, TokenizerError, nearest

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILES = ("special_tokens_map.json", "tokenizer_config.json")
"""Where EOS, BOS and pad are named; the later file wins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerSpec:
    """A tokenizer as a run uses it. Small and picklable: workers read the file themselves and compare the sha256."""

    name: str
    """What the report calls it; never a path of this machine."""
    path: str
    """The tokenizer.json on this machine."""
    sha256: str
    """Of that file."""
    vocab_size: int
    """Ids are below this."""
    eos_token: str | None
    eos_id: int | None
    """What is appended to documents; None with --no-eos."""
    bos_token: str | None
    bos_id: int | None
    """What stands before documents; None when nothing does."""
    pad_token: str
    pad_id: int
    allow_special: bool
    """Whether special tokens written in the text become control tokens."""
    named_ids: tuple[int, ...] = ()
    """EOS, BOS and pad as the tokenizer names them, where records hold chats: there they are control tokens too."""
    needs_edit: bool = False
    """Whether the file must be changed in memory before it is loaded, see `load`."""

    def identity(self) -> dict[str, Any]:
        """What the manifest and the fingerprint hold of it."""
        names = ("name", "sha256", "vocab_size", "eos_token", "eos_id", "bos_token", "bos_id", "pad_token", "pad_id")
        return {name: getattr(self, name) for name in names}

    def load(self) -> str:
        """The text of the tokenizer.json, for an engine to load.

        Truncation and padding are taken out (they would lose tokens), and EOS, BOS and pad are marked
        special, so that no text can spell them.

        Raises:
            StorageError: the file has changed since the run began.
        """
        raw = _read(Path(self.path))
        if hashlib.sha256(raw).hexdigest() != self.sha256:
            raise StorageError(f"{self.path}: the tokenizer has changed during the run")
        if self.needs_edit:
            data = load_json(raw.decode())
            _edit(data, self.control_ids)
            return json.dumps(data)
        return raw.decode()

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that text must not spell."""
        ids = () if self.allow_special else (self.eos_id, self.bos_id, self.pad_id, *self.named_ids)
        return frozenset(each for each in ids if each is not None)


def _edit(data: dict[str, Any], control_ids: frozenset[int]) -> bool:
    """Makes the changes that `load` promises; returns whether there was any."""
    edited = bool(data.get("truncation") or data.get("padding"))
    data["truncation"] = data["padding"] = None
    for token in data.get("added_tokens") or []:
        if token["id"] in control_ids and not token.get("special"):
            token["special"] = edited = True
    return edited


def find_tokenizer(config: PackConfig, *, allow_network: bool) -> TokenizerSpec:
    """Resolves the tokenizer of a config.

    Args:
        config: tokenizer, eos_token, add_eos, add_bos, pad_token, allow_special.
        allow_network: Whether a hub name that is not in the cache may be fetched.

    Raises:
        TokenizerError: it is not there, is no tokenizer, or names no EOS.
    """
    path, name = _locate(config.tokenizer, allow_network)
    raw = _read(path)
    data = _parse(path, raw)
    try:
        return _resolve(config, path, name, raw, data)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:  # the file may hold any JSON
        raise TokenizerError(f"{path}: not a usable tokenizer.json: {error!r:.200}") from None


def _resolve(config: PackConfig, path: Path, name: str, raw: bytes, data: dict[str, Any]) -> TokenizerSpec:
    vocabulary = _vocabulary(path, data)
    special = _special_tokens(path.parent)

    eos_token = config.eos_token or special.get("eos_token")
    bos_token = special.get("bos_token")
    add_eos = config.add_eos is not False
    if add_eos and eos_token is None:
        raise TokenizerError(
            f"tokenizer {name}: it names no EOS token",
            f"give one with --eos-token, or --no-eos for none; {_candidates(data)}",
        )
    add_bos = config.add_bos
    if add_bos is None:
        add_bos = _asks_for_bos(data, special, bos_token)
    if add_bos and bos_token is None:
        raise TokenizerError(f"tokenizer {name}: --bos, but it names no BOS token", "leave --bos out")
    pad_token = config.pad_token or special.get("pad_token") or eos_token
    if pad_token is None:
        raise TokenizerError(f"tokenizer {name}: it names no pad token and no EOS", "give one with --pad-token")

    def id_of(token: str, option: str) -> int:
        if token not in vocabulary:
            close = nearest(token, (each["content"] for each in data.get("added_tokens") or []))
            meant = f"; did you mean {close!r}?" if close else ""
            raise TokenizerError(f"tokenizer {name} has no token {token!r}{meant}", f"{option}: {_candidates(data)}")
        return vocabulary[token]

    spec = TokenizerSpec(
        name=name,
        path=str(path),
        sha256=hashlib.sha256(raw).hexdigest(),
        vocab_size=max(vocabulary.values()) + 1,
        eos_token=eos_token if add_eos else None,
        eos_id=id_of(str(eos_token), "--eos-token") if add_eos else None,
        bos_token=bos_token if add_bos else None,
        bos_id=id_of(str(bos_token), "--no-bos") if add_bos else None,
        pad_token=pad_token,
        pad_id=id_of(pad_token, "--pad-token"),
        allow_special=config.allow_special,
        named_ids=tuple(vocabulary[token] for token in (eos_token, bos_token) if config.masked and token in vocabulary),
    )
    return dataclasses.replace(spec, needs_edit=_edit(data, spec.control_ids))


def _locate(tokenizer: str, allow_network: bool) -> tuple[Path, str]:
    if tokenizer == BUILTIN_TOKENIZER:
        return Path(str(importlib.resources.files("packcli.tokenization") / "builtin" / TOKENIZER_FILE)), tokenizer
    path = Path(tokenizer)
    if path.is_dir():
        if not (path / TOKENIZER_FILE).is_file():
            names = sorted(entry.name for entry in path.iterdir())[:8]
            raise TokenizerError(
                f"{tokenizer}: no {TOKENIZER_FILE} in this directory; it holds {', '.join(names) or 'nothing'}",
                "packcli reads the tokenizer.json of a model; save_pretrained of a fast tokenizer writes it",
            )
        _refuse_outside(path / TOKENIZER_FILE)
        return path / TOKENIZER_FILE, _name(path)
    if path.is_file():
        absolute = path.resolve()
        return path, _name(absolute.parent if absolute.name == TOKENIZER_FILE else absolute)
    if tokenizer.startswith((".", "/", "~")) or path.suffix == ".json" or tokenizer.count("/") > 1:
        close = nearest(path.name, (e.name for e in path.parent.iterdir())) if path.parent.is_dir() else None
        raise TokenizerError(
            f"--tokenizer {tokenizer}: no such file or directory" + (f"; did you mean {close}?" if close else "")
        )
    return _locate_on_hub(tokenizer, allow_network), tokenizer


def _refuse_outside(path: Path) -> None:
    """Raises TokenizerError when a file of a tokenizer's directory is a link that leads out of it.

    A directory from the internet could else have any file of this machine read.

    In the hub's cache such links lead to `blobs`, two directories up.
    """
    real, home = os.path.realpath(path), os.path.realpath(path.parent)
    blobs = os.path.join(os.path.dirname(os.path.dirname(home)), "blobs")
    if os.path.dirname(real) not in (home, blobs):
        raise TokenizerError(f"{path}: a link that leads out of its directory", "put a copy of the file in its place")


def _name(path: Path) -> str:
    return os.fsencode(path.resolve().name).decode("utf-8", "backslashreplace")


def _locate_on_hub(name: str, allow_network: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    def get(file: str) -> Path:
        if allow_network:
            return Path(huggingface_hub.hf_hub_download(name, file))
        # Not hf_hub_download: it asks the hub for a list of agents, even with local_files_only.
        cached = huggingface_hub.try_to_load_from_cache(name, file)
        if not isinstance(cached, str):
            raise FileNotFoundError(file)
        return Path(cached)

    try:
        path = get(TOKENIZER_FILE)
    except HFValidationError:
        raise TokenizerError(
            f"--tokenizer {name!r} is neither a file, nor a directory, nor a hub name", "or leave it out: builtin"
        ) from None
    except Exception as error:  # the hub raises errors of many libraries; all mean that it cannot be had
        if allow_network:
            raise TokenizerError(f"--tokenizer {name}: cannot be fetched from the hub: {error}") from None
        raise TokenizerError(
            f"--tokenizer {name}: no such file or directory, and not in the hub cache",
            "--allow-network lets packcli fetch it from the hub",
        ) from None
    for file in (*CONFIG_FILES, "chat_template.jinja"):
        try:
            get(file)
        except Exception:  # noqa: S112 - most repositories lack one of them
            continue
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None


def load_json(text: str) -> Any:
    """json.loads without garbage collection, which would visit the hundred thousand lists of merges again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text)
    finally:
        if was_enabled:
            gc.enable()


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    hint = "--tokenizer takes the tokenizer.json that tokenizers or transformers writes, or a directory with one"
    try:
        data = load_json(raw.decode())
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: not a tokenizer.json: {error}", hint) from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict) or "vocab" not in data["model"]:
        raise TokenizerError(f"{path}: JSON, but not a tokenizer.json: it has no model with a vocab", hint)
    return data


def _vocabulary(path: Path, data: Mapping[str, Any]) -> dict[str, int]:
    vocab = data["model"]["vocab"]
    try:
        ids = {piece: index for index, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
        for token in data.get("added_tokens") or []:
            ids[token["content"]] = token["id"]
        if set(map(type, ids.values())) != {int} or min(ids.values()) < 0 or max(ids.values()) >= 2**31:
            raise ValueError("ids must be integers in 0..2^31-1")
    except (ValueError, TypeError, KeyError) as error:
        raise TokenizerError(f"{path}: not a usable tokenizer.json: {error}") from None
    return ids


def _special_tokens(directory: Path) -> dict[str, Any]:
    """EOS, BOS, pad and add_bos_token, from the files beside the tokenizer.json."""
    special: dict[str, Any] = {}
    for name in CONFIG_FILES:
        path = directory / name
        if not os.path.isfile(path):
            continue
        _refuse_outside(path)
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError) as error:
            raise TokenizerError(f"{path}: cannot be read: {error}", "mend or remove it") from None
        if not isinstance(data, dict):
            raise TokenizerError(f"{path}: not a JSON object", "mend or remove it")
        for key in ("eos_token", "bos_token", "pad_token"):
            token = data.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                special[key] = token
        if isinstance(data.get("add_bos_token"), bool):
            special["add_bos_token"] = data["add_bos_token"]
    return special


def _asks_for_bos(data: Mapping[str, Any], special: Mapping[str, Any], bos_token: str | None) -> bool:
    """Whether documents begin with BOS by default.

    tokenizer_config.json says it, or else the template of the post-processor, when it begins with BOS."""
    if "add_bos_token" in special:
        return bool(special["add_bos_token"])
    post = data.get("post_processor") or {}
    for step in post.get("processors", [post]):
        if step.get("type") == "TemplateProcessing" and step.get("single"):
            first = step["single"][0].get("SpecialToken")
            return bool(first) and first["id"] == bos_token
    return False


def _candidates(data: Mapping[str, Any]) -> str:
    names = [token["content"] for token in data.get("added_tokens") or [] if token.get("special")]
    if not names:
        return "it has no special tokens"
    return f"its special tokens are {' '.join(names[:20])}" + (" ..." if len(names) > 20 else "")
