"""Which shape the records of an input have, and from which fields the parts of that shape come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packcli.config import OPTIONAL, REQUIRED, is_template, split_mapping, template_fields
from packcli.errors import FieldError, UsageError, nearest, unknown_name

ALSO_CALLED = {"output": "response"}
"""Part -> another name that its field has in some data sets."""

_LIST_KINDS = ("array", "list", "large_list", "fixed_size_list")

JSON_IN_A_STRING = "string of JSON"
"""The kind of a field of messages that holds them as JSON in a string."""

LISTS = ("messages", "conversations", "input_ids")
"""Parts that are lists: a plain string in a field of that name does not give a format away."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a record are read, and how a document is made of them."""

    names: tuple[str, ...]
    """Fields to read; empty when all sources are .txt files."""
    template: str | None = None
    """For format text: a format string over the names; None takes the only field as it is."""
    format: str = "text"
    """A key of REQUIRED."""
    parts: tuple[tuple[str, str], ...] = ()
    """For the other formats: part -> field, or a template over fields (it has braces)."""
    optional: frozenset[str] = frozenset()
    """Those of the names that a record need not have."""
    has_messages: bool = False
    """Whether records hold messages: a chat template is needed."""

    def identity(self) -> dict[str, object]:
        """What the manifest and the fingerprint record of the fields."""
        if self.format == "text":
            return {"format": self.format, "fields": list(self.names), "template": self.template}
        return {"format": self.format, "fields": dict(self.parts)}


def detect(place: str, kinds: Mapping[str, str], mapped: Mapping[str, str]) -> str | None:
    """The format of records with these fields, given the parts that are mapped; None when no shape fits.

    Args:
        place: The name of the source, for messages.
        kinds: Field of its records -> kind.
        mapped: Part -> field or template, from --field.

    Raises:
        FieldError: several shapes fit.
    """
    for part in mapped:
        known = {name for format_ in REQUIRED for name in (*REQUIRED[format_], *OPTIONAL[format_])}
        if part not in known:
            raise unknown_name("part of a record", part, known)
    fitting = []
    for format_, required in REQUIRED.items():
        if not set(mapped) <= {*required, *OPTIONAL[format_]} or (mapped and not set(mapped) & set(required)):
            continue
        if all(part in mapped or _is_there(part, kinds) for part in required):
            fitting.append(format_)
    if len(fitting) > 1:
        named = " or ".join(f"{each} ({', '.join(REQUIRED[each])})" for each in fitting)
        raise FieldError(
            f"{place}: the records could be {named}",
            "choose with " + " or ".join(f"--format {each}" for each in fitting),
        )
    return fitting[0] if fitting else None


def _is_there(part: str, kinds: Mapping[str, str]) -> bool:
    for name in (part, ALSO_CALLED.get(part)):
        kind = kinds.get(name) if name is not None else None
        if kind is not None and (
            is_list(kind) or kind.startswith(JSON_IN_A_STRING) if part in LISTS else kind != "null"
        ):
            return True
    return False


def is_list(kind: str) -> bool:
    """Whether some records hold a list in a field of this kind."""
    return any(each.startswith(_LIST_KINDS) for each in kind.split(" or "))


def shaped_fields(place: str, kinds: Mapping[str, str], format_: str, mapped: Mapping[str, str]) -> Fields:
    """The fields of a format other than text.

    Raises:
        FieldError: a required part has no field.
        UsageError: --field names a part that the format does not have.
    """
    parts: list[tuple[str, str]] = []
    names: list[str] = []
    optional: set[str] = set()
    allowed = (*REQUIRED[format_], *OPTIONAL[format_])
    for part in mapped:
        if part not in allowed:
            raise UsageError(
                f"--field {part}=...: --format {format_} has no part {part!r}", f"it has {', '.join(allowed)}"
            )
    for part in allowed:
        source = mapped.get(part, part)
        if part not in mapped and part not in kinds and ALSO_CALLED.get(part) in kinds:
            source = ALSO_CALLED[part]
        used = template_fields(source, f"--field {part}=") if is_template(source) else (source,)
        required = part in REQUIRED[format_] or part in mapped
        for name in used:
            if required and name not in kinds:
                close = nearest(name, kinds)
                meant = f"; did you mean {close!r}?" if close else ""
                raise FieldError(
                    f"{place}: no field {name!r} for the {part} of --format {format_}{meant}",
                    f"map one with --field {part}=NAME; the record has {describe(kinds)}",
                )
            if not required:
                optional.add(name)
            if name not in names:
                names.append(name)
        parts.append((part, source))
    first_prompt = kinds.get(dict(parts).get("prompt", ""), "").split(" or ")[0]
    has_messages = format_ in ("chat", "sharegpt") or is_list(first_prompt)
    return Fields(tuple(names), None, format_, tuple(parts), frozenset(optional), has_messages)


def mapping(pairs: Sequence[str]) -> dict[str, str]:
    """--field options -> part -> field or template; raises UsageError for one without = or given twice."""
    sources: dict[str, str] = {}
    for pair in pairs:
        part, source = split_mapping(pair)
        if part in sources:
            raise UsageError(f"--field {part}=... is given twice", "keep one of them")
        sources[part] = source
    return sources


def describe(kinds: Mapping[str, str]) -> str:
    """The fields of a record, for messages."""
    return ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "nothing: the record is empty"
