"""Config and errors: without these tests a wrong option slips through, or loses its message on the way."""

import ast
import dataclasses
import re

import pytest
from bad_tomls import BAD_TOMLS

from packcli.config import (
    FORMATS,
    PackConfig,
    RunOptions,
    mixture,
    parse_count,
    parse_size,
    read_settings,
    read_toml,
    reading_rules,
    record_shapes,
    template_fields,
)
from packcli.config import settings as config
from packcli.config.choices import (
    COLUMN_SETS,
    COLUMNS,
    STRATEGY_ALIASES,
    canonical_strategy,
    resolve_columns,
)
from packcli.errors import UnknownNameError, UsageError

# One row for each check: (settings, what the message says, what the hint says).
BAD_PACK_CONFIGS = {
    "on_error": ({"on_error": "sikp"}, "--on-error 'sikp' is not known; did you mean 'skip'?", "known: skip, stop"),
    "strategy": (
        {"strategy": "bestfit"},
        "strategy 'bestfit' is not known; did you mean 'best-fit'?",
        "known: best-fit",
    ),
    "strategy of one's own": ({"strategy": "x.py:"}, "strategy 'x.py:' is no function", "path/to/file.py:function"),
    "sha256 of a strategy of ours": ({"strategy": "pad", "strategy_sha256": "a"}, "strategy_sha256 is for", "leave"),
    "column": ({"columns": "input_ids,lables"}, "column 'lables' is not known; did you mean 'labels'?", "known: all"),
    "columns without tokens": ({"columns": "labels"}, "the columns lack 'input_ids'", "--columns"),
    "max_len below 2": ({"max_len": 1}, "--max-len 1: a pack holds at least 2 tokens", "--max-len 2048"),
    "max_len too large": ({"max_len": 2**24 + 1}, "--max-len 16777217 is over 16777216", "smaller --max-len"),
    "overlong": (
        {"overlong": "trunc"},
        "overlong policy 'trunc' is not known; did you mean 'truncate'?",
        "known: drop",
    ),
    "max_docs_per_pack": (
        {"max_docs_per_pack": -1, "strategy": "pad"},
        "--max-docs-per-pack -1 is negative",
        "0 means",
    ),
    "max_docs_per_pack with concat": (
        {"max_docs_per_pack": 3, "strategy": "wrapped"},
        "--max-docs-per-pack cannot be kept by strategy 'concat'",
        "--strategy best-fit",
    ),
    "effort": (
        {"effort": "nromal"},
        "effort 'nromal' is not known; did you mean 'normal'?",
        "known: fast, max, normal",
    ),
    "balance with concat": (
        {"balance": True, "strategy": "wrapped"},
        "--balance cannot be kept by strategy 'concat', whose packs stand in the order of the input",
        "--strategy best-fit, shuffle-fit or pad",
    ),
    "balance with first-fit": (
        {"balance": True, "strategy": "ff"},
        "--balance cannot be kept by strategy 'first-fit'",
        "--strategy best-fit",
    ),
    "balance with next-fit": (
        {"balance": True, "strategy": "sequential"},
        "--balance cannot be kept by strategy 'next-fit'",
        "--strategy best-fit",
    ),
    "seed negative": ({"seed": -1}, "--seed -1 is not in 0..2^63-1", ""),
    "seed too large": ({"seed": 2**63}, "--seed 9223372036854775808 is not in 0..2^63-1", ""),
    "val_fraction of all": ({"val_fraction": 1.0}, "--val-fraction 1.0 is not in 0 <= F < 1", "0.01"),
    "val_fraction negative": ({"val_fraction": -0.1}, "--val-fraction -0.1 is not in 0 <= F < 1", "0.01"),
    "val_fraction not a number": ({"val_fraction": float("nan")}, "--val-fraction nan is not in 0 <= F < 1", "0.01"),
    "field and template": (
        {"text_field": "text", "text_template": "{text}"},
        "--text-field and --text-template are both given",
        "keep one",
    ),
    "template with a lone brace": ({"text_template": "{a"}, "--text-template '{a': ", "{{ or }}"),
    "template with a format": ({"text_template": "{a:>3}"}, "every placeholder is a plain field name", "{question}"),
    "template with a conversion": ({"text_template": "{a!r}"}, "every placeholder is a plain field name", "{question}"),
    "template with a nameless place": (
        {"text_template": "{}"},
        "every placeholder is a plain field name",
        "{question}",
    ),
    "template without a place": (
        {"text_template": "a {{b}}"},
        "--text-template 'a {{b}}' names no field",
        "{question}",
    ),
    "format": ({"format": "chats"}, "format 'chats' is not known; did you mean 'chat'?", "known: alpaca"),
    "field without =": ({"field": ("prompt",)}, "--field 'prompt' is not of the form PART=FIELD", "prompt=question"),
    "field with a wrong template": (
        {"field": ("prompt={a:>3}",)},
        "--field prompt='{a:>3}': every placeholder is a plain field name",
        "--field prompt=",
    ),
    "text_field and another format": (
        {"text_field": "a", "format": "chat"},
        "--text-field and --text-template are for --format text",
        "--field prompt=",
    ),
    "loss": ({"loss": "asistant"}, "loss 'asistant' is not known; did you mean 'assistant'?", "known: all"),
    "date": ({"date": "31.1.2026"}, "--date '31.1.2026' is not a date", "2026-01-31"),
    "date that is none": ({"date": "2026-02-30"}, "--date '2026-02-30' is not a date", "2026-01-31"),
    "split_on": ({"split_on": ""}, "--split-on is empty", "--split-on $"),
    "mix without a weight": ({"mix": ("a.jsonl",)}, "--mix 'a.jsonl' is not INPUT=WEIGHT", "--mix web.jsonl=0.7"),
    "mix naming an input twice": ({"mix": ("a=1", "a=2")}, "--mix names a twice", "one weight"),
    "tokens without a mixture": ({"tokens": 5}, "--tokens says how large a mixture is", "--mix web.jsonl=0.7"),
    "tokens": ({"tokens": 0, "mix": ("a=1",)}, "--tokens 0 is below 1", "--tokens 10B"),
    "unit_bytes": ({"unit_bytes": 1023}, "--unit-bytes 1023 is below 1024", "--unit-bytes 128MiB"),
}
BAD_RUN_OPTIONS = {
    "max_line_bytes": ({"max_line_bytes": 0}, "--max-line-bytes 0 is below 1", "use --max-line-bytes 64MiB"),
    "workers": ({"workers": -1}, "--workers -1 is negative", "0 takes every CPU"),
    "tokenizer_engine": (
        {"tokenizer_engine": "fasttokens"},
        "tokenizer engine 'fasttokens' is not known; did you mean 'fastokens'?",
        "known: auto, fastokens, tokenizers",
    ),
    "engine": ({"engine": "rya"}, "engine 'rya' is not known; did you mean 'ray'?", "known: auto, processes, ray"),
    "ray_address": ({"ray_address": "auto"}, "--ray-address auto without --engine ray", "give both, or neither"),
}


