"""The fast engine is used only where it equals `tokenizers`: wrong engines are planted here, and must be found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packcli.config import PackConfig
from packcli.errors import EngineError, TokenizerError
from packcli.tokenization import (
    Engine,
    SpotCheck,
    TokenizerSpec,
    choose_engine,
    find_tokenizer,
    guard,
    keep_loaded,
    load_encoder,
    make_engine,
)
from packcli.tokenization.guard import (
    FAST_LOAD_SPEED,
    SPOT_CHECK_CHARS,
    SPOT_CHECK_EVERY,
    SPOT_CHECK_TOGETHER,
    awkward_strings,
    first_difference,
    is_released,
    unsafe_structure,
)
from packcli.tokenization.reference import bytes_per_second


@pytest.fixture(scope="module")
def spec(tokenizer_dir: Path) -> TokenizerSpec:
    return find_tokenizer(PackConfig(tokenizer=str(tokenizer_dir)), allow_network=False)


@pytest.fixture(autouse=True)
def released(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite runs with pre-releases of `tokenizers` as well, which are trusted less."""
    monkeypatch.setattr(guard, "is_released", lambda reference: True)


# --- structure ---


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def structure(
    model: Any = None, normalizer: Any = None, pre_tokenizer: Any = BYTE_LEVEL, **more: Any
) -> dict[str, Any]:
    """A tokenizer.json as the library writes it; without arguments a plain byte-level BPE."""
    return {
        "version": "1.0",
        "added_tokens": [],
        "model": model or bpe(vocab={"a": 0}),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
    }


def bpe(**settings: Any) -> dict[str, Any]:
    return {"type": "BPE", "dropout": None, "merges": [], "byte_fallback": False, **settings}


def steps(*before: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [*before, BYTE_LEVEL]}


def split(behavior: str, *, invert: bool = False) -> dict[str, Any]:
    return steps({"type": "Split", "pattern": {"Regex": r"\p{L}+"}, "behavior": behavior, "invert": invert})


def normalizers(*types: str) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [{"type": each} for each in types]}


VOCAB = {"a": 0, "[UNK]": 1, "b": 2, "ab": 3}

SAFE = {
    "GPT-2": structure(),
    "NFC": structure(normalizer={"type": "NFC"}),
    "NFC in a sequence": structure(normalizer=normalizers("NFC")),
    "GPT-4, Llama 3": structure(pre_tokenizer=split("Isolated")),
    "dolma2": structure(pre_tokenizer=split("Removed", invert=True)),
    "StarCoder": structure(pre_tokenizer=steps({"type": "Digits", "individual_digits": True})),
    "Llama 2": structure(
        model=bpe(vocab=VOCAB, byte_fallback=True), normalizer=normalizers("Prepend", "Replace"), pre_tokenizer=None
    ),
    "a model without a type": structure({"vocab": {"a": 0}, "merges": []}),
}

