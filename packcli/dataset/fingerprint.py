"""What a run is, in JSON values: its description, the sha256 of that, and where two of them differ."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from packcli.config import PackConfig
from packcli.config.choices import FORMAT_VERSION, strategy_label
from packcli.readers import Source
from packcli.storage.files import to_json
from packcli.tokenization import TokenizerSpec

_SEAL = b',\n "sha256": "'


def describe_run(
    config: PackConfig, tokenizer: TokenizerSpec, sources: Sequence[Source], text: Mapping[str, Any], num_units: int
) -> dict[str, Any]:
    """What a run is, in JSON values; `fingerprint` is the sha256 of all the rest.

    The spelling of paths is not part of it: the tokenizer is its sha256, an input its name and size. (That
    an input of the same size holds the same rows is checked by `Output.changed_since`.)
    """
    settings = {**config.as_dict(), "columns": list(config.written_columns), "ragged": config.ragged}
    for name in ("tokenizer", "eos_token", "pad_token", "text_field", "text_template", "format", "field"):
        del settings[name]  # resolved: they stand under "tokenizer" and "text"
    for name in ("add_eos", "add_bos", "chat_template", "date", "mix", "tokens"):
        del settings[name]  # so are these
    sha256 = settings.pop("strategy_sha256")
    if sha256 is not None:  # code of the user's own: what it says counts, not where it lies
        settings["strategy"] = label = strategy_label(str(config.strategy))
        settings["strategy_sha256"] = {label: sha256}
    # Where a row over the limit ends the run, the limit decides no byte of the output.
    limit = sources[0].max_row_bytes if config.on_error == "skip" else None
    run = {
        "format_version": FORMAT_VERSION,
        "config": settings,
        "text": dict(text),
        "max_line_bytes": limit,
        "tokenizer": tokenizer.identity(),
        "inputs": [{"name": source.name, "num_bytes": source.num_bytes} for source in sources],
        "num_units": num_units,
    }
    return {**run, "fingerprint": fingerprint(run)}


def fingerprint(run: Mapping[str, Any]) -> str:
    """The sha256 of what a run is."""
    return hashlib.sha256(canonical(run)).hexdigest()


def first_difference(then: Any, now: Any, place: str = "") -> tuple[str, str, str] | None:
    """Where two descriptions of runs differ first, and both values as JSON; None when they are equal."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in (*then, *(key for key in now if key not in then)) if key != "fingerprint"]
        steps = [(f"{place}.{key}" if place else key, then.get(key), now.get(key)) for key in keys]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        steps = [(f"{place}[{index}]", *pair) for index, pair in enumerate(zip(then, now, strict=True))]
    else:
        return None if then == now else (place.removeprefix("config."), _shown(then), _shown(now))
    for step in steps:
        different = first_difference(step[1], step[2], step[0])
        if different is not None:
            return different
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}..."


def config_of(manifest: Mapping[str, Any]) -> PackConfig:
    """The settings of a manifest, whose columns are those written: a mask may have added labels.

    A strategy of the user's own is there by its label: nobody knows from a manifest where its code is.

    Raises:
        ValueError: they contradict one another.
    """
    settings = dict(manifest["config"])
    written, ragged = settings.pop("columns"), settings.pop("ragged")
    columns = tuple(name for name in written if not (ragged and name == "labels"))
    if "strategy_sha256" in settings:
        settings["strategy_sha256"] = dict(settings["strategy_sha256"])[settings["strategy"]]
    config = PackConfig(**settings, columns=columns, format=manifest["text"]["format"])
    if config.ragged is not ragged or list(config.written_columns) != written:
        raise ValueError(f"columns {written} and ragged {ragged}")
    return config


def canonical(value: Any) -> bytes:
    """The bytes of a JSON value that are hashed: the same whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


def write_sealed(file: IO[bytes], texts: Iterable[str]) -> None:
    """Writes the JSON text of an object, given bit by bit; its last key becomes the sha256 of the bytes before.

    Sidecars and the manifest end so. The seal is over bytes: to check it the values need not be written again.
    """
    digest, last = hashlib.sha256(), b""
    for text in texts:
        file.write(last)
        digest.update(last)
        last = text.encode("utf-8", "surrogatepass")
    last = last.removesuffix(b"\n}")
    digest.update(last)
    file.write(last + _SEAL + digest.hexdigest().encode() + b'"\n}\n')


def sealed_bytes(value: Mapping[str, Any]) -> bytes:
    """The file of an object, given as JSON values without a seal."""
    file = io.BytesIO()
    write_sealed(file, [to_json(dict(value))])
    return file.getvalue()


def is_sealed(raw: bytes) -> bool:
    """Whether a file is as write_sealed left it."""
    text, _, seal = raw.rpartition(_SEAL)
    return seal == hashlib.sha256(text).hexdigest().encode() + b'"\n}\n'
