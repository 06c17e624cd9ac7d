"""Which fields of the records are used, and as what. Where several could be meant, the user has to choose."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from packcli.config import OPTIONAL, REQUIRED, is_template, template_fields
from packcli.errors import FieldError, NoInputError, nearest
from packcli.readers.arrow_files import check_columns
from packcli.readers.shapes import Fields, describe, detect, is_list, mapping, shaped_fields
from packcli.readers.sources import Source
from packcli.readers.survey import joined, schema_of, survey

DEFAULT_FIELD = "text"

LABELS = (
    *("id", "_id", "uid", "uuid", "guid", "key", "index", "hash", "md5", "sha1", "sha256"),
    *("url", "uri", "link", "source", "origin", "path", "file", "filename", "name", "title", "author", "license"),
    *("date", "time", "timestamp", "created", "lang", "language", "version", "split", "subset"),
    *("category", "type", "label", "tag", "tags", "role"),
)
"""Names of fields that hold strings but hardly ever the text: such a field is the text only if the user names it."""

BINARY = ("binary", "large_binary", "fixed_size_binary")

MARKS = {
    "messages": ("role", "content"),
    "conversations": ("from", "value"),
    "input_ids": ("int",),
}
"""Part of a record -> words that stand in the kind (or column type) of a list which could be that part."""


def find_fields(
    sources: Sequence[Source],
    text_field: str | None,
    text_template: str | None,
    *,
    format_: str | None = None,
    mapped: Sequence[str] = (),
) -> Fields:
    """Resolves the record shape and its fields from the options, and from many records or schemas.

    Without options: the one shape that the records have (see survey). The text is the field `text`, or the only field
    that holds a string, if no other could be the text.

    Args:
        sources: What is to be read.
        text_field: The field that is the text.
        text_template: A format string that makes the text of several fields.
        format_: The shape; None finds it.
        mapped: `part=field`, or `part=template` with braces.

    Raises:
        FieldError: no such field; none or several that could be meant (the message lists what the records have); or
            several shapes.
        UsageError: a part that the format does not have.
        NoInputError: no source has a record.
    """
    parts = mapping(mapped)
    structured = [source for source in sources if source.format != "txt" and source.num_bytes]
    if not structured:
        if text_field or text_template or parts or format_ not in (None, "text"):
            raise FieldError(
                "--format, --field, --text-field and --text-template say nothing about .txt files", "leave them out"
            )
        return Fields(())
    read_schema = functools.cache(schema_of)  # a store is asked for each file once
    surveyed = list(survey(structured, read_schema))
    if not surveyed:
        others = ", nor in the others" * (len(structured) > 1)
        raise NoInputError(f"{structured[0].name}: no record in it{others}")
    source, kinds = surveyed[0]
    if format_ is None and not (text_field or text_template or parts):
        _refuse_several_shapes(surveyed)
    for _, more in surveyed[1:]:
        kinds = joined(kinds, more)
    fields = _resolve(source, kinds, sources, text_field, text_template, format_, parts)
    required = [name for name in fields.names if name not in fields.optional]
    for each, its_kinds in surveyed:
        if each.format == "json" and not each.skip_bad and not set(required) & set(its_kinds):
            raise FieldError(
                f"{each.name}: no field {' or '.join(map(repr, required))} in its records: {describe(its_kinds)}",
                "pack files of another shape on their own",
            )
    for each in structured:
        if each.format in ("parquet", "arrow"):
            check_columns(each, read_schema(each), fields)
    return fields


def _resolve(
    source: Source,
    kinds: dict[str, str],
    sources: Sequence[Source],
    text_field: str | None,
    text_template: str | None,
    format_: str | None,
    parts: dict[str, str],
) -> Fields:
    """The fields to use of records that have fields of these kinds; raises as find_fields does."""
    if text_field is not None or text_template is not None:
        format_ = "text"
    elif format_ is None:
        format_ = detect(source.name, kinds, parts)
        if format_ is None and not parts:
            _refuse_pairs(source, kinds)
        format_ = format_ or "text"
    if format_ == "text":
        if set(parts) - {"text"}:
            raise FieldError(
                f"{source.name}: no record shape has the parts {', '.join(parts)} and the fields {describe(kinds)}",
                "; ".join(f"{each}: {', '.join((*REQUIRED[each], *OPTIONAL[each]))}" for each in REQUIRED),
            )
        if "text" in parts:
            text_field, text_template = (None, parts["text"]) if is_template(parts["text"]) else (parts["text"], None)
        fields = _text_fields(source, kinds, text_field, text_template)
    else:
        if any(each.format == "txt" for each in sources):
            raise FieldError(f"--format {format_}: there are .txt files among the inputs", "pack them on their own")
        fields = shaped_fields(source.name, kinds, format_, parts)
    for name in fields.names:
        if any(each.format == "json" for each in sources) and any(mark in '"\\' or mark < " " for mark in name):
            raise FieldError(f"{source.name}: field {name!r} has a quote, backslash or control character in its name")
    return fields


def _text_fields(source: Source, kinds: dict[str, str], text_field: str | None, text_template: str | None) -> Fields:
    if text_template is not None:
        wanted = template_fields(text_template)
    else:
        wanted = (text_field,) if text_field is not None else (_choose(source, kinds),)
    for name in wanted:
        if name not in kinds:
            close = nearest(name, kinds)
            meant = f"; did you mean {close!r}?" if close else ""
            option = "--text-template" if text_template else "--text-field"
            raise FieldError(f"{source.name}: no field {name!r}{meant}", f"{option} can use {describe(kinds)}")
    return Fields(wanted, text_template)


def _refuse_several_shapes(surveyed: Sequence[tuple[Source, Mapping[str, str]]]) -> None:
    """Raises FieldError where the records of one file have another shape than those of another."""
    shapes: dict[str, Source] = {}
    for source, kinds in surveyed:
        shape = detect(source.name, kinds, {})
        if shape is not None:
            shapes.setdefault(shape, source)
    if len(shapes) > 1:
        (first, source), (second, other) = list(shapes.items())[:2]
        raise FieldError(
            f"{other.name}: records of another shape: {second}; those of {source.name} are {first}",
            "pack them on their own",
        )


def _refuse_pairs(source: Source, kinds: Mapping[str, str]) -> None:
    """Raises FieldError for preference pairs: whether to train on one answer or on both is for the user to say."""
    if "chosen" not in kinds or "rejected" not in kinds:
        return
    way = "--field messages=chosen" if is_list(kinds["chosen"]) else "--field prompt=prompt --field completion=chosen"
    raise FieldError(
        f"{source.name}: preference pairs (chosen, rejected), which packcli does not pack: {describe(kinds)}",
        f"{way} trains on the chosen answers alone",
    )


def _choose(source: Source, kinds: Mapping[str, str]) -> str:
    """The field that is the text: `text`, or the only one that holds a string where nothing else could be the text."""
    if "string" in kinds.get(DEFAULT_FIELD, "").split(" or "):
        return DEFAULT_FIELD
    strings = [name for name, kind in kinds.items() if kind == "string"]
    others = [name for name, kind in kinds.items() if _may_hold_text(kind)]
    if len(strings) == 1 and not others and strings[0].lower() not in LABELS:
        return strings[0]
    if not strings:
        what = "no field holds text"
    else:
        what = "several fields could be the text" if strings[1:] or others else "no field is surely the text"
    raise FieldError(f"{source.name}: {what}: {describe(kinds)}", "; ".join(_ways(kinds, strings)))


def _may_hold_text(kind: str) -> bool:
    """Whether a field of this kind, which is not plainly a string, might hold the text: then the user has to choose."""
    return kind == "null" or " or " in kind or is_list(kind) or kind.startswith(("object", "struct", "map", *BINARY))


def _ways(kinds: Mapping[str, str], strings: Sequence[str]) -> list[str]:
    """Options that the user may have meant, ready to be pasted into the command."""
    ways = []
    for name, kind in kinds.items():
        if is_list(kind):
            part = next((part for part, marks in MARKS.items() if all(mark in kind for mark in marks)), None)
            ways += [f"--field {part}={name}"] * (part is not None)
    ways += [f"--text-field {name}" for name in strings[:3]]
    if len(strings) > 1:
        example = "\\n".join("{" + name + "}" for name in strings[:2])
        ways.append(f"to join some, --text-template '{example}'")
        ways.append(f"for a prompt and its completion, --field prompt={strings[0]} --field completion={strings[1]}")
    return ways
