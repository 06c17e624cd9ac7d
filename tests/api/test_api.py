"""The verbs in Python: the same options as the command line, typed; results that fit on a screen."""

import csv
import dataclasses
import inspect
import io
import json
import subprocess
import sys

import pytest
import typer.main
from helpers import SAMPLE
from typer.testing import CliRunner

import packcli
from packcli import api, cli
from packcli.config import OPTIONS, TABLE, PackConfig, RunOptions, make_settings
from packcli.errors import UsageError
from packcli.pipeline import Progress, Started, Warned

TWINS = {
    "pack": packcli.pack,
    "stats": packcli.stats,
    "inspect": packcli.inspect,
    "verify": packcli.verify,
    "units plan": packcli.units.plan,
    "units run": packcli.units.run,
    "units finish": packcli.units.finish,
    "units status": packcli.units.status,
}
SHOWN = set("debug json_ quiet config".split())
ONLY_SHOWN = {"stats": SHOWN | {"markdown", "csv", "html"}, "inspect": SHOWN | {"tokens", "pager"}}
"""Options of a terminal: they decide how a result is shown, or where settings are read."""
ONLY_PYTHON = {"on_event", "strategy_sha256"}


def told(*arguments):
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return packcli.pack(SAMPLE, tmp_path_factory.mktemp("api") / "out", max_len=256, strategy="best-fit", workers=1)


@pytest.mark.parametrize("function", [packcli.pack, packcli.units.plan])
def test_keywords_are_the_table_of_options(function):
    """A keyword that completion does not show, or one of another type or default than the command line has."""
    parameters = dict(inspect.signature(function).parameters)
    others = [parameters.pop(name) for name in ("inputs", "output", "on_event")]
    assert all(each.default in ((), None) for each in others)
    assert list(parameters) == [row.field for row in TABLE]
    defaults = {name: each.default for name, each in parameters.items()}
    assert make_settings(defaults) == (PackConfig(), RunOptions())
    fields = {field.name: field.type for each in (PackConfig, RunOptions) for field in dataclasses.fields(each)}
    for row in TABLE:
        taken, wanted = (set(each.split(" | ")) for each in (parameters[row.field].annotation, fields[row.field]))
        if row.kind is list or row.field == "columns":
            assert {"str", "Sequence[str]"} <= taken
        else:
            assert taken == wanted | ({"str"} if row.parse else set()), row.field


@pytest.mark.parametrize("verb", TWINS)
def test_a_verb_and_its_twin_take_the_same(verb):
    """An option that the command line has and Python has not."""
    command = typer.main.get_command(cli.app)
    for word in verb.split():
        command = command.commands[word]
    names = {parameter.name for parameter in command.params}
    assert names - ONLY_SHOWN.get(verb, SHOWN) == set(inspect.signature(TWINS[verb]).parameters) - ONLY_PYTHON


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: packcli.pack(SAMPLE, maxlen=4096), "pack() has no keyword 'maxlen'; did you mean 'max_len'?"),
        (lambda: packcli.stats(SAMPLE, stratgy="pad"), "did you mean 'strategy'?"),
        (lambda: packcli.verify(SAMPLE, dep=True), "did you mean 'deep'?"),
        (lambda: packcli.inspect(SAMPLE, rows=1), "did you mean 'row'?"),
        (lambda: packcli.units.run(SAMPLE, worldsize=1), "did you mean 'world_size'?"),
        (lambda: packcli.pack(SAMPLE, zzzzzz=1), "pack() has no keyword 'zzzzzz'"),
    ],
)
def test_a_misspelt_keyword_names_the_nearest(call, message):
    with pytest.raises(TypeError) as caught:
        call()
    assert message in str(caught.value)


def test_help_lists_the_options():
    lines = [line.strip() for line in packcli.pack.__doc__.splitlines()]  # Python 3.13 takes the indent away
    for name in OPTIONS:
        assert f"{name}: {OPTIONS[name].help}" in lines
    assert api.__doc__
    assert "max_len, ..." not in packcli.stats.__doc__


def test_values_may_be_text_with_a_unit(tmp_path):
    one = packcli.pack(SAMPLE, tmp_path / "one", unit_bytes="64kB", max_line_bytes="1MiB", engine="serial")
    two = packcli.pack(SAMPLE, tmp_path / "two", unit_bytes=64_000, max_line_bytes=2**20, engine="serial")
    assert one.manifest["fingerprint"] == two.manifest["fingerprint"]
    with pytest.raises(UsageError, match="'many' is not a size"):
        packcli.pack(SAMPLE, tmp_path / "three", unit_bytes="many")


def short(result):
    """What a result shows in each way; all of it must fit on a screen."""
    texts = [str(result), repr(result), result._repr_html_()]
    assert all(texts)
    assert len(texts[0]) < 2000
    assert len(texts[1]) < 1000
    assert texts[2].count("<table>") == texts[2].count("</table>") >= 1
    return texts


