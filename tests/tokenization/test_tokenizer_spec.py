"""Where a tokenizer comes from, which tokens are EOS, BOS and pad, and what is taken out before it is loaded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from tokenizer_files import IS_0, added

from packcli.config import PackConfig
from packcli.errors import StorageError, TokenizerError
from packcli.tokenization import TokenizerSpec, choose_engine, find_tokenizer, make_engine
from packcli.tokenization.engines import ENGINES

EOS, PAD, BOS, OTHER = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"

Make = Callable[..., Path]


@pytest.fixture
def make(tokenizer_dir: Path, tmp_path: Path) -> Make:
    """A tokenizer directory with other files beside, or with a tokenizer.json edited by a function."""

    def build(
        edit: Callable[[dict[str, Any]], object] | None = None, *, config: object = None, special_map: object = None
    ) -> Path:
        directory = tmp_path / "model"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        data = json.loads((tokenizer_dir / "tokenizer.json").read_bytes())
        if edit is not None:
            edit(data)
        (directory / "tokenizer.json").write_text(json.dumps(data))
        for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special_map)):
            if content is not None:
                (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return directory

    return build


def find(tokenizer: object, *, allow_network: bool = False, **settings: Any) -> TokenizerSpec:
    return find_tokenizer(PackConfig(tokenizer=str(tokenizer), **settings), allow_network=allow_network)


# --- where it comes from ---


def test_a_directory_and_its_file_are_the_same_tokenizer(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make(config={"eos_token": EOS})
    spec = find(directory)
    assert (spec.name, spec.path, spec.vocab_size) == ("model", str(directory / "tokenizer.json"), 300)
    assert find(directory / "tokenizer.json") == spec
    monkeypatch.chdir(directory)
    for spelling in (".", "tokenizer.json", "../model", "./tokenizer.json"):
        assert find(spelling).identity() == spec.identity()


def test_a_file_of_another_name_gives_its_own(make: Make) -> None:
    directory = make(config={"eos_token": EOS})
    (directory / "tokenizer.json").rename(directory / "mine.json")
    assert find(directory / "mine.json").name == "mine.json"


def test_the_identity_holds_no_path(make: Make, tmp_path: Path) -> None:
    """It is hashed: the same tokenizer elsewhere must be the same run."""
    spec = find(make(config={"eos_token": EOS}))
    assert str(tmp_path) not in json.dumps(spec.identity())
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_nothing_in_a_directory_is_run(make: Make, tmp_path: Path) -> None:
    directory = make(config={"eos_token": EOS, "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}})
    (directory / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (directory / "tokenizer.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    make_engine("tokenizers", find(directory)).encode(["a"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_link_out_of_a_directory_is_refused(make: Make, tmp_path: Path, file: str) -> None:
    """A stranger's directory could make packcli read, and a template repeat, what is not the stranger's."""
    directory = make(config={"eos_token": EOS}, special_map={"eos_token": EOS})
    secret = tmp_path / "secret"
    (directory / file).rename(secret)
    (directory / file).symlink_to(secret)
    with pytest.raises(TokenizerError, match=f"{file}: a link that leads out of its directory"):
        find(directory)
    (directory / file).unlink()
    secret.rename(directory / "inside")
    (directory / file).symlink_to("inside")
    assert find(directory).eos_token == EOS


def test_a_unigram_vocabulary_is_a_list(tmp_path: Path) -> None:
    vocab = [["<unk>", 0.0], ["</s>", 0.0], ["\u2581the", -1.0], ["\u2581", -2.0], ["c", -3.0], ["at", -3.0]]
    data = {"model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}, "added_tokens": [added("</s>", 1)]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", **data}))
    spec = find(tmp_path, eos_token="</s>")
    assert (spec.eos_id, spec.vocab_size) == (1, 6)
    assert len(make_engine("tokenizers", spec).encode(["the cat"])[0]) > 0


# --- what is none ---


def test_a_directory_without_one_lists_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer.json in this directory; it holds nothing"):
        find(tmp_path)
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(TokenizerError, match=r"no tokenizer.json in this directory; it holds tokenizer\.model\n.*save"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/x", "a/b/c", "tokenizr.json"])
def test_a_path_that_is_not_there_is_no_hub_name(name: str) -> None:
    with pytest.raises(TokenizerError, match=rf"--tokenizer {name}: no such file or directory"):
        find(name)


def test_a_path_that_is_not_there_names_the_nearest(make: Make) -> None:
    directory = make()
    with pytest.raises(TokenizerError, match=r"no such file or directory; did you mean tokenizer\.json\?"):
        find(directory / "tokeniser.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"just text", "not a tokenizer.json: Expecting value"),
        (b"", "not a tokenizer.json: Expecting value"),
        (b"\xff\xfe\x00", "not a tokenizer.json: 'utf-8' codec"),
        ("{}".encode("utf-16"), "not a tokenizer.json: 'utf-8' codec"),
        (b"\xef\xbb\xbf{}", "not a tokenizer.json: Unexpected UTF-8 BOM"),
        (b"[" * 100_000, "not a tokenizer.json: "),
        (b"[1, 2]", "JSON, but not a tokenizer.json: it has no model with a vocab"),
        (b'{"text": "a"}', "JSON, but not a tokenizer.json: it has no model with a vocab"),
        (b'{"model": "BPE"}', "JSON, but not a tokenizer.json: it has no model with a vocab"),
        (b'{"model": {"merges": []}}', "JSON, but not a tokenizer.json: it has no model with a vocab"),
        (b'{"model": {"vocab": {}}}', "not a usable tokenizer.json: ids must be integers"),
        (b'{"model": {"vocab": {"a": "0"}}}', "not a usable tokenizer.json: ids must be integers"),
        (b'{"model": {"vocab": {"a": -1}}}', "not a usable tokenizer.json: ids must be integers"),
        (b'{"model": {"vocab": {"a": 2147483648}}}', "not a usable tokenizer.json: ids must be integers"),
        (b'{"model": {"vocab": ["a"]}}', "not a usable tokenizer.json: "),
        (b'{"model": {"vocab": 3}}', "not a usable tokenizer.json: "),
        (b'{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1}]}', "not a usable tokenizer.json: "),
        (b'{"model": {"vocab": {"a": 0}}, "added_tokens": {"a": 1}}', "not a usable tokenizer.json: "),
    ],
)
def test_what_is_no_tokenizer_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json: {message}"):
        find(tmp_path, eos_token="a")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read"), ("[]", "not a JSON object"), ("", "cannot")])
def test_a_damaged_file_beside_it_is_named(make: Make, name: str, content: str, message: str) -> None:
    """Passed over, it would leave the run with another EOS."""
    directory = make()
    (directory / name).write_text(content)
    with pytest.raises(TokenizerError, match=rf"{name}: {message}"):
        find(directory, eos_token=EOS)


# --- the hub ---


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    cache = tmp_path / "hf" / "hub"
    cache.mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))  # was read from HF_HOME at import
    return cache


OFFLINE = """
import socket
asked = []
socket.getaddrinfo = lambda *address, **_: asked.append(address)
socket.socket.connect = lambda self, address: asked.append(address)
from packcli.config import PackConfig
from packcli.tokenization import find_tokenizer
for name in ("gpt2", "org/name"):
    try:
        find_tokenizer(PackConfig(tokenizer=name), allow_network=False)
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
print(asked)
"""


def test_a_hub_name_that_is_not_in_the_cache_is_not_fetched(tmp_path: Path) -> None:
    """Without it packcli would go to the network unasked; in a fresh process, since the hub asks once in each."""
    env = {**os.environ, "HF_HOME": str(tmp_path)}
    child = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, check=True, env=env, text=True)
    said = "no such file or directory, and not in the hub cache --allow-network lets packcli fetch it from the hub"
    assert child.stdout.splitlines() == [
        f"TokenizerError --tokenizer {name}: {said}" for name in ("gpt2", "org/name")
    ] + ["[]"]


def test_a_hub_name_that_is_in_the_cache_is_found_offline(hub: Path, make: Make) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = hub / "models--org--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    shutil.copytree(make(config={"eos_token": OTHER}, special_map={"pad_token": PAD}), model / "snapshots" / commit)
    spec = find("org/name")
    assert (spec.name, spec.eos_token, spec.pad_token) == ("org/name", OTHER, PAD)
    assert Path(spec.path).is_relative_to(model)


def test_a_fetch_that_fails_says_so(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, file: str) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(TokenizerError, match="--tokenizer org/name: cannot be fetched from the hub: no route to host"):
        find("org/name", allow_network=True)


@pytest.mark.parametrize("name", ["a name", "org/na--me", "x" * 200])
def test_what_cannot_be_a_hub_name_is_said_to_be_nothing(hub: Path, name: str) -> None:
    with pytest.raises(TokenizerError, match="is neither a file, nor a directory, nor a hub name"):
        find(name)


# --- EOS, BOS, pad ---


@pytest.mark.parametrize("file", ["config", "special_map"])
@pytest.mark.parametrize("form", ["string", "dict"])
def test_special_tokens_are_read_from_both_files_in_both_forms(make: Make, file: str, form: str) -> None:
    """transformers writes either, and older versions only the one or the other."""
    names = {"eos_token": OTHER, "bos_token": BOS, "pad_token": PAD}
    content = names if form == "string" else {key: {"content": token, "lstrip": False} for key, token in names.items()}
    spec = find(make(**{file: content}), add_bos=True)
    assert (spec.eos_token, spec.bos_token, spec.pad_token) == (OTHER, BOS, PAD)
    assert (spec.eos_id, spec.bos_id, spec.pad_id) == (3, 2, 1)


def test_tokenizer_config_wins_and_options_win_over_both(make: Make) -> None:
    directory = make(config={"eos_token": OTHER}, special_map={"eos_token": EOS, "pad_token": PAD})
    assert find(directory).eos_token == OTHER
    assert find(directory).pad_token == PAD
    assert find(directory, eos_token=BOS, pad_token=OTHER).identity() == {
        **find(directory).identity(),
        "eos_token": BOS,
        "eos_id": 2,
        "pad_token": OTHER,
        "pad_id": 3,
    }


def test_null_in_the_later_file_does_not_hide_the_earlier_one(make: Make) -> None:
    assert find(make(config={"eos_token": None}, special_map={"eos_token": EOS})).eos_token == EOS


def test_pad_is_eos_when_no_pad_is_named(make: Make) -> None:
    spec = find(make(config={"eos_token": OTHER}))
    assert (spec.pad_token, spec.pad_id) == (OTHER, 3)


def test_no_eos_lists_the_candidates(make: Make) -> None:
    """A tokenizer.json alone does not say which token is EOS: to guess would train a model that never stops."""
    with pytest.raises(TokenizerError, match="it names no EOS token") as caught:
        find(make())
    listed = "its special tokens are <|endoftext|> <|pad|> <|im_start|> <|im_end|>"
    assert caught.value.hint == f"give one with --eos-token, or --no-eos for none; {listed}"
    with pytest.raises(TokenizerError, match="it has no special tokens"):
        find(make(lambda data: data["added_tokens"].clear()))


def test_without_eos_a_pad_token_must_be_named(make: Make) -> None:
    with pytest.raises(TokenizerError, match="no pad token and no EOS\ngive one with --pad-token"):
        find(make(), add_eos=False)
    spec = find(make(), add_eos=False, pad_token=PAD)
    assert (spec.eos_token, spec.eos_id, spec.pad_id) == (None, None, 1)
    assert find(make(config={"eos_token": EOS}), add_eos=False).pad_id == 0


@pytest.mark.parametrize("option", ["eos_token", "pad_token"])
def test_a_token_that_is_not_in_the_vocabulary_names_the_nearest(make: Make, option: str) -> None:
    settings = {"eos_token": EOS, option: "<endoftext>"}
    flag = "--" + option.replace("_", "-")
    with pytest.raises(
        TokenizerError, match=r"model has no token '<endoftext>'; did you mean '<\|endoftext\|>'\?"
    ) as e:
        find(make(), **settings)
    assert e.value.hint.startswith(f"{flag}: its special tokens are")


def test_an_ordinary_token_may_be_eos(make: Make) -> None:
    spec = find(make(), eos_token="a")
    assert spec.eos_id == json.loads((make() / "tokenizer.json").read_bytes())["model"]["vocab"]["a"]


def template(first: str) -> dict[str, Any]:
    single = [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {first: {"id": first, "ids": [2], "tokens": [first]}},
    }


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
SEQUENCE = {"type": "Sequence", "processors": [BYTE_LEVEL, template(BOS)]}
NO_BOS = {"type": "Sequence", "processors": [BYTE_LEVEL]}
ENDS = {**template(BOS), "single": template(BOS)["single"][::-1]}


@pytest.mark.parametrize(
    ("post_processor", "config", "add_bos", "bos_id"),
    [
        (None, {}, None, None),
        (None, {"add_bos_token": True}, None, 2),
        (template(BOS), {}, None, 2),
        (SEQUENCE, {}, None, 2),  # Llama 3
        (NO_BOS, {}, None, None),
        (BYTE_LEVEL, {}, None, None),
        (ENDS, {}, None, None),
        (template(OTHER), {}, None, None),  # a template that begins with another token
        (template(BOS), {"add_bos_token": False}, None, None),
        (NO_BOS, {"add_bos_token": None}, None, None),
        (template(BOS), {}, False, None),
        (None, {}, True, 2),
    ],
)
def test_whether_bos_is_added(
    make: Make, post_processor: object, config: dict[str, object], add_bos: bool | None, bos_id: int | None
) -> None:
    """Option, then tokenizer_config.json, then the template of the tokenizer itself."""
    directory = make(
        lambda data: data.update(post_processor=post_processor), config={"eos_token": EOS, "bos_token": BOS, **config}
    )
    spec = find(directory, add_bos=add_bos)
    assert (spec.bos_id, spec.bos_token) == (bos_id, None if bos_id is None else BOS)
    for name in ENGINES:  # BOS is put by packcli, never by the engine
        assert make_engine(name, spec).encode(["a"])[0].tolist() != [2]
        assert len(make_engine(name, spec).encode(["a"])[0]) == 1


def test_bos_that_is_not_named_cannot_be_added(make: Make) -> None:
    with pytest.raises(TokenizerError, match="--bos, but it names no BOS token"):
        find(make(config={"eos_token": EOS}), add_bos=True)


# --- what is taken out ---

TRUNCATION = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 50},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 1,
    "pad_type_id": 0,
    "pad_token": PAD,
}


@pytest.mark.parametrize("extra", [{"truncation": TRUNCATION}, {"padding": PADDING}])
def test_truncation_and_padding_of_the_file_are_not_obeyed(make: Make, extra: dict[str, object]) -> None:
    """Many published files carry them: every document would be cut to 512 tokens, in silence."""
    plain = find(make(config={"eos_token": EOS}))
    texts = ["the cat sat on the mat and the dog ran after it", "a"]
    want = make_engine("tokenizers", plain).encode(texts)
    assert not plain.needs_edit
    spec = find(make(lambda data: data.update(extra), config={"eos_token": EOS}))
    assert spec.needs_edit
    for name in ENGINES:
        ids, offsets = make_engine(name, spec).encode(texts)
        assert (ids.tolist(), offsets.tolist()) == (want[0].tolist(), want[1].tolist())


def ordinary(data: dict[str, Any]) -> None:
    for token in data["added_tokens"]:
        token["special"] = False


def test_eos_that_is_not_marked_special_is_not_spelled_by_text(make: Make) -> None:
    """encode_special_tokens only touches tokens marked special; some files mark none."""
    spec = find(make(ordinary, config={"eos_token": EOS, "pad_token": PAD}))
    assert spec.needs_edit
    text = f"a{EOS}b{PAD}c{OTHER}"
    for name in ENGINES:
        ids = make_engine(name, spec).encode([text])[0].tolist()
        assert not {0, 1} & set(ids)
        assert ids[-1] == 3, "a token that is no control token of this run stays a token"
    allowed = find(make(ordinary, config={"eos_token": EOS, "pad_token": PAD}), allow_special=True)
    assert not allowed.needs_edit
    for name in ENGINES:
        assert {0, 1, 3} <= set(make_engine(name, allowed).encode([text])[0].tolist())


def test_a_file_that_changes_during_the_run_is_noticed(make: Make) -> None:
    """A worker that starts later would encode with other ids."""
    directory = make(config={"eos_token": EOS})
    spec = find(directory)
    assert json.loads(spec.load())["model"]["type"] == "BPE"
    make(lambda data: data.update(version="1.1"))
    with pytest.raises(StorageError, match=r"tokenizer\.json: the tokenizer has changed during the run"):
        spec.load()
    (directory / "tokenizer.json").unlink()
    with pytest.raises(StorageError, match="No such file"):
        make_engine("tokenizers", spec)


def test_a_structure_that_only_tokenizers_reads_is_left_to_it(make: Make) -> None:
    """A fuzzer found that it takes a list for a normalizer; the fast engine must not be asked then."""
    directory = make(lambda data: data.update(normalizer=["a"]), config={"eos_token": EOS})
    if not IS_0:
        with pytest.raises(TokenizerError, match=r"cannot load it: [^\n]*\nan older one may: pip install"):
            choose_engine(find(directory), "auto", ["the cat"])
        return
    choice = choose_engine(find(directory), "auto", ["the cat"])
    assert (choice.engine.name, choice.reason) == ("tokenizers", "not fastokens: its structure is not known")
