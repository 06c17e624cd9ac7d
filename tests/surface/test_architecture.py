"""The import order of the house, and what may be imported where. Without it the packages would melt into each other."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers import SAMPLE

import packcli as root

PACKAGE = Path(root.__file__).parent

LINE = """errors results seeds config storage packing readers tokenization dataset pipeline verification report exports
          training api cli""".split()
"""Modules and packages from the bottom up: each imports only what stands before it."""

APART = {"verification", "report", "exports", "training"}
"""They do not know each other."""

FACES = {*LINE, "config.choices", "storage.files", "packing.strategies", "pipeline.ranks", "report.html"}
"""What other packages import from: a package, not its modules, but for these."""

PURE = {"seeds", "config", "packing"}

SCRIPT = "tokenization.builtin.train"
"""What trained the builtin tokenizer: it reads rows on its own, and prints."""

DOORS = {
    "typer": {"cli"},
    "rich": {"cli.views"},
    "matplotlib": {"report.html"},
    "tokenizers": {"tokenization"},
    "fastokens": {"tokenization"},
    "huggingface_hub": {"tokenization"},
    "jinja2": {"tokenization.chat"},
    "msgspec": {"readers", SCRIPT},
    "pyarrow": {"readers", "dataset", "exports", SCRIPT},
    "datasets": {"training"},
    "torch": {"training"},
    "filelock": {"dataset.lock"},
    "fsspec": {"storage"},
    "ray": {"pipeline.engines"},
    "xxhash": {"readers", "pipeline"},
}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.name not in {"__init__.py", "__main__.py"}
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imported(tree):
    """(module, name, line) of everything that is imported, also by imports hidden in functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module, alias.name, node.lineno) for alias in node.names)


def packcli_imports(tree):
    """The same of packcli alone: modules without the prefix; a name that is a module counts as one."""
    for module, name, line in imported(tree):
        if module == "packcli" or module.startswith("packcli."):
            inner = module.removeprefix("packcli").removeprefix(".")
            full = f"{inner}.{name}".strip(".")
            if full in MODULES and name not in names_of(inner):
                yield full, line
            elif inner:
                yield inner, line


def names_of(module):
    """What a face hands on."""
    for node in TREES.get(module, ast.Module([], [])).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    return ()


def is_within(module, places):
    return any(module == place or module.startswith(f"{place}.") for place in places)


def test_packages_are_those_of_the_line():
    assert {name.split(".")[0] for name in MODULES} == set(LINE)


@pytest.mark.parametrize("module", MODULES)
def test_imports_flow_one_way_and_enter_by_the_face(module):
    top = module.split(".")[0]
    for other, line in packcli_imports(TREES[module]):
        place, there = f"{module}:{line} imports {other}", other.split(".")[0]
        if there == top:
            continue
        assert LINE.index(there) < LINE.index(top), place
        assert not {top, there} <= APART, place
        assert other in FACES, f"{place}, which is no face"


@pytest.mark.parametrize("library", DOORS)
def test_heavy_libraries_stay_at_their_door(library):
    for module, tree in TREES.items():
        for name, _, line in imported(tree):
            if name.split(".")[0] == library:
                assert is_within(module, DOORS[library]), f"{module}:{line} imports {library}"


def test_pure_packages_open_no_file_and_import_only_numpy():
    """Planning must work on lengths alone: in notebooks, in the what-if table, anywhere. (config.toml reads a file.)"""
    checked = 0
    for module, tree in TREES.items():
        top = module.split(".")[0]
        if top not in PURE or module == "config.toml":
            continue
        for name, _, _ in imported(tree):
            library = name.split(".")[0]
            allowed = {"packcli"} if top == "config" else {"packcli", "numpy"}  # --help reads config
            assert library in allowed or library in sys.stdlib_module_names, f"{module} imports {library}"
            paths = {"pathlib"} if top == "config" else set()  # of strategies of one's own, taken apart
            assert library not in {"os", "io", "pathlib", "shutil", "tempfile"} - paths, f"{module} imports {library}"
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "open" not in calls, module
        checked += 1
    assert checked > 20


def test_only_cli_exits_and_only_views_and_scripts_print():
    for module, tree in TREES.items():
        names = {
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
        }
        if not is_within(module, {"cli.views", SCRIPT}):
            assert "print" not in names - ({"print"} if is_within(module, {"cli"}) else set()), module
        if not is_within(module, {"cli"}):
            assert not names & {"exit", "Exit", "SystemExit"}, module


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
    """A module over 450 lines does more than one job."""
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 450} == {}


def test_a_class_name_stands_once():
    """Two classes of one name are told apart only by those who wrote them."""
    counted = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in counted.items() if count > 1] == []


def test_modules_are_named_after_what_they_make():
    """No gerunds, but for words of the field."""
    gerunds = {word for name in MODULES for word in name.split(".") if word.endswith("ing")}
    assert gerunds == {"packing", "training", "decreasing"}


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
    ("storage/filesystem.py", "_is_refusal"): "gcsfs makes of a 403 an OSError without a number",
    ("training/collate.py", "check_batch"): "Transformers has no public name for the attention of a model",
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
    for path in MODULES.values():
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