def write(folder, content):
    path = folder / "packcli.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("case", BAD_PACK_CONFIGS)
def test_pack_config_refuses(case):
    wrong, message, hint = BAD_PACK_CONFIGS[case]
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        PackConfig(**wrong)
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


@pytest.mark.parametrize("case", BAD_RUN_OPTIONS)
def test_run_options_refuse(case):
    wrong, message, hint = BAD_RUN_OPTIONS[case]
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        RunOptions(**wrong)
    assert hint in caught.value.hint


def test_every_raise_of_config_fires_in_a_test_above(tmp_path, monkeypatch):
    """A check without a row in a table could be wrong and nobody would know."""
    calls = [lambda wrong=row[0]: PackConfig(**wrong) for row in BAD_PACK_CONFIGS.values()]
    calls += [lambda wrong=row[0]: RunOptions(**wrong) for row in BAD_RUN_OPTIONS.values()]
    calls += [lambda text=row[0]: read_toml(write(tmp_path, text)) for row in BAD_TOMLS.values()]
    calls += [lambda: PackConfig(loss="completion").resolved("chat", "2026-01-31")]
    calls += [lambda: read_toml(tmp_path / "no.toml"), lambda: parse_size("many")]
    monkeypatch.chdir(tmp_path)
    calls += [lambda: read_settings(write(tmp_path, "[pack]\nstrategy = 'x.py:f'") and None, {})]
    calls += [lambda: parse_count("many"), lambda: reading_rules(PackConfig(), RunOptions(max_bad=1))]
    fired = {config.__file__: set(), record_shapes.__file__: set()}
    for call in calls:
        with pytest.raises(UsageError) as caught:
            call()
        for entry in caught.traceback:
            fired.setdefault(str(entry.path), set()).add(entry.lineno + 1)
    for module, number in ((config, 15), (record_shapes, 3), (mixture, 2)):
        with open(module.__file__, encoding="utf-8") as file:
            raises = [node for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.Raise)]
        assert len(raises) > number
        lines = fired[module.__file__]
        assert [node.lineno for node in raises if not lines & set(range(node.lineno, node.end_lineno + 1))] == []


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"max_len": 2},
        {"max_len": 2**24},
        {"seed": 2**63 - 1},
        {"val_fraction": 0.999},
        {"unit_bytes": 1024},
        {"max_docs_per_pack": 1, "strategy": "none"},
        {"columns": "input_ids"},
        {"effort": "fast"},
        {"effort": "max"},
        {"balance": True, "strategy": "best-fit"},
        {"balance": True, "strategy": "shuffle-fit"},
        {"balance": True, "strategy": "pad"},
        {"text_template": "{{{question}}}"},
    ],
    ids=str,
)
def test_pack_config_takes_the_edge_of_each_range(good):
    made = PackConfig(**good)
    for name, value in good.items():
        if name not in ("strategy", "columns"):
            assert getattr(made, name) == value


