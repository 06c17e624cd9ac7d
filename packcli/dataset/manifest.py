"""The manifest: what an output holds, sealed; written without holding it, read with its seal and its types checked."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from packcli.config.choices import FORMAT_VERSION
from packcli.dataset.fingerprint import config_of, fingerprint, is_sealed, write_sealed
from packcli.dataset.json_types import check_type
from packcli.dataset.paths import MANIFEST, SHARD_NAME, STATE_DIRECTORY, TRAIN, VALIDATION
from packcli.dataset.sidecar import Sidecar
from packcli.errors import OutputError, PackcliError, printable
from packcli.storage import Location
from packcli.storage.files import committed
from packcli.tokenization import TokenizerSpec

RECORD_KEYS = ("splits", "parts", "files", "sha256", "fingerprint")
"""Keys of the manifest beside those that describe the run."""

SPOOL_BYTES = 1 << 24
"""A list of the manifest that is longer waits on disk."""

DEPTH = 3
"""Objects are indented so deep: see files.to_json."""


class SpooledList:
    """A list of JSON objects that is written and read again in order, on disk once it is long."""

    def __init__(self, directory: Path | None) -> None:
        self._file = tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=None if directory is None else str(directory))  # noqa: SIM115 - see ManifestWriter.close

    def append(self, value: Any) -> None:
        """Adds an object at the end."""
        self._file.write((json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))

    def __iter__(self) -> Iterator[str]:
        """The JSON text of each."""
        self._file.seek(0)
        for line in self._file:
            yield line[:-1].decode("utf-8", "surrogatepass")

    def close(self) -> None:
        """Frees what it takes."""
        self._file.close()


class FileHashes:
    """Name -> sha256, in the order of adding; about 150 bytes a file in memory."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._digests = bytearray()

    def add(self, name: str, digest: bytes) -> None:
        """Adds a file."""
        self._names.append(name)
        self._digests += digest

    def items(self) -> Iterator[tuple[str, str]]:
        """Names and digests in hex."""
        for index, name in enumerate(self._names):
            yield name, self._digests[32 * index : 32 * index + 32].hex()


class ManifestWriter:
    """What the manifest lists: shards by split, parts, files.

    Args:
        directory: Where long lists wait; None is that for temporary files.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._spools: list[SpooledList] = []
        self._lists: dict[str, Any] = list_shards([])
        for name, value in self._lists.items():
            if isinstance(value, list):
                self._lists[name] = self._spool()
        self._sidecars = FileHashes()
        self.rejects: list[str] = []
        """Files of rejected rows, in the order of the parts."""
        self._rejects = FileHashes()

    def _spool(self) -> SpooledList:
        self._spools.append(SpooledList(self._directory))
        return self._spools[-1]

    def close(self) -> None:
        """Frees what it takes; see contextlib.closing."""
        for each in self._spools:
            each.close()

    def add(self, sidecar: Sidecar, digest: bytes) -> None:
        """Adds a part, after those before it, with the sha256 of its sidecar."""
        for name, value in list_shards([sidecar]).items():
            for key, entries in value.items() if isinstance(value, dict) else [(None, value)]:
                if key is not None and key not in self._lists[name]:
                    self._lists[name][key] = self._spool()
                spooled = self._lists[name] if key is None else self._lists[name][key]
                for each in entries:
                    spooled.append(each)
        self._sidecars.add(sidecar.file, digest)
        if sidecar.rejected is not None:
            self.rejects.append(sidecar.rejected.file)
            self._rejects.add(sidecar.rejected.file, bytes.fromhex(sidecar.rejected.sha256))

    def has_shards(self, split: str) -> bool:
        """Whether a part gave rows of the split."""
        return split in self._lists["splits"]

    def shards(self, split: str) -> Iterator[str]:
        """The files of a split, in row order."""
        for line in self._lists["splits"].get(split, ()):
            yield json.loads(line)["file"]

    def write(self, path: Location, run: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Commits the manifest, with the sha256 of all of it as its last key.

        Args:
            path: Where.
            run: What describe_run gave.
            files: Digests of the files beside shards and sidecars.
        """
        hashes = FileHashes()
        for name, digest in files.items():
            hashes.add(name, digest)
        for name, sha256 in (*self._rejects.items(), *self._sidecars.items()):
            hashes.add(name, bytes.fromhex(sha256))
        with committed(path) as file:
            write_sealed(file, _written({**run, **self._lists, "files": hashes}, DEPTH, ""))


