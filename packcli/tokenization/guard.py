"""The fast engine is used only where it is shown to give the same ids as `tokenizers`.

1. The tokenizer.json must have a structure that is known to be safe (`unsafe_structure`).
2. At start both engines encode a fixed list of awkward strings and the beginning of the input (`choose_engine`).
3. During the run about 0.1 % of the text is encoded by both; a difference ends the run (`SpotCheck`).

Where 1 or 2 fails, `tokenizers` is used and the reason is shown. Comparing samples proves nothing, so 2 tries every
kind of text that engines have been seen to differ on, and 3 watches for kinds that are not known yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.errors import EngineError
from packcli.tokenization.engines import Engine, make_engine
from packcli.tokenization.reference import bytes_per_second
from packcli.tokenization.spec import TokenizerSpec, load_json

SPOT_CHECK_EVERY = 1 << 20
"""Characters between two spot checks."""
SPOT_CHECK_CHARS = 1 << 10
"""Characters of a spot check, at most: 0.1 % of the text."""
SPOT_CHECK_TOGETHER = 8
"""Texts that are set aside until they are compared in one call."""
SPOT_CHECK_STRIDE = 2_654_435_761
"""A prime, 2^32 over the golden ratio: the cuts of long texts lie all over them, not only near the beginning."""

FAST_LOAD_SPEED = 4_000_000
"""Bytes of a tokenizer.json per second, to load the fast engine and compare it: 4.3 to 10 million were measured."""

MakeEngine = Callable[..., Engine]


def unsafe_structure(data: dict[str, Any]) -> str | None:
    """Why the fast engine is not even tried on this tokenizer.json; None when its structure is known.

    Known are those that were measured to be exact. On others the engine refuses to load or, worse, gives other ids.
    """
    model = data["model"]
    if model.get("type", "BPE") != "BPE":
        return f"model {model.get('type')} is not BPE"
    if model.get("dropout"):
        return "BPE dropout is random"
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            return f"BPE with {key}"
    normalizers = [step["type"] for step in _steps(data.get("normalizer"), "normalizers")]
    if not set(normalizers) <= {"NFC", "Prepend", "Replace"}:
        return f"normalizer {', '.join(normalizers)}"
    steps = _steps(data.get("pre_tokenizer"), "pretokenizers")
    if not steps:
        return None if model.get("byte_fallback") else "no pre-tokenizer and no byte fallback"
    *before, last = steps
    if last["type"] != "ByteLevel":
        return f"pre-tokenizer {last['type']}"
    for step in before:
        if step["type"] == "Digits":
            continue
        if step["type"] != "Split":
            return f"pre-tokenizer {step['type']}"
        if step["behavior"] != "Isolated" and not (step["behavior"] == "Removed" and step.get("invert")):
            return f"Split with behavior {step['behavior']}"
    return None


def _steps(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [part]


def awkward_strings(data: dict[str, Any]) -> list[str]:
    """A fixed list of strings on which engines have been seen to differ, or might."""
    spaces = [
        " ",
        "\t",
        "\n",
        "\r\n",
        "\u00a0",
        "\u180e",
        "\u2003",
        "\u2028",
        "\u0085",
        "\u200b",
        "\u3000",
        "\x0b",
        "\ufeff",
    ]
    marks = [
        "\u0301",
        "\u0345",
        "\u0e39\u0eba",
        "\u05b4\u05bc",
        "\U00016d67\U00016d67",
        "\u1100\u1161\u11a8",
        "e\u0323\u0307",
    ]
    words = [
        "don't",
        "I'LL",
        "we've",
        "x's",
        "\n's",
        "\t's",
        "ninstall",
        "ipspace",
        "\t#define",
        "\t#",
        "#\t!",
        "a\u017f",
    ]
    scripts = [
        "日本語のテキスト",
        "한국어",
        "中文，标点。",
        "العربية",
        "שָׁלוֹם",
        "हिन्दी",
        "ไทย",
        "Ünïcödé",
        "ﬁ ligature",
        "Ⅷ ½ ²",
    ]
    emoji = ["👩‍👩‍👧‍👦", "🇨🇭🇯🇵", "❤️", "👍🏽", "🏴\U000e0067\U000e0062\U000e007f", "\U0001f396\u0345\ufffd"]
    numbers = ["1", "12", "123", "1234", "12345678901", "3.14159", "1,000,000", "0x1F", "٣٤٥", "१२३", "²³¹", "1e-10"]
    code = [
        "def f(x):\n    return x\n",
        "{\n\t\t}\n\n\n",
        "a  b   c    d     e",
        "/* ** */",
        "<<=>>",
        "http://a.b/c?d=e&f#g",
    ]
    special = [token["content"] for token in data.get("added_tokens") or []][:40]
    out = ["", "\x00", "\x00\x01\x7f", "a" * 300, " " * 300, "\n" * 70, "ab" * 200, "!?" * 60, "\ud7ff\ue000\U0010ffff"]
    for text in (*words, *scripts, *emoji, *numbers, *code, *marks, *special):
        out += [text, f" {text}", f"{text} ", f"a{text}b", f"1{text}2", f"\n\n{text}\t", f"{text}{text}"]
    for space in spaces:
        for count in (1, 2, 3, 7, 16, 33):
            out += [
                space * count,
                f"a{space * count}b",
                f"{space * count}1",
                f".{space * count}.",
                f"{space * count}\n x",
            ]
        out += [f"{space}{other}" for other in spaces]
    return out


def first_difference(one: Engine, other: Engine, texts: Sequence[str]) -> str | None:
    """The first text that two engines encode differently, or None."""
    if not texts:
        return None
    ids, offsets = one.encode(texts)
    other_ids, other_offsets = other.encode(texts)
    if np.array_equal(ids, other_ids) and np.array_equal(offsets, other_offsets):
        return None
    for index, text in enumerate(texts):
        left = ids[offsets[index] : offsets[index + 1]]
        if not np.array_equal(left, other_ids[other_offsets[index] : other_offsets[index + 1]]):
            return text
    return texts[-1]


def shown(text: str) -> str:
    """The beginning of a text, for messages."""
    return ascii(text[:60]) + ("..." if len(text) > 60 else "")


class SpotCheck:
    """Compares about 0.1 % of the text with the reference while a run goes on.

    Texts are set aside by `look` and compared together: with one call for each, the tables of the reference
    would not be in the processor's cache. `settle` compares what is left, before a part is committed. The
    reference is loaded at the first comparison, unless it is given.
    """

    def __init__(self, spec: TokenizerSpec, engine: Engine, *, reference: Engine | None = None) -> None:
        self._spec = spec
        self._engine = engine
        self._reference = reference
        self._due = 0  # characters since the last text that was set aside
        self._turn = 0  # texts that were set aside so far
        self._texts: list[str] = []
        self._given: list[NDArray[np.uint32]] = []
        self.num_checks = 0

    def look(self, texts: Sequence[str], ids: NDArray[np.uint32], offsets: NDArray[np.integer]) -> None:
        """Sets one of these texts aside when it is due; `ids` and `offsets` are what the engine gave for them.

        Of a short text these very ids are compared; of a long one an excerpt, which the engine encodes again.

        Raises:
            EngineError: the engines give different ids.
        """
        if self._engine.name == "tokenizers":
            return
        self._due += sum(map(len, texts))
        while self._due >= SPOT_CHECK_EVERY:
            self._due -= SPOT_CHECK_EVERY
            self._turn += 1
            index = self._turn % len(texts)
            text = texts[index]
            if len(text) <= SPOT_CHECK_CHARS:
                given = ids[offsets[index] : offsets[index + 1]].copy()
            else:
                begin = (self._turn * SPOT_CHECK_STRIDE) % (len(text) - SPOT_CHECK_CHARS)
                text = text[begin : begin + SPOT_CHECK_CHARS]
                given = self._engine.encode([text])[0]
            self._texts.append(text)
            self._given.append(given)
            if len(self._texts) == SPOT_CHECK_TOGETHER:
                self.settle()

    def settle(self) -> None:
        """Compares what is set aside; raises EngineError when a text differs."""
        if not self._texts:
            return
        if self._reference is None:
            self._reference = make_engine("tokenizers", self._spec)
        ids, offsets = self._reference.encode(self._texts)
        for index, text in enumerate(self._texts):
            if not np.array_equal(self._given[index], ids[offsets[index] : offsets[index + 1]]):
                raise EngineError(
                    f"{self._engine.name} {self._engine.version} gives other ids than tokenizers for {shown(text)}",
                    "this part was not committed; start anew with --tokenizer-engine tokenizers --overwrite, "
                    "and please report the text",
                )
        self.num_checks += len(self._texts)
        self._texts.clear()
        self._given.clear()


@dataclass(frozen=True, slots=True)
class Choice:
    """Which engine a run uses, and why; the reason stands in the run log and in the closing table."""

    engine: Engine
    spot_check: SpotCheck
    reason: str


def choose_engine(
    spec: TokenizerSpec,
    wanted: str,
    sample: Sequence[str],
    *,
    num_bytes: int | None = None,
    threads: int = 1,
    make: MakeEngine = make_engine,
) -> Choice:
    """Decides which engine encodes this run.

    Args:
        spec: The tokenizer.
        wanted: auto, fastokens or tokenizers. `fastokens` turns a fallback into an error.
        sample: Texts from the beginning of the input.
        num_bytes: About how much text there is to encode; None: much, or unknown. For little the fast engine is not
            even loaded.
        threads: Cores that the engine may use.
        make: make_engine, or a stand-in for tests.

    Raises:
        EngineError: `fastokens` was asked for and cannot be used; or it differs from a pre-release of `tokenizers`,
            and either of the two may be wrong.
        TokenizerError: `tokenizers` cannot load the file.
    """
    text = spec.load()
    reference = make("tokenizers", spec, text=text, threads=threads)
    if wanted == "tokenizers":
        return Choice(reference, SpotCheck(spec, reference), "asked for")
    is_small = num_bytes is not None and num_bytes * FAST_LOAD_SPEED < len(text) * bytes_per_second()
    if wanted == "auto" and is_small and is_released(reference):
        small = f"not fastokens: to load it takes longer than to encode {(num_bytes or 0) / 1000:,.0f} kB"
        return Choice(reference, SpotCheck(spec, reference), small)
    fast, reason = _try_fast(spec, text, reference, sample, threads, make)
    if fast is not None:
        return Choice(fast, SpotCheck(spec, fast, reference=reference), reason)
    if wanted == "fastokens":
        raise EngineError(
            f"--tokenizer-engine fastokens: {reason}", "leave the option out: tokenizers then does the work"
        )
    return Choice(reference, SpotCheck(spec, reference), f"not fastokens: {reason}")


def _try_fast(
    spec: TokenizerSpec, text: str, reference: Engine, sample: Sequence[str], threads: int, make: MakeEngine
) -> tuple[Engine | None, str]:
    data = load_json(text)
    try:
        reason, awkward = unsafe_structure(data), awkward_strings(data)
    except (AttributeError, LookupError, TypeError, ValueError):  # tokenizers also loads files of an odd structure
        reason, awkward = "its structure is not known", []
    del data  # as large as the tokenizer
    if reason is not None:
        return None, reason
    try:
        fast = make("fastokens", spec, text=text, threads=threads)
    except Exception as error:  # whatever it raises, an engine that does not load is not used
        return None, f"it does not load: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    for texts, what in ((awkward, "awkward strings"), (sample, "the first texts of the input")):
        try:
            different = first_difference(fast, reference, texts)
        except Exception as error:
            return None, f"it fails on {what}: {type(error).__name__}"
        if different is not None and not is_released(reference):
            raise EngineError(
                f"fastokens and tokenizers {reference.version}, a pre-release, differ on {what}: {shown(different)}",
                "install a released one: pip install 'tokenizers<1'; or trust this one: --tokenizer-engine tokenizers",
            )
        if different is not None:
            return None, f"it differs from tokenizers on {what}: {shown(different)}"
    chars = sum(map(len, sample))
    return fast, f"equal to tokenizers on {len(awkward)} awkward strings and {chars / 1000:.0f} kB of the input"


def is_released(reference: Engine) -> bool:
    """Whether its version is a release. Pre-releases may be wrong: 1.0.0rc2 was, for Chinese with one tokenizer."""
    return reference.version.replace(".", "").isdigit()


_loaded: dict[object, tuple[Engine, SpotCheck]] = {}
"""The engine that this process has loaded, one at most: a worker keeps it from unit to unit."""


def load_encoder(tokenizer: TokenizerSpec, engine_name: str, threads: int) -> tuple[Engine, SpotCheck]:
    """The engine of that name for a tokenizer, and its spot check; loaded unless it is the one that is kept."""
    key = tokenizer, engine_name, threads
    encoder = _loaded.get(key)
    if encoder is None:
        _loaded.clear()
        engine = make_engine(engine_name, tokenizer, threads=threads)
        encoder = _loaded[key] = engine, SpotCheck(tokenizer, engine)
    return encoder


@contextlib.contextmanager
def keep_loaded(tokenizer: TokenizerSpec, threads: int, choice: Choice) -> Iterator[None]:
    """Inside, `load_encoder` gives the engine that was chosen, and does not load it again; at the end none is kept."""
    _loaded.clear()
    _loaded[tokenizer, choice.engine.name, threads] = choice.engine, choice.spot_check
    try:
        yield
    finally:
        _loaded.clear()
