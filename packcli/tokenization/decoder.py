"""Ids -> text, for people: the tokenizer of a packed directory, found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from packcli.config import PackConfig
from packcli.config.choices import BUILTIN_TOKENIZER
from packcli.errors import MismatchError, TokenizerError
from packcli.tokenization.reference import load_reference
from packcli.tokenization.spec import TokenizerSpec, find_tokenizer


class Decoder:
    """Decodes ids of one tokenizer; control tokens are written out."""

    def __init__(self, spec: TokenizerSpec) -> None:
        self._reference = load_reference(spec.load(), spec.path)

    def text(self, ids: Sequence[int]) -> str:
        """The text of a run of tokens."""
        return self._reference.decode(ids)

    def texts(self, runs: Sequence[Sequence[int]]) -> list[str]:
        """The text of each run."""
        return [self._reference.decode(run) for run in runs]

    def token(self, token: int) -> str:
        """One token as text, or as the vocabulary spells it when it is a part of a character."""
        text = self.text([token])
        return text if text and "\ufffd" not in text else self._reference.spelling(token) or f"id {token}"


def find_decoder(spec: TokenizerSpec, given: str | None, remembered: str | None) -> Decoder:
    """The decoder of an output.

    Args:
        spec: What the manifest says of the tokenizer.
        given: A file, directory or name from the user; wins.
        remembered: Where the tokenizer.json was when this machine packed; None when nobody knows.

    Raises:
        TokenizerError: it is not there any more.
        MismatchError: another tokenizer.
    """
    hint = f"--tokenizer takes the one with sha256 {spec.sha256[:12]}..."
    wanted = given or (BUILTIN_TOKENIZER if spec.name == BUILTIN_TOKENIZER else remembered)
    if wanted is None or (given is None and wanted != BUILTIN_TOKENIZER and not Path(wanted).is_file()):
        raise TokenizerError(f"the tokenizer {spec.name} is not where it was when this was packed", hint)
    found = find_tokenizer(
        PackConfig(tokenizer=wanted, add_eos=False, add_bos=False, pad_token=spec.pad_token), allow_network=False
    )
    if found.sha256 != spec.sha256:
        raise MismatchError(f"{found.path} is not the tokenizer that this was packed with", hint)
    return Decoder(found)