def _written(value: Any, depth: int, indent: str) -> Iterator[str]:
    """The text of files.to_json, a bit at a time."""
    if isinstance(value, SpooledList):
        yield "["
        for number, line in enumerate(value):
            yield (", " if number else "") + line
        yield "]"
    elif isinstance(value, FileHashes) or (isinstance(value, dict) and value and depth):
        number = -1
        for number, (key, each) in enumerate(value.items()):
            yield (",\n" if number else "{\n") + f"{indent} {json.dumps(key)}: "
            yield from _written(each, depth - 1, f"{indent} ")
        yield f"\n{indent}}}"
    else:
        yield json.dumps(value, ensure_ascii=False)


class InputEntry(TypedDict):
    """An input file."""

    name: str
    num_bytes: int


class MergedEntry(TypedDict):
    """An output that a merged one is made of."""

    fingerprint: str
    sha256: str
    num_inputs: int
    num_units: int


class ComponentEntry(TypedDict):
    """A component of a mixture."""

    name: str
    share: float
    first_source: int
    num_sources: int
    num_documents: int
    num_tokens: int
    epochs: int
    threshold: int


class MixEntry(TypedDict):
    """A mixture."""

    tokens: int | None
    components: list[ComponentEntry]
    text_bytes: list[int]


class SettingsEntry(TypedDict):
    """The settings of the run that decide its bytes, defaults filled in; see PackConfig."""

    max_len: int
    strategy: str
    overlong: str
    max_docs_per_pack: int
    effort: str
    balance: bool
    seed: int
    isolate: bool
    columns: list[str]
    val_fraction: float
    allow_special: bool
    loss: str
    loss_on_eot: bool | None
    split_on: str | None
    on_error: str
    lenient: bool
    unit_bytes: int
    ragged: bool


class TemplateEntry(TypedDict):
    """A chat template."""

    name: str
    sha256: str
    date: str | None


class TextEntry(TypedDict):
    """What the text of a record is."""

    format: str
    fields: list[str] | dict[str, Any]
    """Of format text the names of fields, else part -> where it comes from."""
    chat_template: TemplateEntry | None


class TokenizerEntry(TypedDict):
    """The tokenizer; see TokenizerSpec."""

    name: str
    sha256: str
    vocab_size: int
    eos_token: str | None
    eos_id: int | None
    bos_token: str | None
    bos_id: int | None
    pad_token: str
    pad_id: int


class _Run(TypedDict):
    format_version: int
    config: SettingsEntry
    text: TextEntry
    max_line_bytes: int | None
    tokenizer: TokenizerEntry
    inputs: list[InputEntry]
    num_units: int
    fingerprint: str


class RunDescription(_Run, total=False):
    """What describes the run: the head of the manifest. The last two are there for such outputs only."""

    merged: list[MergedEntry]
    mix: MixEntry


class ShardEntry(TypedDict):
    """A shard: what ShardInfo holds, and the part that gave it."""

    file: str
    num_rows: int
    num_bytes: int
    sha256: str
    first_source: int
    unit: int
    part: int


class PartEntry(TypedDict):
    """A part of a unit."""

    unit: int
    part: int
    input_xxh3: str


class Manifest(RunDescription):
    """What a finished output says about itself, as JSON holds it. `read_manifest` has checked every type."""

    splits: dict[str, list[ShardEntry]]
    """The shards of each split, in row order."""
    parts: list[PartEntry]
    files: dict[str, str]
    """sha256 of every other file."""
    sha256: str
    """Of the manifest itself, without this line."""