def test_configs_cannot_change_after_their_checks():
    for made in (PackConfig(), RunOptions()):
        name = dataclasses.fields(made)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, -1)
        with pytest.raises(TypeError):
            type(made)(3)  # fields go by name only
        assert not hasattr(made, "__dict__")


def test_a_key_of_the_toml_belongs_to_one_config_only():
    """read_toml puts the fields of both into one table."""
    pack, run = ({field.name for field in dataclasses.fields(each)} for each in (PackConfig, RunOptions))
    assert pack
    assert run
    assert not pack & run


def test_the_defaults_are_part_of_the_promise():
    """Same input, same bytes: another default is another output for the same command."""
    assert PackConfig().as_dict() == {
        "max_len": 2048,
        "strategy": None,
        "strategy_sha256": None,
        "overlong": None,
        "max_docs_per_pack": 0,
        "effort": "normal",
        "balance": False,
        "seed": 0,
        "isolate": True,
        "columns": ["input_ids", "labels", "position_ids", "seq_lengths", "sources"],
        "val_fraction": 0.0,
        "tokenizer": "builtin",
        "add_eos": None,
        "eos_token": None,
        "add_bos": None,
        "pad_token": None,
        "allow_special": False,
        "text_field": None,
        "text_template": None,
        "format": None,
        "field": [],
        "loss": None,
        "loss_on_eot": None,
        "chat_template": None,
        "date": None,
        "split_on": None,
        "on_error": "stop",
        "lenient": False,
        "mix": [],
        "tokens": None,
        "unit_bytes": 134217728,
    }


RESOLVED = {
    "text": ("concat", "split", "all", True, None),
    "prompt-completion": ("best-fit", "truncate", "completion", True, None),
    "chat": ("best-fit", "truncate", "assistant", False, False),
    "sharegpt": ("best-fit", "truncate", "assistant", False, False),
    "alpaca": ("best-fit", "truncate", "completion", True, None),
    "tokenized": ("best-fit", "truncate", "all", False, False),
}


