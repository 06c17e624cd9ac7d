"""Config and errors: without these tests a wrong option slips through, or loses its message on the way."""

import ast
import dataclasses
import json
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli import errors
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
    EFFORTS,
    OVERLONG,
    STRATEGY_ALIASES,
    canonical_strategy,
    resolve_columns,
)
from packcli.errors import PackcliError, UnknownNameError, UsageError, nearest, unknown_name

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
BAD_TOMLS = {
    "not TOML": ("[pack", "not a TOML file"),
    "not UTF-8": (b"[pack]\ntokenizer = '\xff'", "not a TOML file"),
    "a key at top level": ("max_len = 3", "unknown 'max_len' at top level"),
    "a table at top level": ("[pack]\n[pakc]", "unknown 'pakc' at top level"),
    "pack is no table": ("pack = 3", "unknown 'pack' at top level"),
    "pack is a list": ("[[pack]]", "unknown 'pack' at top level"),
    "unknown key, nearest": ("[pack]\nmax_length = 3", "unknown key 'max_length'; did you mean 'max_len'?"),
    "unknown key of a run option, nearest": ("[pack]\nworker = 3", "unknown key 'worker'; did you mean 'workers'?"),
    "unknown key, nothing near": ("[pack]\nzzzzzz = 3", "unknown key 'zzzzzz'"),
    "a string for an integer": ("[pack]\nmax-len = '2048'", "max-len takes int, not '2048'"),
    "a float for an integer": ("[pack]\nmax_len = 2048.0", "max_len takes int, not 2048.0"),
    "a boolean for an integer": ("[pack]\nseed = true", "seed takes int, not True"),
    "an integer for a boolean": ("[pack]\nisolate = 1", "isolate takes bool, not 1"),
    "a string for an optional boolean": ("[pack]\nadd_bos = 'yes'", "add_bos takes bool, not 'yes'"),
    "a boolean for a float": ("[pack]\nval_fraction = true", "val_fraction takes float, not True"),
    "an integer for an optional string": ("[pack]\neos_token = 2", "eos_token takes str, not 2"),
    "a list for a string": ("[pack]\nstrategy = ['pad']", "strategy takes str, not ['pad']"),
    "a list of other things": ("[pack]\ncolumns = ['labels', 3]", "columns takes a string or a list of strings, not"),
    "a key in both spellings": ("[pack]\nmax-len = 3\nmax_len = 4", "max_len is given twice"),
    "no size": ("[pack]\nunit-bytes = 'many'", "unit-bytes: 'many' is not a size"),
    "a number for columns": ("[pack]\ncolumns = 3", "columns takes a string or a list of strings, not 3"),
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


@pytest.mark.parametrize("case", BAD_TOMLS)
def test_read_toml_refuses(case, tmp_path):
    content, message = BAD_TOMLS[case]
    path = write(tmp_path, content)
    with pytest.raises(UsageError, match=re.escape(f"{path}: {message}")):
        read_toml(path)


def test_read_toml_names_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=re.escape(f"{tmp_path / 'no.toml'}: No such file")) as caught:
        read_toml(tmp_path / "no.toml")
    assert "--config" in caught.value.hint


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


def test_read_toml_by_hand(tmp_path):
    """Dashes or underscores, options of both configs, an integer where a float is meant, columns in three ways."""
    text = "[pack]\nmax-len = 4096\nval_fraction = 0\nadd-bos = true\ncolumns = 'compact'\nworkers = 3\n"
    assert read_toml(write(tmp_path, text)) == {
        "max_len": 4096,
        "val_fraction": 0.0,
        "add_bos": True,
        "columns": "compact",
        "workers": 3,
    }
    assert isinstance(read_toml(write(tmp_path, text))["val_fraction"], float)
    assert read_toml(write(tmp_path, "[pack]\ncolumns = ['labels', 'input_ids']")) == {
        "columns": ("labels", "input_ids")
    }
    assert read_toml(write(tmp_path, "[pack]")) == read_toml(write(tmp_path, "")) == {}


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("64k", 64_000), ("64KiB", 65_536), (" 128 mib ", 2**27), ("1.5 GB", 1_500_000_000)],
)
def test_sizes(text, size, tmp_path):
    """Sizes of units decide what is packed together: 128MiB and 128MB are other bytes."""
    assert parse_size(text) == size
    assert read_toml(write(tmp_path, f"[pack]\nunit-bytes = '{text}'")) == {"unit_bytes": size}


@pytest.mark.parametrize("text", ["", "many", "-1", "1e3", "12 parsecs", "k", "1.k"])
def test_what_is_no_size_is_refused(text, tmp_path):
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)
    with pytest.raises(UsageError, match="is not a size"):
        read_toml(write(tmp_path, f"[pack]\nunit_bytes = '{text}'"))


def test_to_toml_by_hand():
    lines = PackConfig(max_len=64, strategy="bfd", eos_token='a"\\\n', split_on="\x7f😀é").to_toml().splitlines()
    assert lines[0] == "[pack]"
    assert "max_len = 64" in lines
    assert 'strategy = "best-fit"' in lines
    assert r'eos_token = "a\"\\\n"' in lines
    assert r'split_on = "\u007f😀é"' in lines
    assert "isolate = true" in lines
    assert 'columns = ["input_ids", "labels", "position_ids", "seq_lengths", "sources"]' in lines
    assert not any(line.startswith("pad_token") for line in lines)  # None: TOML has none


