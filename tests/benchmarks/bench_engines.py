"""How fast `fastokens` and the installed `tokenizers` encode the same texts: MB of UTF-8 in a CPU second of one thread.

    python tests/benchmarks/bench_engines.py INPUT.jsonl[.zst] --tokenizer DIR [--characters N]

Every engine is loaded and warmed up first; the ids must be equal, else it ends with an error. The version of
`tokenizers` is that of the environment: run it in one with 0.x and in one with 1.x (`make test-newest` makes one).
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from pathlib import Path

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1", FASTOKENS_BPE_THREADS="1")

import numpy as np
from bench_pack import BUILTIN, texts_of

from packcli.config import PackConfig
from packcli.tokenization import find_tokenizer, make_engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=BUILTIN)
    parser.add_argument("--characters", type=int, default=6_000_000)
    args = parser.parse_args()
    spec = find_tokenizer(PackConfig(tokenizer=str(args.tokenizer)), allow_network=False)
    texts = list(itertools.chain.from_iterable(texts_of(args.input)))
    ends = np.cumsum([len(text) for text in texts])
    texts = texts[: int(np.searchsorted(ends, args.characters)) + 1]
    num_bytes = sum(len(text.encode()) for text in texts)
    speeds, found = {}, []
    for name in ("fastokens", "tokenizers"):
        begin = time.process_time()
        engine = make_engine(name, spec)
        loaded = time.process_time()
        engine.encode(texts[:64])
        warm = time.process_time()
        found.append(np.concatenate([engine.encode(texts[at : at + 64])[0] for at in range(0, len(texts), 64)]))
        speeds[name] = num_bytes / 1e6 / (time.process_time() - warm)
        print(f"{name} {engine.version}: {speeds[name]:.1f} MB a CPU second, loaded in {loaded - begin:.2f} CPU s")
    if not np.array_equal(*found):
        raise SystemExit("the ids differ")
    print(
        f"{len(texts):,} texts, {num_bytes / 1e6:.1f} MB, equal ids: "
        f"fastokens is {speeds['fastokens'] / speeds['tokenizers']:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
