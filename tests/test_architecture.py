"""The import order of the house, and what may be imported where. Without it the layers would melt into each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import SAMPLE

PACKAGE = Path(__file__).parents[1] / "packcli"

LINE = """errors visible formats bad_rows shares config settings tokens masks overlong strategies planner assemble
          rows sequences streaming layouts stats repeats invariants processes stores readers tokenizing chat
          documents shards sidecars rejects fingerprints presence manifest merged job counting gathering
          hooks loading training work report exports space probe engine collecting mixing describing ledger finishing
          pipeline plans ranks ranks_status verify merging contents recount inspecting measuring what_if tables
          what_if_tables exporting pages signals console console_stats console_inspect console_units ending cli_options
          cli_outputs cli_views cli_units cli __main__""".split()
"""Modules and packages from the bottom up: each imports only what stands before it."""

PURE = LINE[: LINE.index("processes")]

DOORS = {
    "typer": {"cli", "cli_options", "cli_outputs", "cli_units", "cli_views"},
    "rich": {"console", "console_stats", "console_inspect", "console_units"},
    "matplotlib": {"pages"},
    "tokenizers": {"tokenizing"},
    "fastokens": {"tokenizing"},
    "huggingface_hub": {"tokenizing"},
    "msgspec": {"readers", "tokenizing"},  # the training script of the builtin tokenizer reads rows on its own
    "pyarrow": {"exports", "readers", "shards", "tokenizing"},
    "datasets": {"loading"},
    "filelock": {"manifest"},
    "fsspec": {"stores"},
    "jinja2": {"chat"},
    "ray": {"engine"},
    "torch": {"loading", "training"},
    "xxhash": {"gathering", "readers"},
}
SCRIPTS_ONLY = {("tokenizing", "msgspec"), ("tokenizing", "pyarrow")}
"""Doors that are open to packcli/tokenizing/builtin/train.py only."""

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported_names(tree):
    for node in ast.walk(tree):  # also sees imports hidden in functions
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            whole = node.module in ("packcli", "packcli.strategies")
            for alias in node.names:
                yield (f"{node.module}.{alias.name}" if whole else node.module), node.lineno


def test_imports_flow_one_way_and_heavy_libraries_stay_at_their_door():
    seen = set()
    for path in MODULES:
        relative = path.relative_to(PACKAGE)
        stage = relative.parts[0].removesuffix(".py")
        seen.add(stage)
        for name, line in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{relative}:{line}"
            top, _, rest = name.partition(".")
            if top == "packcli" and rest and rest != "__version__":
                other = rest.split(".")[0]
                assert other == stage or LINE.index(other) < LINE.index(stage), f"{place} imports {other}"
            assert stage in DOORS.get(top, {stage}), f"{place} imports {top}"
            if (stage, top) in SCRIPTS_ONLY:
                assert path.name == "train.py", f"{place} imports {top}"
    assert seen == set(LINE)


def test_pure_modules_open_no_file_and_import_only_numpy():
    """Planning must work on lengths alone: in notebooks, in the what-if table, anywhere. (settings reads TOML.)"""
    checked = 0
    for path in MODULES:
        relative = path.relative_to(PACKAGE)
        if relative.parts[0].removesuffix(".py") not in set(PURE) - {"config", "settings"}:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, _ in imported_names(tree):
            top = name.split(".")[0]
            assert top in {"packcli", "numpy"} or top in sys.stdlib_module_names, f"{relative} imports {top}"
            assert top not in {"os", "io", "pathlib", "shutil", "tempfile"}, f"{relative} imports {top}"
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "open" not in calls, relative
        checked += 1
    assert checked > 12


def test_only_cli_exits_and_only_console_and_scripts_print():
    for path in MODULES:
        stage = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        names = {
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        if not stage.startswith("console") and path.name != "train.py":
            assert "print" not in names - ({"print"} if stage == "cli" else set()), path
        if stage not in {"cli", "cli_outputs", "ending"}:
            assert not names & {"exit", "Exit", "SystemExit"}, path


@pytest.mark.parametrize(
    "statement",
    [
        "import packcli",
        "from packcli import cli",
        "from packcli.cli import app; from typer.testing import CliRunner; CliRunner().invoke(app, ['pack', '--help'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(statement):
    """`packcli --help` would take a second."""
    heavy = "numpy pyarrow datasets tokenizers fastokens msgspec jinja2 rich huggingface_hub torch ray".split()
    code = f"{statement}\nimport sys\nprint([name for name in {heavy} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_packing_loads_neither_pandas_nor_datasets(tmp_path):
    """Ten documents would take a second more; pyarrow imports pandas at the slightest touch."""
    code = f"""
