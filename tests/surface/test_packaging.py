"""What pyproject.toml promises, and the versions that were tried: .ci/pins, which `make lock` writes."""

import importlib.metadata
import re

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

import packcli

PINS = {path.stem: path.read_text(encoding="utf-8").split() for path in sorted((ROOT / ".ci" / "pins").glob("*.txt"))}
REQUIREMENTS = [Requirement(each) for each in importlib.metadata.requires("packcli")]


def applies(requirement, pins):
    """gcsfs wants a newer fsspec than the oldest datasets does, so the oldest versions go without it."""
    marker = str(requirement.marker)
    return requirement.name != "packcli" and not (pins == "oldest" and 'extra == "gcs"' in marker)


def versions(pins):
    return dict(pin.split("==") for pin in PINS[pins])


@pytest.mark.parametrize("pins", sorted(PINS))
def test_pins_are_names_and_versions_that_the_ranges_admit(pins):
    """No address, path or local build: any index has them."""
    assert len(PINS[pins]) > 50
    for pin in PINS[pins]:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)
    found = versions(pins)
    for each in REQUIREMENTS:
        if applies(each, pins) and "python_version" not in str(each.marker):
            assert Version(found[each.name]) in each.specifier, each


def test_the_oldest_versions_are_tried():
    """Of every dependency, extras too but gcs: the lower bound of pyproject.toml."""
    found = versions("oldest")
    for each in REQUIREMENTS:
        if applies(each, "oldest"):
            (lowest,) = (part.version for part in each.specifier if part.operator == ">=")
            assert Version(found[each.name]) == Version(lowest), each


def test_pythons_that_are_named_have_pins():
    named = [each.rpartition(" ")[2] for each in importlib.metadata.metadata("packcli").get_all("Classifier")]
    assert [f"python{each}" for each in named if re.fullmatch(r"3\.\d+", each)] == sorted({*PINS} - {"oldest"})


def test_types_are_shipped():
    assert (ROOT / "packcli" / "py.typed").is_file()
    assert packcli.__file__.startswith(str(ROOT))
