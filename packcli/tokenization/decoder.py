"""Ids -> text for people, by the tokenizer that a directory was packed with."""

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
        """The text of some ids."""
        return self._reference.decode(ids)

    def texts(self, ids_of_texts: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids."""
        return [self._reference.decode(ids) for ids in ids_of_texts]

    def token(self, token: int) -> str:
        """One token as text, or as the vocabulary spells it when it is a part of a character."""
        text = self.text([token])
        return text if text and "\ufffd" not in text else self._reference.spelling(token) or f"id {token}"


def find_decoder(spec: TokenizerSpec, given: str | None, remembered: str | None) -> Decoder:
    """The decoder of a packed directory.

    Args:
        spec: What the manifest says of the tokenizer.
        given: A file, directory or name from the user; wins.
        remembered: Where the tokenizer.json was when this machine packed; None when that is not known.

    Raises:
        TokenizerError: the tokenizer is not there any more.
        MismatchError: what is there is another tokenizer.
    """
    hint = f"--tokenizer takes the one with sha256 {spec.sha256[:12]}..."
    wanted = given or (BUILTIN_TOKENIZER if spec.name == BUILTIN_TOKENIZER else remembered)
    if wanted is None or (given is None and wanted != BUILTIN_TOKENIZER and not Path(wanted).is_file()):
        raise TokenizerError(f"the tokenizer {spec.name} is not where it was when this was packed", hint)
    tokenizer_spec = find_tokenizer(
        PackConfig(tokenizer=wanted, add_eos=False, add_bos=False, pad_token=spec.pad_token), allow_network=False
    )
    if tokenizer_spec.sha256 != spec.sha256:
        raise MismatchError(f"{tokenizer_spec.path} is not the tokenizer that this was packed with", hint)
    return Decoder(tokenizer_spec)
