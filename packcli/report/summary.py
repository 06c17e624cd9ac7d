"""Lines of the closing table, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packcli.config import REQUIRED


def describe_records(text: Mapping[str, Any]) -> str:
    """'prompt-completion (prompt from question, completion from answer)'."""
    fields = text["fields"]
    if text["format"] == "text":
        where = f"template {text['template']!r}" if text.get("template") else ", ".join(fields) or "whole files"
    else:
        needed = REQUIRED[text["format"]]
        parts = [(part, source) for part, source in fields.items() if part in needed or part != source]
        where = ", ".join(part if part == source else f"{part} from {source!r}" for part, source in parts)
    template = f"; template: {text['chat_template']['name']}" if text["chat_template"] else ""
    return f"{text['format']} ({where}){template}"