def read_manifest(root: Location) -> Manifest:
    """The manifest of a finished output.

    Raises:
        OutputError: there is none, or it is not as it was written: names the file, and what in it is wrong.
    """
    try:
        return parse_manifest((root / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise _no_manifest(root) from None
    except ValueError as error:
        raise _damaged(root, error) from None


def read_head(root: Location) -> RunDescription:
    """What describes the run of a finished output. The lists that grow with it (shards, parts, files) stay unread.

    Raises:
        OutputError: as read_manifest; what comes after the head is not looked at.
    """
    head = _read_head(root / MANIFEST) if isinstance(root, Path) else None
    if head is None:
        return read_manifest(root)
    try:
        _check_head(head)
    except ValueError as error:
        raise _damaged(root, error) from None
    return cast(RunDescription, head)


def _no_manifest(root: Location) -> OutputError:
    state = "a run that is not finished" if (root / STATE_DIRECTORY).is_dir() else "not an output of packcli"
    return OutputError(f"{root}: no {MANIFEST}: {state}", "packcli pack makes one; the same command resumes one")


def _damaged(root: Location, error: ValueError) -> OutputError:
    return OutputError(f"{root / MANIFEST} {error}", "bring back the file, or pack again with --overwrite")


def parse_manifest(raw: bytes) -> Manifest:
    """The bytes of a manifest, read; raises ValueError, whose text says what is wrong: "is damaged: ..."."""
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is damaged: {printable(str(error))}") from None
    _check_head(values)
    check_type(values, Manifest)
    if not is_sealed(raw):
        raise ValueError("is not as it was written: its own sha256 does not hold")
    if values["fingerprint"] != fingerprint({name: values[name] for name in values if name not in RECORD_KEYS}):
        raise ValueError("was edited: the fingerprint is not that of the run it describes")
    for split, shards in values["splits"].items():
        if split not in (TRAIN, VALIDATION):
            raise ValueError(f"was edited: it has the split {split!r}")
        for number, shard in enumerate(shards):
            if not SHARD_NAME.fullmatch(shard["file"]):
                raise ValueError(f"was edited: splits.{split}[{number}].file is {shard['file']!r}, which is no shard")
    return cast(Manifest, values)


def _check_head(values: Any) -> None:
    """Raises ValueError when these values do not describe a run."""
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(f"has format version {version!r}; this packcli reads {FORMAT_VERSION}")
    check_type(values, RunDescription)
    if isinstance(values["text"]["fields"], list) != (values["text"]["format"] == "text"):
        raise ValueError("is damaged: text.fields is not that of text.format")
    try:
        config_of(values)
    except (PackcliError, LookupError, TypeError, ValueError) as error:
        what = error.message if isinstance(error, PackcliError) else str(error)
        raise ValueError(f"is damaged: config: {printable(what)}") from None


def tokenizer_of(manifest: Mapping[str, Any]) -> TokenizerSpec:
    """The tokenizer of an output, without a path: nobody knows from a manifest where it is."""
    return TokenizerSpec(**manifest["tokenizer"], path="", allow_special=manifest["config"]["allow_special"])


def _read_head(path: Path) -> Any:
    """The keys before `splits`, when the file is as we write it: no line within a value begins like that."""
    lines: list[bytes] = []
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.startswith(b' "splits": '):
                    return json.loads(b"".join(lines).rstrip().removesuffix(b",") + b"}")
                lines.append(line)
    except (OSError, ValueError, RecursionError):
        pass
    return None


def list_shards(sidecars: Sequence[Sidecar]) -> dict[str, Any]:
    """What the manifest says about every part: its shards by split, and what it read."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for sidecar in sidecars:
        for split, shard in sidecar.shards.items():
            entry = {**dataclasses.asdict(shard), "unit": sidecar.unit, "part": sidecar.part}
            splits.setdefault(split, []).append(entry)
    parts = [{"unit": each.unit, "part": each.part, "input_xxh3": each.input_xxh3} for each in sidecars]
    return {"splits": splits, "parts": parts}
