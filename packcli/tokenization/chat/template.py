"""Where a chat template comes from. Directories are read as data; a template is run in the sandbox only."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packcli.errors import StorageError, TokenizerError, unknown_name

TEMPLATE_FILE = "chat_template.jinja"
ADDITIONAL_TEMPLATES = "additional_chat_templates"
CHATML = "chatml"
CHATML_TURN = "<|im_start|>"
DEFAULT, TOOL_USE = "default", "tool_use"


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateSpec:
    """A chat template as a run uses it; picklable."""

    name: str
    """What the report calls it."""
    source: str
    """The Jinja text."""
    tools_source: str | None = None
    """The template for rows with tools, where the tokenizer has one of its own for them."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """bos_token, eos_token and the like, as the template sees them."""
    date: str = ""
    """YYYY-MM-DD: what strftime_now gives."""

    @property
    def sha256(self) -> str:
        """Of the Jinja text."""
        return hashlib.sha256("\0".join((self.source, self.tools_source or "")).encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """What the manifest and the fingerprint hold of it."""
        date = self.date if "strftime_now" in self.source + (self.tools_source or "") else None
        return {"name": self.name, "sha256": self.sha256, "variables": dict(self.variables), "date": date}


def find_template(wanted: str | None, directory: Path, tokenizer: str, date: str) -> TemplateSpec:
    """Resolves --chat-template.

    Args:
        wanted: A file, a name that the tokenizer knows, `chatml`, or None for the tokenizer's own.
        directory: Where the tokenizer.json is.
        tokenizer: Its name, for messages.
        date: What strftime_now gives, YYYY-MM-DD.

    Raises:
        TokenizerError: the tokenizer has no template.
        UnknownNameError: neither a file nor a name.
        StorageError: the file cannot be read.
    """
    variables = _variables(directory)
    if wanted is not None and ("/" in wanted or Path(wanted).is_file()):
        path = Path(wanted)
        if path.is_dir():
            path = path / TEMPLATE_FILE
        return TemplateSpec(name=path.name, source=_read(path), variables=variables, date=date)
    known = _templates(directory)
    if wanted == CHATML and CHATML not in known:
        source = (importlib.resources.files("packcli.tokenization") / "builtin" / TEMPLATE_FILE).read_text("utf-8")
        return TemplateSpec(name=CHATML, source=source, variables=variables, date=date)
    if wanted is not None:
        if wanted not in known:
            raise unknown_name("chat template", wanted, [*known, CHATML])
        return TemplateSpec(name=wanted, source=known[wanted], variables=variables, date=date)
    if DEFAULT not in known:
        names = f"; it has {', '.join(known)}" if known else ""
        raise TokenizerError(
            f"tokenizer {tokenizer} has no chat template{names}",
            f"give one with --chat-template FILE, or --chat-template {CHATML}",
        )
    return TemplateSpec(
        name=f"{tokenizer}'s own",
        source=known[DEFAULT],
        tools_source=known.get(TOOL_USE),
        variables=variables,
        date=date,
    )


def _templates(directory: Path) -> dict[str, str]:
    """Every template of a tokenizer directory by name: tokenizer_config.json, then the files, which win."""
    templates: dict[str, str] = {}
    template = _json(directory / "tokenizer_config.json").get("chat_template")
    if isinstance(template, str):
        templates[DEFAULT] = template
    elif isinstance(template, list):
        for each in template:
            if isinstance(each, dict) and isinstance(each.get("name"), str) and isinstance(each.get("template"), str):
                templates[each["name"]] = each["template"]
    elif isinstance(template, dict):
        templates |= {name: text for name, text in template.items() if isinstance(text, str)}
    if (directory / TEMPLATE_FILE).is_file():
        templates[DEFAULT] = _read(directory / TEMPLATE_FILE)
    additional = directory / ADDITIONAL_TEMPLATES
    if additional.is_dir():
        templates |= {path.stem: _read(path) for path in sorted(additional.glob("*.jinja"))}
    return templates


def _variables(directory: Path) -> dict[str, str]:
    """The special tokens that a template may name: those of both files; the later one wins."""
    variables: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        data = _json(directory / name)
        extra = data.get("extra_special_tokens")
        for key, value in [*data.items(), *(extra.items() if isinstance(extra, dict) else ())]:
            token = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(token, str):
                variables[key] = token
    return dict(sorted(variables.items()))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read: {error}", "mend or remove it") from None
    return data if isinstance(data, dict) else {}


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise StorageError(f"--chat-template {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TokenizerError(f"{path}: a chat template is UTF-8 text, and this is not") from None
