"""packcli.toml: read and written, and every mistake in it is named."""

import dataclasses
import json
import re

import pytest
from bad_tomls import BAD_TOMLS
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.config import (
    PackConfig,
    parse_size,
    read_toml,
)
from packcli.config.choices import (
    COLUMNS,
    EFFORTS,
    OVERLONG,
    STRATEGY_ALIASES,
)
from packcli.errors import UsageError


def write(folder, content):
    path = folder / "packcli.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


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
