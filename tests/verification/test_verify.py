"""packcli verify: what is lost, added, swapped, edited or flipped is found, and nothing that it reads can crash it."""

import json
import os
import random
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pytest
from helpers import SAMPLE, tree_hash
from outputs_to_verify import file_hash, invoke, of_row, pack, reseal, rewrite_shard, wrong

import packcli
from packcli.dataset import read_report
from packcli.dataset.fingerprint import sealed_bytes
from packcli.errors import OutputError
from packcli.verification import verify
from packcli.verification.inputs import tokenize_unit

FLIPS = int(os.environ.get("PACKCLI_FLIPS", "20"))
"""Flipped bits for each kind of file; `make stress` asks for 1,000."""
DAMAGES = int(os.environ.get("PACKCLI_DAMAGES", "300"))
"""Damaged shards that a child reads; `make stress` asks for 10,000."""

KINDS = {
    "shard": "train/data-00001-000.arrow",
    "shard of the other split": "validation/data-00000-000.arrow",
    "sidecar": "units/00002-000.json",
    "manifest": "manifest.json",
    "stats": "stats.json",
    "card": "README.md",
    "info": "train/dataset_info.json",
    "state": "validation/state.json",
    "splits": "dataset_dict.json",
    "plan": ".packcli/plan.json",
}


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "concat"},
        {"strategy": "shuffle-fit", "max_docs_per_pack": 3},
        {"strategy": "pad", "isolate": False},
        {"overlong": "truncate"},
        {"overlong": "drop"},
        {"columns": "compact"},
        {"columns": "input_ids,labels"},
        {"columns": "input_ids,labels,position_ids,seq_lengths", "isolate": False},
        {"columns": "input_ids,sources"},
        {"val_fraction": 0.000001},
        {"add_eos": False},
        {"add_bos": True, "eos_token": "<|im_end|>"},
        {"tokenizer": "builtin", "tokenizer_engine": "auto"},
    ],
    ids=str,
)
def test_what_pack_writes_is_sound(tmp_path, settings):
    """A check that cries wolf is soon switched off."""
    output = pack(tmp_path / "out", **settings)
    before = tree_hash(output)
    deep = "sources" in json.loads((output / "manifest.json").read_bytes())["config"]["columns"]
    verdict = verify(output, deep=deep)
    assert verdict.problems == []
    assert verdict.num_rows > 30
    assert verdict.num_documents_compared == (300 if deep else 0)
    assert tree_hash(output) == before


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_bit_is_always_found(original, output, kind):
    """A disk that lies would be trained on."""
    path = output / KINDS[kind]
    data = path.read_bytes()
    moments = random.Random(kind)
    for _ in range(FLIPS):
        at = moments.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        files = {each.file for each in verify(output).problems}
        assert KINDS[kind] in files, at
    path.write_bytes(data)
    assert wrong(output) == []


def rename(one, other):
    def change(output):
        (output / one).rename(output / other)

    return change


def copy(one, other):
    return lambda output: shutil.copy(output / one, output / other)


def swap(one, other):
    def change(output):
        first, second = (output / one).read_bytes(), (output / other).read_bytes()
        (output / one).write_bytes(second)
        (output / other).write_bytes(first)

    return change


def cut(name, size):
    return lambda output: (output / name).write_bytes((output / name).read_bytes()[:size])


