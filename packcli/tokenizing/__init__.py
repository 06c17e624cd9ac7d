"""Tokenizer files -> texts -> token ids. The door to tokenizers and fastokens.

--tokenizer     spec.find_tokenizer    -> TokenizerSpec: the file, its sha256, EOS, BOS and pad ids
TokenizerSpec   engines.make_engine    -> encode(texts) -> (ids uint32[T], offsets int64[D+1])
long texts      pieces.PiecewiseEngine -> cut where that changes no id
both engines    guard.choose_engine    -> the fast one where it is proven equal, else the reference
marked texts    spans.SpanEncoder      -> ids and a loss mask, by either engine
during the run  guard.SpotCheck        -> fails hard on the first difference
"""

from packcli.tokenizing.decoding import Decoder, find_decoder
from packcli.tokenizing.engines import BATCH_DOCUMENTS, Engine, make_engine
from packcli.tokenizing.guard import Choice, SpotCheck, choose_engine
from packcli.tokenizing.spans import Encoded, MarkedText, SpanEncoder
from packcli.tokenizing.spec import TokenizerSpec, find_tokenizer
from packcli.tokenizing.vocabulary import read_vocabulary

__all__ = [
    "BATCH_DOCUMENTS",
    "Choice",
    "Decoder",
    "Encoded",
    "Engine",
    "MarkedText",
    "SpanEncoder",
    "SpotCheck",
    "TokenizerSpec",
    "choose_engine",
    "find_decoder",
    "find_tokenizer",
    "make_engine",
    "read_vocabulary",
]
