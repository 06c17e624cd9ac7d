"""The manifest is streamed, and sidecars are read one by one: the same bytes and sums as when all was held at once."""

import copy
import dataclasses
import hashlib
import json

import pytest
from helpers import SAMPLE
from hypothesis import given, settings
from hypothesis import strategies as st

import packcli
from packcli import readers
from packcli.config import PackConfig
from packcli.dataset import (
    ManifestWriter,
    Output,
    PackedDataset,
    ShardInfo,
    Sidecar,
    Stats,
    manifest,
    read_head,
    read_manifest,
    read_unit,
    write_index,
)
from packcli.dataset.fingerprint import fingerprint, is_sealed, sealed_bytes
from packcli.dataset.manifest import RECORD_KEYS, SettingsEntry, list_shards
from packcli.dataset.sidecar import parse_sidecar
from packcli.errors import OutputError
from packcli.pipeline import prepare
from packcli.pipeline.finish import collect
from packcli.pipeline.prepare import cut_units
from packcli.storage.files import write_json

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
COUNT = st.integers(0, 2**60)
HISTOGRAM = st.dictionaries(COUNT, COUNT, max_size=4)


@st.composite
def all_stats(draw):
    values = {}
    for each in dataclasses.fields(Stats):
        if each.type == "int":
            values[each.name] = draw(COUNT)
        elif each.type == "Histogram":
            values[each.name] = draw(HISTOGRAM)
        elif each.type == "dict[str, int]":
            values[each.name] = draw(st.dictionaries(TEXT, COUNT, max_size=3))
        else:
            keys = COUNT if each.type.startswith("dict[int") else TEXT
            values[each.name] = draw(st.dictionaries(keys, st.dictionaries(TEXT, COUNT, max_size=2), max_size=3))
    return Stats(**values)


@st.composite
def sidecars(draw):
    numbers = draw(st.sets(st.tuples(st.sampled_from([0, 7, 99_999, 100_000, 10**6]), st.integers(0, 12)), max_size=8))
    found = []
    for unit, part in sorted(numbers):
        shards = {
            split: ShardInfo(f"{draw(TEXT)}{unit}", draw(COUNT), draw(COUNT), draw(TEXT))
            for split in draw(st.sets(st.sampled_from(["train", "validation"])))
        }
        found.append(Sidecar(unit, part, draw(st.booleans()), draw(TEXT), shards, Stats(num_parts=1)))
    return found


@settings(max_examples=30)
@given(sidecars(), st.dictionaries(TEXT, COUNT | TEXT | st.none(), max_size=3), st.sampled_from([10, 1 << 24]))
def test_the_streamed_manifest_is_that_of_the_whole_object(tmp_path_factory, found, run, spool_bytes):
    """Also past 99,999 units, where names do not sort as numbers do."""
    root = tmp_path_factory.mktemp("manifest")
    files = {"stats.json": b"\1" * 32, "train/state.json": b"\2" * 32, "validation/x": b"\3" * 32}
    digests = {each.file: hashlib.sha256(each.file.encode()).digest() for each in found}
    before, manifest.SPOOL_BYTES = manifest.SPOOL_BYTES, spool_bytes
    book = ManifestWriter(root)
    for each in found:
        book.add(each, digests[each.file])
    book.write(root / "streamed", run, files)
    book.close()
    manifest.SPOOL_BYTES = before
    hashes = {name: digest.hex() for name, digest in {**files, **digests}.items()}
    raw = (root / "streamed").read_bytes()
    assert raw == sealed_bytes({**run, **list_shards(found), "files": hashes})
    assert is_sealed(raw)
    assert not is_sealed(raw.replace(b"1", b"2", 1))


@given(all_stats(), all_stats())
def test_adding_in_place_is_adding(one, other):
    total, expected, kept = Stats(), one + other, other.as_dict()
    total += one
    total += other
    assert total == expected
    total += other
    assert other.as_dict() == kept  # nothing of it was taken over as it was


