"""JSONL -> tokenised with `datasets`, packed with `trl.pack_dataset`, saved with `save_to_disk`.

    python trl_pack.py INPUT.jsonl TOKENIZER_DIR EOS OUT SCRATCH MAX_LEN PROCESSES STRATEGY

The strategy is one of pack_dataset: bfd (its default: cuts long documents off) or bfd_split (splits them).
"""

import sys

from datasets import load_dataset
from transformers import PreTrainedTokenizerFast
from trl import pack_dataset


def main() -> None:
    path, tokenizer, eos, out, scratch, *numbers, strategy = sys.argv[1:]
    max_len, processes = map(int, numbers)
    encode = PreTrainedTokenizerFast(tokenizer_file=f"{tokenizer}/tokenizer.json", eos_token=eos)

    def with_eos(rows):
        encoded = encode(rows["text"], add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return {"input_ids": [[*ids, encode.eos_token_id] for ids in encoded]}

    texts = load_dataset("json", data_files=path, split="train", cache_dir=scratch)
    tokens = texts.map(with_eos, batched=True, num_proc=processes, remove_columns=texts.column_names)
    packs = pack_dataset(tokens, max_len, strategy, map_kwargs={"num_proc": processes})
    packs.save_to_disk(out)


if __name__ == "__main__":
    main()