import packcli, sys
packcli.pack({str(SAMPLE)!r}, {str(tmp_path / "out")!r}, workers=1)
print({{"pandas", "datasets", "torch", "huggingface_hub"}} & {{*sys.modules}})"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"


def test_planning_loads_no_reader_and_no_tokenizer():
    code = "import packcli, sys; packcli.plan([3, 4], 8); print({'pyarrow', 'tokenizers'} & {*sys.modules})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"


def test_no_module_is_long():
    """A module over about 400 lines is telling us something."""
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path


# --- no behaviour hangs on another library's words ---

ERRORS = {"Exception", "BaseException"}
ASKED = {
    "startswith",
    "endswith",
    "find",
    "rfind",
    "index",
    "count",
    "lower",
    "upper",
    "casefold",
    "partition",
    "split",
}
"""Methods of a string that somebody calls who wants to know what it says; lines and strips are for showing it."""

FOREIGN = {*DOORS, "pa", "pq", "np", "numpy"}
BY_WORDS = {
    ("stores/access.py", "_is_refusal"): "gcsfs makes of a 403 an OSError without a number",
    ("training.py", "check_batch"): "Transformers has no public name for the attention of a model",
}
"""File and function -> why it cannot decide by anything better."""

DOCUMENTED = {"_exit", "_replace"}
"""Of os and of named tuples."""


def by_words(tree):
    """(function, line, what) of every place that decides by the text, the name or the privacy of something foreign."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        caught = {each.name for each in ast.walk(function) if isinstance(each, ast.ExceptHandler)}
        caught |= {
            each.arg for each in function.args.args if each.annotation and ast.unparse(each.annotation) in ERRORS
        }
        words = {f"str({name})" for name in caught} | {f"{name}.args" for name in caught}
        words |= {f"type({name}).{what}" for name in caught for what in ("__name__", "__qualname__", "__module__")}
        for node in ast.walk(function):
            parts = []
            if isinstance(node, ast.Compare):
                parts = [node]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                parts = [node.func.value] if node.func.attr in ASKED else []
                parts += (
                    node.args if ast.unparse(node.func.value) == "re" or node.func.attr in ("match", "search") else []
                )
            if any(ast.unparse(each) in words for part in parts for each in ast.walk(part)):
                yield function.name, node.lineno, ast.unparse(node)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                subject, kinds = node.args
                roots = {ast.unparse(each).split(".")[0] for each in ast.walk(kinds) if isinstance(each, ast.Attribute)}
                if isinstance(subject, ast.Name) and subject.id in caught and roots & FOREIGN:
                    yield function.name, node.lineno, ast.unparse(node)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                name = ast.literal_eval(node.args[1]) if isinstance(node.args[1], ast.Constant) else ""
                if name.startswith("_") and not name.startswith("__"):
                    yield function.name, node.lineno, ast.unparse(node)
            if isinstance(node, ast.Attribute) and node.attr[0] == "_" and not node.attr.startswith("__"):
                owner = ast.unparse(node.value).split(".")[-1].split("(")[0]
                if owner not in {"self", "cls", "other", *own} and node.attr not in DOCUMENTED | own:
                    yield function.name, node.lineno, ast.unparse(node)


def test_no_behaviour_hangs_on_the_words_of_a_library():
    """msgspec 0.23 said in another way what is not UTF-8, and rows were counted under another cause.

    What a library says may be shown. Documented classes, numbers and checks of our own decide.
    """
    found = set()
    for path in MODULES:
        place = path.relative_to(PACKAGE).as_posix()
        for function, line, what in by_words(ast.parse(path.read_text(encoding="utf-8"))):
            assert (place, function) in BY_WORDS, f"{place}:{line} decides by {what}"
            found.add((place, function))
    assert found == set(BY_WORDS)


@pytest.mark.parametrize(
    "line",
    [
        "return 'range' in str(error)",
        "return str(error).lower()",
        "return str(error).startswith('Forbidden')",
        "return 'Credentials' in type(error).__name__",
        "return type(error).__module__.partition('.')[0] in ('gcsfs',)",
        "return re.search('not found', str(error))",
        "return PATTERN.match(str(error))",
        "return error.args[0] == 'no'",
        "return isinstance(error, msgspec.ValidationError | KeyError)",
        "return isinstance(error, (pa.ArrowInvalid, OSError))",
        "return system._strip_protocol(url)",
        "return getattr(config, '_attn_implementation', None)",
    ],
)
def test_deciding_by_words_is_seen(line):
    """The test above would pass on nothing."""
    assert list(by_words(ast.parse(f"def judge(error: Exception):\n    {line}")))
    assert list(
        by_words(ast.parse(f"def judge():\n    try:\n        f()\n    except OSError as error:\n        {line}"))
    )