@given(all_stats())
def test_a_sidecar_is_read_back_and_no_changed_byte_passes(stats):
    sidecar = Sidecar(3, 1, True, "ab", {"train": ShardInfo("data-00003-001.arrow", 1, 2, "cd")}, stats)
    raw = sealed_bytes(sidecar.as_dict())
    assert parse_sidecar(raw) == sidecar
    assert parse_sidecar(raw[:-1]) is None
    assert parse_sidecar(raw + b" ") is None
    for place in range(0, len(raw), max(1, len(raw) // 40)):
        assert parse_sidecar(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]) is None, place


def commit(root, unit, part, is_last, *, rows=1):
    shard = ShardInfo(f"data-{unit:05d}-{part:03d}.arrow", rows, 3, "ab")
    (root / shard.file).write_bytes(b"123")
    Output(root).commit(Sidecar(unit, part, is_last, "x", {"train": shard}, Stats(num_parts=1, num_packs=rows)))


def test_what_is_committed_by_hand(tmp_path):
    """Unit 0 is whole, 1 lacks its end, 2 a part in the middle, 3 a shard; 100,000 stands after 99,999."""
    (tmp_path / "units").mkdir()
    for unit, part, is_last in ((0, 0, False), (0, 1, True), (1, 0, False), (2, 0, False), (2, 2, True), (3, 0, True)):
        commit(tmp_path, unit, part, is_last)
    (tmp_path / "data-00003-000.arrow").write_bytes(b"12")
    commit(tmp_path, 99_999, 0, True)
    commit(tmp_path, 100_000, 0, True, rows=5)
    commit(tmp_path, 100_002, 0, True)  # of no unit of this run
    (tmp_path / "units" / "00004-000.json").write_bytes(b"{}")
    taken = []
    found = collect(tmp_path, 100_001, take=lambda sidecar, digest: taken.append((sidecar.unit, sidecar.part)))
    assert taken == [(0, 0), (0, 1), (1, 0), (2, 0), (99_999, 0), (100_000, 0)]
    assert found.is_whole.nonzero()[0].tolist() == [0, 99_999, 100_000]
    assert found.parts == {(1, 0), (2, 0)}
    assert (found.num_parts, found.num_whole, found.stats.num_packs) == (6, 3, 10)
    assert [each.part for each, _ in read_unit(tmp_path, 0)] == [0, 1]
    assert collect(tmp_path / "nothing", 3).num_whole == 0


def test_ranges_read_in_processes_give_what_one_process_gives(tmp_path, monkeypatch):
    """In numeric order, whoever is ready first."""
    (tmp_path / "units").mkdir()
    for unit in range(7):
        commit(tmp_path, unit, 0, True, rows=unit)
    monkeypatch.setattr("packcli.pipeline.finish.RANGE_UNITS", 2)
    both = []
    for workers in (1, 2):
        taken = []
        found = collect(tmp_path, 7, workers=workers, take=lambda *each: taken.append(each))  # noqa: B023
        both.append((taken, found.stats, found.num_parts))
    assert both[0] == both[1]
    assert both[0][1].num_packs == 21


@pytest.mark.parametrize("num_files", [0, 1, 3])
def test_the_streamed_index_is_json_as_before(tmp_path, num_files):
    names = [f"data-{number:05d}-000.arrow" for number in range(num_files)]
    write_index(tmp_path, "train", iter(names), ["input_ids"], "0" * 16)
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0" * 16,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train",
    }
    write_json(tmp_path / "expected.json", state)
    assert (tmp_path / "state.json").read_bytes() == (tmp_path / "expected.json").read_bytes()


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tokenizer_dir):
    """A packed directory, and its manifest."""
    out = tmp_path_factory.mktemp("manifest") / "out"
    packcli.pack(str(SAMPLE), out, max_len=256, workers=1, tokenizer=str(tokenizer_dir), split_on='\n "splits": ')
    return out, json.loads((out / "manifest.json").read_bytes())


def test_the_head_of_a_manifest_is_read_without_its_lists(tmp_path, packed):
    """`packcli stats` of a million shards would hold them all."""
    out, value = packed
    raw = (out / "manifest.json").read_bytes()
    head = {name: value[name] for name in value if name not in ("splits", "parts", "files", "sha256")}
    assert read_head(out) == head
    assert read_manifest(out) == value
    lists = raw.index(b'\n "splits": {')
    (tmp_path / "manifest.json").write_bytes(raw[:lists] + b'\n "splits": damaged')
    assert read_head(tmp_path) == head
    (tmp_path / "manifest.json").write_text(json.dumps(value))  # not as we write it: read whole
    with pytest.raises(OutputError, match="not as it was written"):
        read_head(tmp_path)


