"""The inputs again, against what is stored; and one row made anew.

    an output          verdict.verify        -> Verdict: dataset.checks first, then as much as is asked for
    its inputs         inputs.open_inputs    -> found again, their tokenizer and template as well
    inputs, output     deep.check_inputs     -> tokenized anew and compared; which documents are in no pack, and why
    one row            restore.restore       -> from its documents, or by packing its unit again

Nothing is written.
"""

from __future__ import annotations

from packcli.verification.deep import Absent, parse_sample
from packcli.verification.restore import Restored, restore
from packcli.verification.verdict import Verdict, verify, verify_row

__all__ = ["Absent", "Restored", "Verdict", "parse_sample", "restore", "verify", "verify_row"]