def test_to_toml_can_be_written_whatever_the_shell_passed():
    """A name that is not UTF-8 reaches us as a lone surrogate; a run must not fail on it at its very end."""
    assert b'text_field = "a\\udcff"' in PackConfig(text_field="a\udcff").to_toml().encode()


configs = (
    st.builds(
        PackConfig,
        max_len=st.integers(2, 2**24),
        strategy=st.sampled_from(sorted(STRATEGY_ALIASES)),
        overlong=st.sampled_from(OVERLONG),
        effort=st.sampled_from(EFFORTS),
        seed=st.integers(0, 2**63 - 1),
        isolate=st.booleans(),
        columns=st.sets(st.sampled_from(COLUMNS)).map(lambda names: (*names, "input_ids")),
        val_fraction=st.floats(0, 1, exclude_max=True),
        tokenizer=st.text(),
        add_eos=st.booleans(),
        eos_token=st.none() | st.text(),
        add_bos=st.none() | st.booleans(),
        pad_token=st.none() | st.text(),
        allow_special=st.booleans(),
        text_field=st.none() | st.text(),
        split_on=st.none() | st.text(min_size=1),
        unit_bytes=st.integers(1024, 2**50),
    )
    | st.builds(
        PackConfig,
        strategy=st.sampled_from(["bfd", "ffs", "ff", "sequential", "none"]),
        max_docs_per_pack=st.integers(0, 2**40),
        text_template=st.none() | st.just("{a}\n{{}}\t{b}"),
    )
    | st.builds(PackConfig, strategy=st.sampled_from(["bfd", "ffs", "none"]), balance=st.booleans())
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(made=configs)
def test_toml_round_trip(made, tmp_path_factory):
    """The packcli.toml beside an output repeats the run: any field that it changes gives other bytes."""
    path = write(tmp_path_factory.getbasetemp(), made.to_toml())
    again = PackConfig(**read_toml(path))
    assert again == made
    assert again.to_toml() == made.to_toml()


@settings(deadline=None, derandomize=True, max_examples=50)
@given(made=configs)
def test_as_dict_is_json_and_gives_the_config_again(made):
    """The fingerprint is made of it."""
    values = json.loads(json.dumps(made.as_dict()))
    assert list(values) == [field.name for field in dataclasses.fields(PackConfig)]
    assert PackConfig(**{**values, "columns": tuple(values["columns"])}) == made


def drawn_tree():
    """(name, name of the base, exit code) for each line of the tree in the docstring of errors."""
    rows, path = [], []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^( {4,})(\w+Error) +(\d+)  ", line)
        if found:
            depth = (len(found[1]) - 4) // 2
            path[depth:] = [found[2]]
            rows.append((found[2], path[depth - 1] if depth else "Exception", int(found[3])))
    return rows


def error_classes():
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, PackcliError)]


def test_the_drawn_tree_of_errors_is_the_real_one():
    """Scripts act on exit codes: 2 is mine to mend, 6 is the disk's."""
    real = [(each.__name__, each.__base__.__name__, each.exit_code) for each in error_classes()]
    assert len(real) >= 12
    assert sorted(drawn_tree()) == sorted(real)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("PackcliError", 1),
        ("UsageError", 2),
        ("UnknownNameError", 2),
        ("NoInputError", 2),
        ("FieldError", 2),
        ("TokenizerError", 2),
        ("OutputError", 2),
        ("MismatchError", 3),
        ("BadRowError", 4),
        ("LockedError", 5),
        ("StorageError", 6),
        ("EngineError", 1),
    ],
)
def test_exit_codes_never_change(name, code):
    assert getattr(errors, name).exit_code == code


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("hint", ["", "use --max-len 2048"])
def test_an_error_of_a_worker_arrives_with_its_message_and_hint(kind, hint):
    """Processes send errors by pickle; one that does not come back whole breaks the pool instead."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(kind("data.jsonl:3: é", hint), protocol))
        assert type(again) is kind
        assert (again.message, again.hint) == ("data.jsonl:3: é", hint)
        assert str(again) == ("data.jsonl:3: é\n" + hint if hint else "data.jsonl:3: é")


def test_nearest_is_the_most_alike_or_none():
    names = ("best-fit", "first-fit", "concat")
    assert nearest("bestfit", names) == "best-fit"
    assert nearest("FIRST_FIT", names) == "first-fit"
    assert nearest("xyz", names) is None
    assert nearest("concat", ()) is None


def test_unknown_name_says_what_is_known():
    error = unknown_name("strategy", "contact", {"pad": 1, "concat": 2})
    assert isinstance(error, UnknownNameError)
    assert str(error) == "strategy 'contact' is not known; did you mean 'concat'?\nknown: concat, pad"
    assert unknown_name("strategy", "zzz", ["pad"]).message == "strategy 'zzz' is not known"
