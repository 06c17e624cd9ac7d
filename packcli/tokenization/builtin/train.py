r"""Makes the builtin tokenizer: the three data files beside this script.

    python -m packcli.tokenization.builtin.train INPUT.jsonl[.zst|.gz] ... [--output DIR]

A byte-level BPE of 32,768 tokens for English prose, documentation and source code:

    id 0..3      special tokens: <|endoftext|> <|pad|> <|im_start|> <|im_end|>
    id 4..259    the 256 bytes: no text is ever out of vocabulary, and every text decodes to itself
    id 260..     merges, the earliest (most frequent) first

Why the special tokens come first: their ids do not move when the vocabulary is trained anew or at another
size, `<|endoftext|>` is 0 and `<|pad|>` 1 as in GPT-NeoX, and memory that was never written reads as
the end of a document, not as a word. All ids fit 16 bits.

The text is cut by the expression of cl100k in the form that dolma2 uses: it is the form in which
`fastokens` gives exactly the ids of `tokenizers`. Digits go in groups of up to three, and every such
group is one token: the numbers 0..9, 00..99 and 000..999 are added to the training text often enough.
"1234" is "123" and "4", whatever the text around it. No token is longer than 32 bytes, or the rulers
and banners of a few files would each take one.

There is no normalizer and no post-processor: nothing is changed, and nothing is added; packcli appends the
end of document by id. A path given n times counts n times: that is how the mixture is weighted.

The committed files were made by

    python -m packcli.tokenization.builtin.train tokenizer-training.jsonl.zst \
        prose.jsonl prose.jsonl $(yes maths.jsonl | head -16)

from 62 MB of documentation and source code, 26 MB of textbooks, addresses and country profiles, counted twice,
and 0.24 MB of maths word problems, counted 16 times; README.md says what these are and what was measured. The same
inputs in the same order give the same bytes, for any number of threads. It takes about 20 seconds and 0.6 GB.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
END_OF_TEXT, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, TURN_START, TURN_END)  # ids 0, 1, 2, 3
MAX_TOKEN_BYTES = 32
MIN_FREQUENCY = 2
NUMBERS_REPEATED = 1000  # ten times the count of the last merge on 120 MB of text

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": None,
    "eos_token": END_OF_TEXT,
    "pad_token": PAD,
    "clean_up_tokenization_spaces": False,
}

# Every line break that is rendered is written out, so that trim_blocks and lstrip_blocks change nothing.
CHAT_TEMPLATE = r"""{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\n' -}}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}
            {{- message['content'] + '<|im_end|>' -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- message['content'] + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""


def read_texts(path: Path, field: str) -> Iterator[str]:
    """The text of every row of a JSONL file; blank lines are skipped, a bad row is an error with its place."""
    file = pyarrow.OSFile(str(path))
    if path.suffix in COMPRESSIONS:
        file = pyarrow.CompressedInputStream(file, COMPRESSIONS[path.suffix])
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    with io.BufferedReader(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                text = msgspec.json.decode(decode(line)[field], type=str)
            except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{path}:{number}: no text in field {field!r}: {error}") from error
            yield text


def numbers() -> Iterator[str]:
    """0..9, 00..99 and 000..999, as many times as it takes for each to become a token."""
    every_number = " ".join(f"{n:0{width}d}" for width in (1, 2, 3) for n in range(10**width))
    return (every_number for _ in range(NUMBERS_REPEATED))


def train(texts: Iterable[str], vocab_size: int) -> Any:
    """Byte-level BPE with `vocab_size` tokens in all, special tokens and bytes included: a `tokenizers.Tokenizer`."""
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        raise ValueError("tokenizers 1.x trains no tokenizer: pip install 'tokenizers<1'") from None
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        max_token_length=MAX_TOKEN_BYTES + 1,  # the trainer stops below it
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens, not {vocab_size}: too little text, or too small a size")
    return tokenizer


def write(tokenizer: Any, directory: Path) -> None:
    """The three files that make a tokenizer directory; tokenizer.json as `Tokenizer.save` would write it."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=False),
        "tokenizer_config.json": json.dumps(TOKENIZER_CONFIG, indent=2) + "\n",
        "chat_template.jinja": CHAT_TEMPLATE,
    }
    for name, content in files.items():
        (directory / name).write_bytes(content.encode())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Trains the builtin tokenizer of packcli.")
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="JSONL, .zst and .gz too; repeat to weight"
    )
    parser.add_argument("--field", default="text", help="field with the text (%(default)s)")
    parser.add_argument("--vocab-size", type=int, default=32_768, help="tokens in all (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="DIR", help="here, if not given")
    options = parser.parse_args()

    def texts() -> Iterator[str]:
        for path in options.inputs:
            yield from read_texts(path, options.field)
        yield from numbers()

    write(train(texts(), options.vocab_size), options.output)


if __name__ == "__main__":
    main()