SHARD, OTHER = "train/data-00001-000.arrow", "train/data-00002-000.arrow"
CHANGES = {
    "a shard lost": (lambda output: (output / SHARD).unlink(), [SHARD]),
    "a shard renamed": (rename(SHARD, "train/data-00009-000.arrow"), [SHARD, "train/data-00009-000.arrow"]),
    "a shard added": (copy(SHARD, "train/data-00009-000.arrow"), ["train/data-00009-000.arrow"]),
    "a shard of another name added": (copy(SHARD, "train/more.arrow"), ["train/more.arrow"]),
    "two shards swapped": (swap(SHARD, OTHER), [SHARD, OTHER]),
    "a shard in the other split": (rename(SHARD, "validation/data-00001-000.arrow"), [SHARD]),
    "a shard cut": (cut(SHARD, 5000), [SHARD]),
    "a shard emptied": (cut(SHARD, 0), [SHARD]),
    "a sidecar lost": (lambda output: (output / "units/00001-000.json").unlink(), ["units/00001-000.json"]),
    "a sidecar added": (copy("units/00001-000.json", "units/00077-000.json"), ["units/00077-000.json"]),
    "two sidecars swapped": (
        swap("units/00001-000.json", "units/00002-000.json"),
        ["units/00001-000.json", "units/00002-000.json"],
    ),
    "the report lost": (lambda output: (output / "stats.json").unlink(), ["stats.json"]),
    "the index lost": (lambda output: (output / "train/state.json").unlink(), ["train/state.json"]),
    "the indices swapped": (swap("train/state.json", "validation/state.json"), ["train/state.json"]),
    "a temporary file left": (
        lambda output: (output / "train/.x.arrow.1.0123456789ab.tmp").write_text(""),
        ["train/.x.arrow.1.0123456789ab.tmp"],
    ),
    "the manifest lost": (lambda output: (output / "manifest.json").unlink(), ["manifest.json"]),
    "the manifest of another run": (
        lambda output: shutil.copy(pack(output.parent / "other") / "manifest.json", output / "manifest.json"),
        ["manifest.json"],
    ),
    "the manifest is a list": (lambda output: (output / "manifest.json").write_text("[]"), ["manifest.json"]),
    "the manifest is deep": (lambda output: (output / "manifest.json").write_text("[" * 100_000), ["manifest.json"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_lost_added_swapped_or_cut_is_found(output, name):
    change, files = CHANGES[name]
    change(output)
    found = {file for file, _ in wrong(output)}
    assert set(files) <= found, found


def leaves(value, path=()):
    """The path of every scalar of a JSON value."""
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))
    else:
        yield path


def edit(value, path):
    """Changes the value at a path."""
    for key in path[:-1]:
        value = value[key]
    old = value[path[-1]]
    match old:
        case bool():
            value[path[-1]] = not old
        case int() | float():
            value[path[-1]] = old + 1
        case str():
            value[path[-1]] = old[:-1] + ("0" if old[-1:] != "0" else "1")
        case _:
            value[path[-1]] = "edited"


@pytest.mark.parametrize("fingerprinted", [False, True])
def test_every_edited_field_of_a_manifest_is_found_even_when_it_is_sealed_again(output, fingerprinted):
    """Each field is said somewhere else too: in the sidecars, the schema, the index, the report or the plan."""
    path = output / "manifest.json"
    text = path.read_text()
    places = [each for each in leaves(json.loads(text)) if each[0] != "sha256"]
    assert len(places) > 100
    for place in places:
        if fingerprinted and place == ("fingerprint",):
            continue
        manifest = json.loads(text)
        edit(manifest, place)
        path.write_text(reseal(manifest, fingerprinted=fingerprinted))
        assert verify(output).problems, place
    path.write_text(text)


def test_every_edited_count_of_a_sidecar_is_found_even_when_all_is_sealed_again(output):
    """Counts that lie would make the report lie: the sum is compared with it, and the rows with most of them."""
    name = "units/00001-000.json"
    text, manifest_text = (output / name).read_text(), (output / "manifest.json").read_text()
    for place in list(leaves(json.loads(text))):
        if place[0] == "sha256":
            continue
        sidecar, manifest = json.loads(text), json.loads(manifest_text)
        edit(sidecar, place)
        del sidecar["sha256"]
        (output / name).write_bytes(sealed_bytes(sidecar))
        manifest["files"][name] = file_hash(output / name)
        (output / "manifest.json").write_text(reseal(manifest, fingerprinted=True))
        assert verify(output).problems, place


def shifted_source(rows):
    """A piece of one document is given to another."""
    everything = [source for row in rows for source in row["sources"]]
    piece = next(source for source in everything if source["start"])
    piece["row"] = next(source["row"] for source in everything if source["row"] != piece["row"])
    return rows


ROWS = {
    "a row lost": (lambda rows: rows[:-1], "is not what the rows of its shards give"),
    "a row twice": (lambda rows: [*rows, rows[-1]], "there twice"),
    "a label": (of_row(2, "labels", 5, 7), "row 2: a label is neither"),
    "a position": (of_row(2, "position_ids", 5, 7), "row 2: position_ids"),
    "an id": (of_row(2, "input_ids", 5, 7), "row 2: a label is neither"),
    "a source": (shifted_source, "source 0 row"),
    "a length": (of_row(0, "seq_lengths", 0, 7), "row 0: seq_lengths do not sum"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_are_wrong_are_found_when_every_hash_is_right(output, name):
    """A bug in assemble has the right sha256."""
    change, what = ROWS[name]
    rewrite_shard(output, SHARD, change)
    found = wrong(output)
    assert any(what in each for _, each in found), found


def test_a_row_in_two_parts_is_found(output):
    """Each part on its own looks right."""
    with pa.ipc.open_stream((output / OTHER).read_bytes()) as reader:
        rows = reader.read_all().to_pylist()
    rewrite_shard(output, SHARD, lambda _: rows)
    assert any("also among the rows of" in what for _, what in wrong(output))


def test_another_schema_is_found(output):
    """Metadata tells trainers which tokenizer and which padding."""
    data = (output / SHARD).read_bytes()
    (output / SHARD).write_bytes(data.replace(b'"max_len": 256', b'"max_len": 255', 1))
    rewrite_shard(output, SHARD, lambda rows: rows)
    assert (SHARD, "its schema or the metadata of the schema is not that of the run") in wrong(output)


def test_the_shard_of_a_split_without_rows_is_looked_at(tmp_path):
    """It is no shard of a part; load_from_disk fails without it, and would give what is put in its place."""
    output = pack(tmp_path / "out", val_fraction=1e-9)
    name = "validation/data-empty.arrow"
    whole = (output / name).read_bytes()
    for damage in (b"", whole[:-1], whole[:50] + b"\1" + whole[51:], (output / SHARD).read_bytes()):
        (output / name).write_bytes(damage)
        assert {file for file, _ in wrong(output)} == {name}
    (output / name).unlink()
    assert {file for file, _ in wrong(output)} == {name}
    shutil.copy(output / SHARD, output / name)
    manifest = json.loads((output / "manifest.json").read_bytes())
    manifest["files"][name] = file_hash(output / name)
    (output / "manifest.json").write_text(reseal(manifest, fingerprinted=False))
    assert wrong(output) == [(name, "has rows, and stands for a split without rows")]


def test_names_in_an_output_lead_nowhere_else(output):
    """A stranger's output must not make verify read what is not its own."""
    secret = output.parent / "secret.arrow"
    shutil.copy(output / SHARD, secret)
    sidecar = json.loads((output / "units/00001-000.json").read_bytes())
    del sidecar["sha256"]
    sidecar["shards"]["train"]["file"] = "train/../../secret.arrow"
    (output / "units/00001-000.json").write_bytes(sealed_bytes(sidecar))
    manifest = json.loads((output / "manifest.json").read_bytes())
    manifest["files"]["units/00001-000.json"] = file_hash(output / "units/00001-000.json")
    manifest["files"]["../../../etc/passwd"] = "0" * 64
    (output / "manifest.json").write_text(reseal(manifest, fingerprinted=False))
    verdict = verify(output)
    assert verdict.num_shards == 0
    assert any("names the shard" in each.what for each in verdict.problems)
    assert any("passwd" in each.what for each in verdict.problems)
    manifest = json.loads((output / "manifest.json").read_bytes())
    next(each for each in manifest["splits"]["train"] if each["unit"] == 1)["file"] = "train/../../secret.arrow"
    (output / "manifest.json").write_text(reseal(manifest, fingerprinted=False))
    verdict = verify(output)
    assert verdict.num_shards == 0
    assert "'train/../../secret.arrow', which is no shard" in verdict.problems[0].what


DAMAGER = """
import random, sys
from pathlib import Path
from packcli.dataset.checks.invariants import Rules
from packcli.dataset import check_files
from packcli.dataset.checks.rows import check_rows_of, rules_of
from packcli.dataset import run_schema

root, shard, count, target = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
record, _ = check_files(root)
schema, rules = run_schema(record.config, record.tokenizer), rules_of(record)
data = (root / shard).read_bytes()
dice = random.Random(count)
found = 0
for number in range(count):
    damaged = bytearray(data)
    kind = number % 4
    if kind == 0:  # bits anywhere
        for _ in range(dice.randint(1, 8)):
            damaged[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == 1:  # numbers at the beginning, where the schema and the first batch say how long things are
        at = 4 * dice.randrange(min(len(data), 4096) // 4)
        damaged[at : at + 4] = dice.choice([b"\\xff" * 4, b"\\xff\\xff\\xff\\x7f", b"\\0" * 4, dice.randbytes(4)])
    elif kind == 2:  # numbers anywhere: offsets among them
        at = 4 * dice.randrange(len(data) // 4)
        damaged[at : at + 4] = dice.choice([b"\\xff" * 4, b"\\xff\\xff\\xff\\x7f", dice.randbytes(4)])
    else:  # cut, or a piece doubled or lost
        one, other = sorted(dice.randrange(len(data)) for _ in range(2))
        damaged = dice.choice([damaged[:one], damaged[:one] + damaged[other:], damaged[:other] + damaged[one:]])
    target.write_bytes(damaged)
    found += bool(list(check_rows_of(target, schema, rules)))
print(found)
"""


def test_damaged_shards_never_crash_the_reader(tmp_path):
    """With the right sha256, as a stranger could make them; offsets that lead anywhere end pyarrow with a signal."""
    output = pack(tmp_path / "out", max_len=64)
    shard = min((path for path in output.glob("*.arrow")), key=lambda path: path.stat().st_size).name
    arguments = [sys.executable, "-c", DAMAGER, str(output), shard, str(DAMAGES), str(tmp_path / "damaged.arrow")]
    child = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    assert int(child.stdout) > DAMAGES // 2


# --- the command ---


def test_the_command_shows_what_is_wrong_and_exits_with_3(output):
    sound = invoke(output)
    assert (sound.exit_code, sound.stdout) == (0, "")
    assert re.search(r"out: sound \(1\d shards, \d+ rows, [\d,]+ tokens; ", sound.stderr)
    assert invoke(output, "-q").output == ""
    (output / SHARD).write_bytes(b"")
    result = invoke(output, "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    keys = (
        "output sound problems num_shards num_rows num_tokens num_bytes num_documents_compared absent same_as"
        " restored seconds"
    )
    assert list(found) == keys.split()
    assert (found["sound"], found["problems"][0]["file"]) == (False, SHARD)
    assert f"wrong: {SHARD}: has 0 bytes, had" in result.stderr
    assert "1 problems" in result.stderr
    assert f"wrong: {SHARD}" in invoke(output, "-q").stderr


def test_what_is_no_output_is_no_output(tmp_path):
    with pytest.raises(OutputError, match="not an output of packcli"):
        verify(tmp_path)
    assert invoke(tmp_path).exit_code == 2
    assert invoke(tmp_path / "nowhere").exit_code == 2


def test_an_unfinished_output_is_not_sound(tmp_path, output):
    (output / "manifest.json").unlink()
    assert wrong(output) == [("manifest.json", "is missing: the run was not finished, or the file is lost")]


def test_a_copy_without_the_state_of_the_machine_is_sound(output):
    shutil.rmtree(output / ".packcli")
    assert wrong(output) == []
    (output / "train" / "cache-0123456789abcdef.arrow").write_bytes(b"datasets leaves these")
    assert wrong(output) == []


@pytest.mark.parametrize("name", ["chat.jsonl", "prompt_completion.jsonl"])
@pytest.mark.parametrize("columns", ["all", "compact,sources"])
def test_a_dataset_with_a_loss_mask_is_sound(tmp_path, name, columns):
    """Labels are -100 inside segments there; documents without loss are in no pack, and that is no problem."""
    packcli.pack(SAMPLE.with_name(name), tmp_path / "out", max_len=64, columns=columns, workers=1)
    verdict = verify(tmp_path / "out", against=[str(SAMPLE.with_name(name))])
    assert verdict.problems == []
    assert verdict.is_sound
    stats = read_report(tmp_path / "out").stats
    assert {each.cause for each in verdict.absent} <= {"no token that carries loss"}
    assert len(verdict.absent) == stats.num_documents_no_loss + stats.num_documents_no_loss_left


def test_chats_that_got_bos_because_it_was_asked_for_are_sound(tmp_path, monkeypatch):
    """Whether it was asked for is no setting in the manifest; without it every chat would seem to have changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    chats = SAMPLE.with_name("chat.jsonl")
    output = pack(tmp_path / "out", chats, chat_template="plain.jinja", add_bos=True, add_eos=True)
    assert verify(output, deep=True).problems == []


def test_a_label_that_the_text_does_not_give_is_found(tmp_path, monkeypatch):
    """A mask that moved by one token trains on the prompt."""
    packcli.pack(SAMPLE.with_name("chat.jsonl"), tmp_path / "out", max_len=512, workers=1)

    def moved(*arguments):
        for part in tokenize_unit(*arguments):
            part.tokens.loss[1:] = part.tokens.loss[:-1].copy()
            yield part

    monkeypatch.setattr("packcli.verification.deep.tokenize_unit", moved)
    verdict = verify(tmp_path / "out", deep=True)
    assert any("holds label" in each.what for each in verdict.problems)
