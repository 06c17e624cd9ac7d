"""What users hold on to, frozen: names, options, columns, report keys, exit codes. A change goes to CHANGELOG.md."""

import json
import re
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import packcli
from packcli import cli, errors
from packcli.cli import reference
from packcli.config import TABLE, PackConfig, RunOptions
from packcli.config.choices import COLUMNS, EFFORTS, OVERLONG, STRATEGY_ALIASES
from packcli.packing.strategies import STRATEGIES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

OPTIONS = {
    "pack": """
        --allow-network --allow-special --balance --bos --chat-template --columns --config --date --debug
        --effort --engine --eos --eos-token --field --format --help --isolate --json --loss --loss-on-eot
        --lenient --max-bad --max-docs-per-pack --max-len --max-line-bytes --mix --no-balance --no-bos --no-eos
        --no-isolate --no-lenient --no-loss-on-eot --on-error --output --overlong --overwrite --pad-token
        --quiet --ray-address --restart --seed --split-on
        --strategy --text-field --text-template --tokenizer --tokenizer-engine --tokens --unit-bytes --val-fraction
        --workers -o -q -w""".split(),
    "stats": """
        --chat-template --config --csv --debug --field --format --help --html --json --loss --loss-on-eot
        --markdown --max-docs-per-pack --max-len --no-loss-on-eot --overlong --recount --sample --seed
        --split-on --strategy --text-field --text-template --tokenizer --workers -w""".split(),
    "inspect": """
        --debug --doc --help --json --limit --pager --random --row --search --seed --split --tokenizer
        --tokens""".split(),
    "verify": """
        --against --debug --deep --help --json --quiet --replay --row --same-as --sample --split --strategy
        --tokenizer-engine -q""".split(),
    "merge": "--debug --help --json --output --overwrite --quiet --verify -o -q".split(),
    "export": "--debug --help --json --lossy --output --overwrite --quiet --to -o -q".split(),
    "units run": """
        --debug --help --input-root --json --quiet --rank --tokenizer-engine --workers --world-size -q -w""".split(),
    "units finish": "--debug --help --json --quiet --workers -q -w".split(),
    "units status": "--debug --help --json".split(),
}
OPTIONS["units plan"] = OPTIONS["pack"]


def commands():
    """Verbs, those of a group by both words."""
    found = {}
    for name, each in typer.main.get_command(cli.app).commands.items():
        below = getattr(each, "commands", None)
        found |= {f"{name} {verb}": below[verb] for verb in below} if below else {name: each}
    return found


def command(name):
    return commands()[name]


def test_public_names():
    names = (
        "PackConfig PackcliError __version__ concatenate_and_pack export inspect load merge pack pack_sequences plan"
    )
    names += " progress restore stats stream_packs units verify"
    assert sorted(packcli.__all__) == names.split()
    for name in packcli.__all__:
        assert getattr(packcli, name) is not None
    assert callable(packcli.plan)
    with pytest.raises(AttributeError, match="no attribute 'pakc'"):
        packcli.pakc  # noqa: B018


def test_functions_stay_functions_after_everything_is_imported():
    """A package or module of such a name would take its place."""
    places = {path.stem for path in Path(packcli.__file__).parent.iterdir()}
    assert "pipeline" in places
    assert not places & set(packcli.__all__)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_options_and_their_help(name):
    found = {}
    for parameter in command(name).params:
        for option in [*parameter.opts, *parameter.secondary_opts]:
            if option.startswith("-"):
                found[option] = parameter.help
    assert sorted({*found, "--help"}) == sorted(OPTIONS[name])
    assert all(found.values())
    assert set(commands()) == set(OPTIONS)


def test_every_setting_has_an_option():
    """A field of the config that no flag reaches, or a flag that reaches nothing."""
    fields = {*PackConfig.__dataclass_fields__, *RunOptions.__dataclass_fields__}
    assert {row.field for row in TABLE} == fields
    assert {row.field for row in TABLE if not row.flags} == {"strategy_sha256"}
    flags = {flag for row in TABLE for each in row.flags for flag in each.split("/")}
    own = "--config --debug --help --json --output --quiet -o -q".split()
    assert sorted({*flags, *own}) == sorted(OPTIONS["pack"])


def test_the_reference_of_options_has_a_line_for_each():
    assert set(reference.verbs()) == set(OPTIONS)
    for verb, options in OPTIONS.items():
        lines = reference.describe(verb).splitlines()
        for option in options:
            assert sum(re.search(rf"^\|.*`{option}[ `]", line) is not None for line in lines) == 1, (verb, option)
    lines = reference.describe("pack").splitlines()
    for row in TABLE:
        if row.flags:
            (line,) = (line for line in lines if f"| `{row.field}` |" in line)
            assert row.help.replace("|", "\\|").replace("\n", "\\n") in line


def test_names_of_strategies_columns_and_policies():
    assert set(STRATEGIES) == set(STRATEGY_ALIASES.values())
    assert STRATEGY_ALIASES["wrapped"] == "concat"
    assert STRATEGY_ALIASES["bfd"] == "best-fit"
    assert COLUMNS == ("input_ids", "labels", "position_ids", "seq_lengths", "sources")
    assert OVERLONG == ("split", "truncate", "drop", "error")
    assert EFFORTS == ("fast", "normal", "max")


def test_report_keys(tmp_path):
    result = CliRunner().invoke(
        cli.app,
        ["pack", str(ROOT / "sample_data" / "docs.jsonl"), "-o", str(tmp_path / "out"), "-w", "1", "--json", "-q"],
    )
    report = json.loads(result.stdout)
    assert (
        list(report)
        == """output status schema_version max_len strategy overlong format loss tokenizer derived totals
        sources
        fingerprint load run""".split()
    )
    assert (
        list(report["derived"])
        == """utilisation padding_ratio padding_ratio_unpacked num_packs_above_lower_bound
        num_packs_for_windows drop_ratio loss_ratio split_ratio group_cost_max_ratio group_cost_max_ratio_unbalanced
        attention_ratio mean_documents_per_pack mean_document_length document_length
        segment_length documents_per_pack layouts""".split()
    )
    stored = json.loads((tmp_path / "out" / "stats.json").read_text(encoding="utf-8"))
    assert stored == {key: report[key] for key in stored}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        """.packcli README.md data-00000-000.arrow dataset_info.json manifest.json state.json stats.json
        units""".split()
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert (
        list(manifest)
        == """format_version config text max_line_bytes tokenizer inputs num_units fingerprint splits parts files
        sha256""".split()
    )
    assert str(tmp_path) not in json.dumps(manifest)


def test_exit_codes_are_those_of_the_drawing():
    drawn = dict(re.findall(r"^ +(\w+Error) +(\d)", errors.__doc__, re.MULTILINE))
    classes = {name: each for name, each in vars(errors).items() if isinstance(each, type) and name.endswith("Error")}
    assert {name: str(each.exit_code) for name, each in classes.items()} == drawn
    assert len(drawn) == 13


@pytest.mark.parametrize("option", sorted({option for options in OPTIONS.values() for option in options}))
def test_readme_shows_every_long_option(option):
    """README and --help would tell different stories."""
    if option.startswith("--") and option not in ("--help", "--debug"):
        assert f"`{option}" in README or f" {option}" in README


def test_readme_tables_name_what_there_is():
    for name in (*STRATEGIES, *COLUMNS, *OVERLONG):
        assert f"`{name}`" in README, name


def test_changelog_begins_with_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[?([\d.]+)", changelog, re.MULTILINE).group(1) == packcli.__version__