@pytest.mark.parametrize("name", FORMATS)
def test_defaults_hang_on_the_record_shape(name):
    found = PackConfig().resolved(name, "2026-01-31")
    assert (found.strategy, found.overlong, found.loss, found.add_eos, found.add_bos) == RESOLVED[name]
    assert (found.format, found.date) == (name, "2026-01-31")
    assert found.masked == (name != "text")
    assert found.resolved(name, "1999-01-01") == found, "a resolved config stays what it is"
    chosen = PackConfig(strategy="pad", overlong="drop", loss="all", add_eos=False, add_bos=True, date="2025-02-03")
    assert chosen.resolved(name, "2026-01-31") == dataclasses.replace(chosen, format=name)


def test_labels_are_written_where_they_carry_a_mask():
    """compact leaves labels to the loader, which could not know a mask."""
    compact = PackConfig(columns="compact")
    assert compact.resolved("text", "2026-01-31").written_columns == ("input_ids", "seq_lengths")
    for name in FORMATS[1:]:
        resolved = compact.resolved(name, "2026-01-31")
        assert resolved.written_columns == ("input_ids", "labels", "seq_lengths")
        assert resolved.ragged


@pytest.mark.parametrize(
    ("wrong", "name", "message"),
    [
        ({"loss": "completion"}, "chat", "--loss completion: records of format chat have no such part"),
        ({"loss": "assistant"}, "text", "--loss assistant: records of format text have no such part"),
        ({"loss": "last-assistant"}, "alpaca", "--loss last-assistant: records of format alpaca"),
        ({"max_docs_per_pack": 3}, "text", "--max-docs-per-pack cannot be kept by strategy 'concat'"),
    ],
)
def test_what_the_record_shape_forbids(wrong, name, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        PackConfig(**wrong).resolved(name, "2026-01-31")


@pytest.mark.parametrize(("alias", "name"), STRATEGY_ALIASES.items())
def test_an_alias_is_stored_under_our_own_name(alias, name):
    """Two names of one strategy must be one fingerprint."""
    assert canonical_strategy(alias) == canonical_strategy(alias.upper()) == canonical_strategy(name) == name
    assert PackConfig(strategy=alias) == PackConfig(strategy=name)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ("all", COLUMNS),
        ("compact", ("input_ids", "seq_lengths")),
        ("compact,labels", ("input_ids", "labels", "seq_lengths")),
        (" labels , input_ids ", ("input_ids", "labels")),
        ("sources,input_ids,input_ids", ("input_ids", "sources")),
        (("labels", "input_ids"), ("input_ids", "labels")),
        (("compact", "sources"), ("input_ids", "seq_lengths", "sources")),
        (COLUMNS, COLUMNS),
    ],
)
def test_columns_come_in_the_order_of_the_format(names, columns):
    """Columns written in the order of the option would give other bytes for the same wish."""
    assert resolve_columns(names) == columns
    assert PackConfig(columns=names).columns == columns


@pytest.mark.parametrize("names", ["", "input_ids,,labels", "Labels"])
def test_a_column_that_is_not_known_is_named(names):
    with pytest.raises(UnknownNameError, match="column .* is not known"):
        resolve_columns(names)


def test_rows_are_ragged_when_labels_are_left_out():
    """A trainer that derives labels from input_ids would train on padding."""
    assert not PackConfig().ragged
    assert PackConfig(columns="compact").ragged
    assert PackConfig(columns="input_ids").ragged
    assert not PackConfig(columns="compact,labels").ragged
    assert all("labels" not in columns for name, columns in COLUMN_SETS.items() if name != "all")


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("{question}", ("question",)),
        ("{question}\n{answer}", ("question", "answer")),
        ("{b} {a} {b}", ("b", "a")),
        ("{{no}} {yes}", ("yes",)),
        ("{a.b}{c d}", ("a.b", "c d")),
    ],
)
def test_template_fields_in_order_of_appearance(template, fields):
    assert template_fields(template) == fields
