"""Records -> token ids with a loss mask, as `tokenizers` gives them. The door to tokenizers and fastokens.

--tokenizer     spec.find_tokenizer         -> TokenizerSpec: the file, its sha256, EOS, BOS and pad ids
TokenizerSpec   engines.make_engine         -> encode(texts) -> (ids uint32[T], offsets int64[D+1])
long texts      long_texts.LongTextEngine   -> cut where that changes no id
both engines    guard.choose_engine         -> the fast one where it is shown to be equal, else the reference
a record        marker.RecordMarker         -> its text, loss spans and control tokens; chat renders conversations
marked texts    spans.SpanEncoder           -> ids and a loss mask, by either engine
records         documents.DocumentEncoder   -> documents: ids, mask, BOS and EOS
during the run  guard.SpotCheck             -> ends the run at the first difference between the engines
ids             decoder.find_decoder        -> text
"""

from __future__ import annotations

from packcli.tokenization.chat.template import CHATML, CHATML_TURN, TemplateSpec, find_template
from packcli.tokenization.decoder import Decoder, find_decoder
from packcli.tokenization.documents import DocumentEncoder, find_overlong, overlong_row
from packcli.tokenization.engines import BATCH_DOCUMENTS, Engine, make_engine
from packcli.tokenization.guard import Choice, SpotCheck, choose_engine, keep_loaded, load_encoder
from packcli.tokenization.marker import RecordMarker
from packcli.tokenization.spans import Encoded, MarkedText, SpanEncoder
from packcli.tokenization.spec import TokenizerSpec, find_tokenizer
from packcli.tokenization.vocabulary import read_vocabulary

__all__ = [
    "BATCH_DOCUMENTS",
    "CHATML",
    "CHATML_TURN",
    "Choice",
    "Decoder",
    "DocumentEncoder",
    "Encoded",
    "Engine",
    "MarkedText",
    "RecordMarker",
    "SpanEncoder",
    "SpotCheck",
    "TemplateSpec",
    "TokenizerSpec",
    "choose_engine",
    "find_decoder",
    "find_overlong",
    "find_template",
    "find_tokenizer",
    "keep_loaded",
    "load_encoder",
    "make_engine",
    "overlong_row",
    "read_vocabulary",
]
