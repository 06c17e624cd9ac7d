"""`packcli pack`: flags and packcli.toml -> the settings of one run -> its closing table."""

from __future__ import annotations

import packcli
from packcli.cli.options import NOTHING, Config, Given, Inputs, Json, OutputOption, Quiet, verb
from packcli.config import TABLE, read_settings

PACK_EPILOG = """Examples:

  packcli pack data.jsonl --max-len 2048

  packcli pack 'corpus/*.jsonl.zst' -o packed --tokenizer ./my-model --strategy best-fit

  packcli pack chats.jsonl --tokenizer ./my-model --loss last-assistant

  packcli pack gsm8k.jsonl --field prompt='Question: {question}\\n' --field completion=answer

  packcli pack --mix web.jsonl.zst=0.7 --mix code/=0.3 --tokens 10B

  cat data.jsonl | packcli pack - -o packed --text-template '{question}\\n{answer}'"""


@verb(TABLE, resumes=True)
def pack(
    inputs: Inputs = None,
    output: OutputOption = None,
    given: Given = NOTHING,
    config: Config = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tokenize text, pack it, and write Arrow shards with a report.

    Running the same command again resumes what was interrupted, and does nothing when it is up to date.
    """
    settings = read_settings(config, given)

    from packcli.cli.views.console import make_console, show_result
    from packcli.cli.views.progress import ProgressDisplay
    from packcli.cli.views.results import show_report

    with ProgressDisplay(make_console(), quiet=quiet) as display:
        report = packcli.pack(inputs or (), output, **settings, on_event=display)
    show_result(report, show_report, json_=json_, quiet=quiet)
