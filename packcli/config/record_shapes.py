"""Record shapes: the parts of each, and which tokens may carry loss.

| format | parts (optional ones in brackets) |
|---|---|
| text | text |
| prompt-completion | prompt completion [tools chat_template_kwargs] |
| chat | messages [tools chat_template_kwargs] |
| sharegpt | conversations [system tools chat_template_kwargs] |
| alpaca | instruction output [input] |
| tokenized | input_ids [labels attention_mask loss_mask completion_mask assistant_masks] |

A part comes from the field of its own name, from another (`--field prompt=question`), or from several by a template
(`--field prompt='Question: {question}'`).
"""

from __future__ import annotations

import string

from packcli.errors import UsageError

FORMATS = ("text", "prompt-completion", "chat", "sharegpt", "alpaca", "tokenized")
"""Names of the record shapes, which --format takes."""

_CHAT_EXTRAS = ("tools", "chat_template_kwargs")
_MASKS = ("labels", "attention_mask", "loss_mask", "completion_mask", "assistant_masks")

REQUIRED: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "prompt-completion": ("prompt", "completion"),
    "chat": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "tokenized": ("input_ids",),
}
"""Format -> parts that every record has."""

OPTIONAL: dict[str, tuple[str, ...]] = {
    "text": (),
    "prompt-completion": _CHAT_EXTRAS,
    "chat": _CHAT_EXTRAS,
    "sharegpt": ("system", *_CHAT_EXTRAS),
    "alpaca": ("input",),
    "tokenized": _MASKS,
}
"""Format -> parts that a record may have."""

LOSSES = {
    "text": ("all",),
    "prompt-completion": ("completion", "all", "assistant", "last-assistant"),
    "chat": ("assistant", "last-assistant", "all"),
    "sharegpt": ("assistant", "last-assistant", "all"),
    "alpaca": ("completion", "all"),
    "tokenized": ("all",),
}
"""Format -> values of --loss that it takes; the first is the default."""


def is_template(source: str) -> bool:
    """Whether the value in --field PART=VALUE is a template over fields, and not the name of a field."""
    return "{" in source


def split_mapping(pair: str) -> tuple[str, str]:
    """'prompt=question' -> ('prompt', 'question'); raises UsageError."""
    part, equals, source = pair.partition("=")
    if not equals or not part or not source:
        raise UsageError(f"--field {pair!r} is not of the form PART=FIELD", "for example --field prompt=question")
    if "{" in source:
        template_fields(source, f"--field {part}=")
    return part, source


def template_fields(template: str, option: str = "--text-template ") -> tuple[str, ...]:
    """The field names of a text template, in order of appearance: '{question} {answer}' -> both names."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"{option}{template!r}: {error}", "write a literal brace as {{ or }}") from None
    fields: list[str] = []
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name or spec or conversion:
            raise UsageError(
                f"{option}{template!r}: every placeholder is a plain field name",
                f"for example {option}'{{question}}\\n{{answer}}'",
            )
        if name not in fields:
            fields.append(name)
    if not fields:
        raise UsageError(f"{option}{template!r} names no field", "for example '{question}\\n{answer}'")
    return tuple(fields)