def forged(value):
    """The bytes of a manifest that fits itself: fingerprint and seal are right for what it says."""
    value = {name: each for name, each in value.items() if name != "sha256"}
    value["fingerprint"] = fingerprint({name: value[name] for name in value if name not in RECORD_KEYS})
    return sealed_bytes(value)


def places(value, at=()):
    """Where every value stands; of a list the first only."""
    yield at
    for key in value if isinstance(value, dict) else range(min(len(value), 1)) if isinstance(value, list) else ():
        yield from places(value[key], (*at, key))


FREE = {("sha256",), ("fingerprint",), ("text", "fields", 0)}
"""What is right for whatever it says: of the first two `forged` makes the values."""


@pytest.mark.parametrize(
    "wrong", [None, "x", -1, 2**63, 10**400, 1.5, [], {}, True, "\x1b[31m\u202e", "../../etc/passwd", [[]], "missing"]
)
def test_a_manifest_of_wrong_types_is_one_error(tmp_path, packed, wrong):
    """Whoever reads an output from elsewhere must get a message, with the file and the key, and no traceback."""
    _, value = packed
    path = tmp_path / "manifest.json"
    messages = []
    for place in [each for each in places(value) if each and each not in FREE]:
        changed = copy.deepcopy(value)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        if wrong == "missing":
            del inner[place[-1]]
        else:
            inner[place[-1]] = wrong
        path.write_bytes(forged(changed))
        for read in (read_manifest, read_head, PackedDataset):
            try:
                read(tmp_path)
            except OutputError as error:
                messages.append((place[0], error.message))
    assert len(messages) > 60
    for key, message in messages:
        assert message.startswith(f"{path} "), message
        assert message.isprintable()
        assert str(key).replace("_", " ") in message or str(key) in message, (key, message)


NO_MANIFESTS = [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe{}", b'{"a": 1' + b"0" * 9000 + b"}"]


@pytest.mark.parametrize("raw", NO_MANIFESTS, ids=range(len(NO_MANIFESTS)))
def test_what_is_no_manifest_is_one_error(tmp_path, raw):
    (tmp_path / "manifest.json").write_bytes(raw)
    for read in (read_manifest, read_head, PackedDataset):
        with pytest.raises(OutputError, match=r"manifest\.json (is damaged|has format version)"):
            read(tmp_path)


def test_no_flipped_byte_of_a_manifest_passes(tmp_path, packed):
    raw = (packed[0] / "manifest.json").read_bytes()
    for place in range(0, len(raw), 7):
        (tmp_path / "manifest.json").write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(OutputError, match=r"manifest\.json "):
            read_manifest(tmp_path)


def test_the_manifest_names_every_setting(packed):
    """A new setting that the type of the manifest lacks would go unchecked."""
    resolved = "tokenizer eos_token pad_token text_field text_template format field add_eos add_bos chat_template date"
    left_out = {*resolved.split(), "mix", "tokens", "strategy_sha256"}
    settings = {each.name for each in dataclasses.fields(PackConfig)} - left_out
    assert set(packed[1]["config"]) == set(SettingsEntry.__annotations__) == settings | {"ragged"}


def test_files_are_cut_in_processes_as_they_are_in_one(tmp_path, monkeypatch):
    """Rows of 100 TB are not counted by one process; files that need no counting stand between those that do."""
    for number, size in enumerate((40, 0, 3, 90, 25)):
        text = "".join(f'{{"text": "{row}"}}\n' for row in range(size))
        (tmp_path / f"{number}.jsonl").write_text(text)
    sources = readers.find_sources([str(tmp_path)], [])
    alone = readers.cut_units(sources, 200)
    assert len(alone) > 8
    monkeypatch.setattr(prepare, "ALONE_BYTES", 1)
    assert cut_units(sources, 200, 2) == alone
    assert cut_units(sources, 200, 1) == alone