def test_a_report_is_short(packed):
    text, line, page = short(packed)
    assert f"{packed.stats.num_packs:,} of 256 tokens" in text
    assert len(text.splitlines()) < 10
    assert "\n" not in line
    assert "utilisation" in page


def test_stats_of_directories_are_those_of_the_verb(packed):
    figures = packcli.stats(packed.output)
    assert figures.as_dict() == told("stats", packed.output, "--json")
    assert figures.reports[0].stats == packed.stats
    assert figures.what_if is None
    assert figures._repr_html_().count("<table>") == 2 * len(figures.tables)
    assert str(packed.output) in str(figures)
    names = {row["table"] for row in csv.DictReader(io.StringIO(figures.to_csv()))}
    assert names == {table.name for table in figures.tables}
    assert figures.to_markdown().startswith("## ")
    counted = packcli.stats([packed.output], recount=True)
    assert counted.differences == {}
    assert counted.as_dict() == told("stats", packed.output, "--recount", "--json")


def test_stats_of_raw_input_are_those_of_the_verb():
    figures = packcli.stats(str(SAMPLE), max_len=[256, 512], strategy="bfd", sample=0.5, workers=1)
    told_ = told("stats", SAMPLE, "--max-len", "256,512", "--strategy", "bfd", "--sample", 0.5, "-w", 1, "--json")
    assert figures.as_dict() == told_
    assert [(each.max_len, each.strategy) for each in figures.what_if.outcomes] == [
        (256, "best-fit"),
        (512, "best-fit"),
    ]
    assert "256 best-fit" in str(figures)
    assert len(repr(figures)) < 500
    with pytest.raises(UsageError, match="--recount needs packed directories"):
        packcli.stats(SAMPLE, recount=True)


def test_inspect_gives_packs_as_values(packed):
    packs = packcli.inspect(packed.output, random=3, seed=5)
    assert packs.as_dict() == told("inspect", packed.output, "--random", 3, "--seed", 5, "--json")
    assert len(packs) == 3
    first = packs[0]
    assert first.text == "".join(span.text for each in first.segments for span in each.spans)
    assert sum(each.num_tokens for each in first.segments) == len(first.row.ids) == 256
    assert first.num_padding == sum(each.num_tokens for each in first.segments if each.segment.is_padding)
    assert "<script>" not in packs._repr_html_()
    assert f"train row {first.row.index}" in str(first)
    assert len(list(first.tokens())) == 256
    (last,) = packcli.inspect(packed.output, row=-1)
    assert last.row.index == packed.stats.num_packs - 1
    with pytest.raises(UsageError, match="give one of them"):
        packcli.inspect(packed.output, row=1, random=1)


def test_verify_gives_a_verdict(packed):
    verdict = packcli.verify(packed.output, deep=True, sample=(1, 1))
    assert verdict.is_sound
    assert verdict.num_documents_compared > 0
    text, line, _ = short(verdict)
    assert "sound" in text
    assert "sound" in line
    row = packcli.verify(packed.output, row=0)
    assert row.restored["input_ids"] == packcli.restore(packed.output, 0)["input_ids"]
    with pytest.raises(UsageError, match="name one with --row"):
        packcli.verify(packed.output, replay=True)


def test_units_in_python(tmp_path):
    begun = packcli.units.plan(SAMPLE, tmp_path / "out", max_len=256, unit_bytes="64kB")
    assert begun.state == "planned"
    for rank in range(2):
        ran = packcli.units.run(tmp_path / "out", rank, 2, workers=1)
        assert "units" in short(ran)[0]
    assert packcli.units.status(tmp_path / "out").state == "complete"
    short(packcli.units.status(tmp_path / "out"))
    packcli.units.finish(tmp_path / "out", workers=1)
    packcli.pack(SAMPLE, tmp_path / "whole", max_len=256, unit_bytes="64kB", engine="serial")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()


def test_an_export_is_short(packed, tmp_path):
    short(packcli.export(packed.output, "parquet", tmp_path / "parquet"))


def test_events_and_the_bar_that_is_ready_made(tmp_path, capsys):
    seen = []
    packcli.pack(SAMPLE, tmp_path / "out", on_event=seen.append, workers=1)
    assert {type(each) for each in seen} >= {Started, Progress}
    with packcli.progress() as shown:
        packcli.pack(SAMPLE, tmp_path / "other", on_event=shown, workers=1)
        shown(Warned("look here"))
    assert "warning: look here" in capsys.readouterr().err


def test_nothing_heavy_is_imported_with_the_names():
    code = "import packcli, sys; packcli.units.__name__ if False else 0; dir(packcli)"
    code += "; print({'numpy', 'pyarrow', 'rich', 'typer'} & {*sys.modules})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"