UNSAFE = {
    "Unigram": (structure({"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}), "model Unigram is not BPE"),
    "WordPiece": (structure({"type": "WordPiece", "vocab": VOCAB}), "model WordPiece is not BPE"),
    "WordLevel": (structure({"type": "WordLevel", "vocab": VOCAB}), "model WordLevel is not BPE"),
    "dropout": (structure(bpe(vocab=VOCAB, dropout=0.1)), "BPE dropout is random"),
    "prefix": (
        structure(bpe(vocab=VOCAB, continuing_subword_prefix="##")),
        "BPE with continuing_subword_prefix",
    ),
    "suffix": (structure(bpe(vocab=VOCAB, end_of_word_suffix="</w>")), "BPE with end_of_word_suffix"),
    "NFKC": (structure(normalizer={"type": "NFKC"}), "normalizer NFKC"),
    "NFD": (structure(normalizer={"type": "NFD"}), "normalizer NFD"),
    "Lowercase": (
        structure(normalizer=normalizers("NFC", "Lowercase")),
        "normalizer NFC, Lowercase",
    ),
    "Metaspace": (structure(pre_tokenizer={"type": "Metaspace"}), "pre-tokenizer Metaspace"),
    "Whitespace": (structure(pre_tokenizer={"type": "Whitespace"}), "pre-tokenizer Whitespace"),
    "ByteLevel is not last": (
        structure(pre_tokenizer={"type": "Sequence", "pretokenizers": [BYTE_LEVEL, {"type": "Digits"}]}),
        "pre-tokenizer Digits",
    ),
    "Punctuation": (structure(pre_tokenizer=steps({"type": "Punctuation"})), "pre-tokenizer Punctuation"),
    "a sequence in a sequence": (
        structure(pre_tokenizer=steps(steps())),
        "pre-tokenizer Sequence",
    ),
    "no pre-tokenizer": (structure(pre_tokenizer=None), "no pre-tokenizer and no byte fallback"),
    "merged with previous": (structure(pre_tokenizer=split("MergedWithPrevious")), "behavior MergedWithPrevious"),
    "merged with next": (structure(pre_tokenizer=split("MergedWithNext")), "behavior MergedWithNext"),
    "contiguous": (structure(pre_tokenizer=split("Contiguous")), "behavior Contiguous"),
    "removed": (structure(pre_tokenizer=split("Removed")), "Split with behavior Removed"),
}


@pytest.mark.parametrize("name", SAFE)
def test_a_known_structure_is_tried(name: str) -> None:
    """Without it the models that people use would be encoded fifty times slower."""
    assert unsafe_structure(SAFE[name]) is None


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unknown_structure_is_not_tried(name: str) -> None:
    """On some of these the fast engine loads and gives other ids."""
    data, reason = UNSAFE[name]
    assert reason in str(unsafe_structure(data))


def test_an_unsafe_tokenizer_is_encoded_by_the_reference(tmp_path: Path) -> None:
    """The fast engine must not even be loaded."""
    model = {
        "type": "WordPiece",
        "vocab": {**VOCAB, "</s>": 4},
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }
    data = structure(model, pre_tokenizer={"type": "Whitespace"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    spec = find_tokenizer(PackConfig(tokenizer=str(tmp_path), eos_token="</s>"), allow_network=False)
    asked: list[str] = []

    def make(name: str, *args: Any, **settings: Any) -> Engine:
        asked.append(name)
        return make_engine(name, *args, **settings)

    choice = choose_engine(spec, "auto", ["ab"], make=make)
    assert (choice.engine.name, choice.reason) == ("tokenizers", "not fastokens: model WordPiece is not BPE")
    assert asked == ["tokenizers"]
    assert choice.engine.encode(["ab a"])[0].tolist() == [3, 0]
    with pytest.raises(EngineError, match="--tokenizer-engine fastokens: model WordPiece is not BPE\nleave the option"):
        choose_engine(spec, "fastokens", ["ab"])


def test_a_pre_release_is_compared_and_not_trusted(spec: TokenizerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """1.0.0rc2 was wrong on Chinese: as the reference of a small run it would decide alone."""
    monkeypatch.setattr(guard, "is_released", lambda reference: False)
    assert choose_engine(spec, "auto", ["ab"], num_bytes=0).engine.name == "fastokens"
    with pytest.raises(EngineError, match=r"tokenizers \d[\w.-]+, a pre-release, differ on the first texts"):
        choose_engine(spec, "auto", ["ab"], num_bytes=0, make=planted(lambda text: text == "ab"))
    choice = choose_engine(spec, "tokenizers", ["ab"], make=planted(lambda text: text == "ab"))
    assert choice.engine.name == "tokenizers"


@pytest.mark.parametrize(
    ("version", "expected"), [("0.23.3", True), ("1.0.0", True), ("1.0.0-rc.3", False), ("1.0.0rc3", False)]
)
def test_a_version_tells_whether_it_is_released(spec: TokenizerSpec, version: str, expected: bool) -> None:
    engine = Planted(make_engine("tokenizers", spec), lambda text: False)
    engine.version = version
    assert is_released(engine) is expected


def test_for_little_text_the_fast_engine_is_not_loaded(spec: TokenizerSpec) -> None:
    """Ten documents would wait longer for it than for their tokens; who asks for it by name gets it."""
    asked: list[str] = []

    def make(name: str, *args: Any, **settings: Any) -> Engine:
        asked.append(name)
        return make_engine(name, *args, **settings)

    enough = len(spec.load()) * bytes_per_second() // FAST_LOAD_SPEED
    choice = choose_engine(spec, "auto", ["ab"], num_bytes=enough - 1, make=make)
    assert choice.engine.name == "tokenizers"
    assert re.fullmatch(r"not fastokens: to load it takes longer than to encode \d+ kB", choice.reason)
    assert asked == ["tokenizers"]
    for wanted, num_bytes in (("auto", enough + 1), ("auto", None), ("fastokens", 0)):
        assert choose_engine(spec, wanted, ["ab"], num_bytes=num_bytes).engine.name == "fastokens"


# --- at start ---


class Planted:
    """The reference, but wrong where it is told to be."""

    name = "fastokens"
    version = "0"

    def __init__(self, reference: Engine, wrong: Callable[[str], bool]) -> None:
        self._reference, self._wrong = reference, wrong

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        ids, offsets = self._reference.encode(texts)
        ids = ids.copy()
        for index, text in enumerate(texts):
            if self._wrong(text) and offsets[index + 1] > offsets[index]:
                ids[offsets[index]] += 1
        return ids, offsets


def planted(wrong: Callable[[str], bool]) -> Callable[..., Engine]:
    """make_engine, with a wrong engine in place of the fast one."""

    def make(name: str, spec: TokenizerSpec, **settings: Any) -> Engine:
        reference = make_engine("tokenizers", spec, **settings)
        return reference if name == "tokenizers" else Planted(reference, wrong)

    return make


def fails(text: str) -> bool:
    raise RuntimeError("encode deadlock")


def fails_on_the_sample(text: str) -> bool:
    if "planted" in text:
        raise MemoryError
    return False


WRONG = {
    "on U+180E only": (lambda text: "\u180e" in text, r"it differs from tokenizers on awkward strings: '.*\\u180e"),
    "on a tab before punctuation": (lambda text: "\t#" in text, r"on awkward strings: '.*\\t#"),
    "on a special literal": (lambda text: "<|im_end|>" in text, r"on awkward strings: '.*<\|im_end\|>"),
    "on a long run of spaces": (lambda text: " " * 33 in text, r"on awkward strings: '  .*'\.\.\.\n"),
    "on a text of the input": (lambda text: "planted" in text, "on the first texts of the input: 'a planted text'"),
    "it raises": (fails, "it fails on awkward strings: RuntimeError"),
    "it raises on the input": (fails_on_the_sample, "it fails on the first texts of the input: MemoryError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_engine_is_found_at_start(spec: TokenizerSpec, name: str) -> None:
    wrong, reason = WRONG[name]
    sample = ["the cat", "a planted text", "the dog"]
    choice = choose_engine(spec, "auto", sample, make=planted(wrong))
    assert choice.engine.name == "tokenizers"
    assert choice.reason.startswith("not fastokens: it ")
    with pytest.raises(EngineError, match=reason):
        choose_engine(spec, "fastokens", sample, make=planted(wrong))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("unknown variant `X`\nmore"), "unknown variant `X`"), (ImportError(), "ImportError")],
)
def test_an_engine_that_does_not_load_is_not_used(spec: TokenizerSpec, error: Exception, reason: str) -> None:
    """There is no wheel of it for every machine."""

    def make(name: str, spec: TokenizerSpec, **settings: Any) -> Engine:
        if name == "fastokens":
            raise error
        return make_engine(name, spec, **settings)

    choice = choose_engine(spec, "auto", [], make=make)
    assert (choice.engine.name, choice.reason) == ("tokenizers", f"not fastokens: it does not load: {reason}")
    with pytest.raises(EngineError, match="it does not load"):
        choose_engine(spec, "fastokens", [], make=make)


def test_an_engine_that_moves_a_border_is_found(spec: TokenizerSpec) -> None:
    """The ids of all texts together can be right, and those of each wrong."""

    class Shifted(Planted):
        def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            ids, offsets = self._reference.encode(texts)
            offsets = offsets.copy()
            offsets[1:-1] += 1
            return ids, offsets

    reference = make_engine("tokenizers", spec)
    assert first_difference(Shifted(reference, fails), reference, ["the cat", "the dog"]) == "the cat"


def test_equal_engines_are_equal(spec: TokenizerSpec) -> None:
    engines = [make_engine(name, spec) for name in ("fastokens", "tokenizers")]
    assert first_difference(*engines, ["the cat", "", "the dog"]) is None
    assert first_difference(*engines, []) is None


def test_the_right_engine_is_used_and_says_why(spec: TokenizerSpec) -> None:
    sample = ["x" * 1500, "y" * 500]
    number = len(awkward_strings(json.loads(spec.load())))
    for wanted in ("auto", "fastokens"):
        choice = choose_engine(spec, wanted, sample)
        assert choice.engine.name == "fastokens"
        assert choice.reason == f"equal to tokenizers on {number} awkward strings and 2 kB of the input"
    choice = choose_engine(spec, "tokenizers", sample)
    assert (choice.engine.name, choice.reason) == ("tokenizers", "asked for")


def test_a_process_keeps_one_engine_and_lets_go_of_it(spec: TokenizerSpec) -> None:
    """Two would take twice the memory; one that is loaded for every unit would take most of the time."""
    choice = choose_engine(spec, "tokenizers", [])
    with keep_loaded(spec, 1, choice):
        assert load_encoder(spec, "tokenizers", 1) == (choice.engine, choice.spot_check)
        assert load_encoder(spec, "tokenizers", 2)[0] is not choice.engine
        assert len(guard._loaded) == 1
    assert not guard._loaded
    again = load_encoder(spec, "tokenizers", 1)
    assert again[0] is not choice.engine
    assert load_encoder(spec, "tokenizers", 1) == again
    guard._loaded.clear()


def test_a_tokenizer_that_no_engine_loads_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"a": 0}}}')
    spec = find_tokenizer(PackConfig(tokenizer=str(tmp_path), eos_token="a"), allow_network=False)
    with pytest.raises(TokenizerError, match=r"tokenizers \S+ cannot load it"):
        choose_engine(spec, "auto", [])


def test_the_awkward_strings_hold_what_engines_were_seen_to_get_wrong(spec: TokenizerSpec) -> None:
    texts = awkward_strings(json.loads(spec.load()))
    together = "\0".join(texts)
    for piece in ("\u180e", "\n's", "\t's", "\t#", "ninstall", "ipspace", "\u0e39\u0eba", "<|endoftext|>", " " * 300):
        assert piece in together, ascii(piece)
    assert len(texts) == len(awkward_strings(json.loads(spec.load())))
    assert all(text.encode() is not None for text in texts), "no lone surrogates: every engine refuses them"


# --- during the run ---


class Bytes:
    """An engine whose ids are the bytes; it counts what it is given."""

    def __init__(self, name: str, wrong: Callable[[str], bool] = lambda text: False) -> None:
        self.name, self.version, self._wrong = name, "0", wrong
        self.num_chars = self.num_calls = 0

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        self.num_calls += 1
        self.num_chars += sum(map(len, texts))
        coded = [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32) for text in texts]
        coded = [ids + 1 if self._wrong(text) else ids for text, ids in zip(texts, coded, strict=True)]
        offsets = np.cumsum([0, *map(len, coded)], dtype=np.int64)
        return (np.concatenate(coded) if coded else np.empty(0, dtype=np.uint32)), offsets


def spot_checked(
    spec: TokenizerSpec, batches: Callable[[int], list[str]], num_chars: int, wrong: Callable[[str], bool]
) -> tuple[SpotCheck, Bytes, int]:
    """Encodes batches until num_chars are done, as the pipeline does; an error says in `found_at` where it came."""
    engine, reference = Bytes("fastokens", wrong), Bytes("tokenizers")
    check = SpotCheck(spec, engine, reference=reference)
    done = turn = 0
    try:
        while done < num_chars:
            texts = batches(turn)
            turn += 1
            done += sum(map(len, texts))
            check.look(texts, *engine.encode(texts))
        check.settle()
    except EngineError as error:
        error.found_at = done
        raise
    return check, reference, done


BATCHES = {
    "short texts": lambda turn: [f"{turn} {index} " + "word " * 40 for index in range(64)],
    "as long as a check": lambda turn: ["a" * SPOT_CHECK_CHARS] * 64,
    "one more than a check": lambda turn: ["a" * (SPOT_CHECK_CHARS + 1)] * 64,
    "long texts": lambda turn: ["word " * 20_000],
    "a text over several checks": lambda turn: ["word " * 500_000],
    "of all lengths": lambda turn: ["é" * (index * index) for index in range(64)],
}


@pytest.mark.parametrize("name", BATCHES)
def test_about_a_thousandth_of_the_text_is_checked(spec: TokenizerSpec, name: str) -> None:
    """More would cost time; fewer would find nothing."""
    check, reference, done = spot_checked(spec, BATCHES[name], 12 << 20, lambda text: False)
    assert check.num_checks == done // SPOT_CHECK_EVERY >= 12
    assert reference.num_calls == -(-check.num_checks // SPOT_CHECK_TOGETHER)
    assert 0 < reference.num_chars <= done / 1000


@pytest.mark.parametrize("name", BATCHES)
def test_an_engine_that_goes_wrong_later_is_found_within_a_few_megabytes(spec: TokenizerSpec, name: str) -> None:
    """The short texts are compared with the very ids that were written; of long ones a cut is encoded by both."""
    start = 5 << 20
    seen = 0

    def batches(turn: int) -> list[str]:
        nonlocal seen
        texts = BATCHES[name](turn)
        seen += sum(map(len, texts))
        return texts

    with pytest.raises(EngineError, match="fastokens 0 gives other ids than tokenizers for '") as caught:
        spot_checked(spec, batches, 24 << 20, lambda text: seen > start and bool(text))
    step = sum(map(len, BATCHES[name](0)))
    assert start < caught.value.found_at <= start + (SPOT_CHECK_TOGETHER + 1) * SPOT_CHECK_EVERY + step
    assert "--tokenizer-engine tokenizers --overwrite" in caught.value.hint
    assert caught.value.exit_code == 1


def test_the_cuts_of_a_long_text_lie_all_over_it(spec: TokenizerSpec) -> None:
    """A file that is one text of 100 MB must not be checked at its beginning only."""
    tenths = [chr(ord("a") + index) * (1 << 20) for index in range(10)]
    seen: set[str] = set()

    def note(text: str) -> bool:
        if len(text) == SPOT_CHECK_CHARS:
            seen.update(text)
        return False

    check, _, _ = spot_checked(spec, lambda turn: ["".join(tenths)], 100 << 20, note)
    assert check.num_checks == 100
    assert seen == set("abcdefghij")


def test_the_reference_is_not_checked_against_itself(spec: TokenizerSpec) -> None:
    reference = Bytes("tokenizers")
    check = SpotCheck(spec, reference, reference=Bytes("tokenizers", lambda text: True))
    check.look(["a" * (2 << 20)], *reference.encode(["a"]))
    assert check.num_checks == 0


def test_the_reference_is_loaded_at_the_first_check(spec: TokenizerSpec) -> None:
    """In a worker nobody gives it one; it must be the real one, with the switch for special tokens set."""
    engine = make_engine("fastokens", spec)
    check = SpotCheck(spec, engine)
    texts = ["the cat <|endoftext|> sat"] * 64
    many = SPOT_CHECK_EVERY // sum(map(len, texts)) + 1
    encoded = engine.encode(texts)
    for _ in range(many):
        check.look(texts, *encoded)
    check.settle()
    assert check.num_checks == 1
    wrong = SpotCheck(spec, Planted(engine, lambda text: True))
    ids, offsets = encoded
    with pytest.raises(EngineError, match=r"'the cat <\|endoftext\|> sat'"):
        wrong.look(texts * many, np.tile(ids + 1, many), np.arange(64 * many + 1) * offsets[1])
        wrong.settle()


def test_a_choice_comes_with_its_spot_check(spec: TokenizerSpec) -> None:
    """An engine that passed at start and is wrong later must still end the run."""
    choice = choose_engine(spec, "auto", ["the cat"], make=planted(lambda text: "later" in text))
    assert choice.engine.name == "fastokens"
    texts = ["and later the dog " * 10] * (SPOT_CHECK_EVERY // 180 + 1)
    ids, offsets = choice.engine.encode(texts[:1])
    with pytest.raises(EngineError, match="'and later the dog"):
        choice.spot_check.look(texts, np.tile(ids, len(texts)), np.arange(len(texts) + 1) * offsets[1])
        choice.spot_check.settle()
