"""A run shared out to ranks: separate processes, on any machines with a common directory or object store.

plan     what ranks begin with: the job and its units, left in the output
run      one rank: its share of the units; and the finish, when all are done
status   how far every rank is
"""

from __future__ import annotations

from packcli.pipeline.ranks.run import Ran, finish, plan, run
from packcli.pipeline.ranks.status import RankStatus, Status, status

__all__ = ["Ran", "RankStatus", "Status", "finish", "plan", "run", "status"]
