"""JSONL -> datatrove's DocumentTokenizer -> its merger: one shuffled stream of tokens and an index of documents.

    python datatrove_concat.py INPUT.jsonl TOKENIZER_DIR EOS OUT SCRATCH MAX_LEN PROCESSES

datatrove shares work out by file, so the input is cut into one file per process here, as its user would have to.
Rows come to be when its reader cuts the stream into windows; MAX_LEN plays no part.
"""

import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer, DocumentTokenizerMerger


def cut(path: Path, folder: Path, parts: int) -> None:
    """About equal files of whole lines."""
    folder.mkdir()
    size = path.stat().st_size
    with path.open("rb") as source:
        for part in range(parts):
            missing = size * (part + 1) // parts - source.tell()
            with (folder / f"{part}.jsonl").open("wb") as target:
                target.write(source.read(max(missing, 0)))
                target.write(source.readline())


def main() -> None:
    path, tokenizer, eos, out, scratch, _, processes = sys.argv[1:]
    work, tasks = Path(scratch), int(processes)
    cut(Path(path), work / "input", tasks)
    tokenize = LocalPipelineExecutor(
        [
            JsonlReader(str(work / "input")),
            DocumentTokenizer(
                str(work / "tokens"), tokenizer_name_or_path=f"{tokenizer}/tokenizer.json", eos_token=eos
            ),
        ],
        tasks=tasks,
        workers=tasks,
        logging_dir=str(work / "log-tokenize"),
    )
    merge = LocalPipelineExecutor(
        [DocumentTokenizerMerger(str(work / "tokens"), out, save_filename="all", progress=False)],
        logging_dir=str(work / "log-merge"),
        depends=tokenize,
    )
    merge.run()


if __name__ == "__main__":
    main()
