"""The tree of errors: its exit codes, its names, and how it reaches the user."""

import pickle
import re

import pytest

from packcli import errors
from packcli.errors import PackcliError, UnknownNameError, nearest, unknown_name


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
