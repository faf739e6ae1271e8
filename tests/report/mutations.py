# SPDX-License-Identifier: Apache-2.0
"""The corpus: every lie that the two verifiers have to refuse, by name.

Forgers come in four strengths: nobody's key; one member's, over its own ledger; the
aggregator's with as many members' as the plan lets collude; and everybody's.  The first
three are refused by hashes and signatures, whatever they change.  Against everybody
only what the files say of each other helps, and this is what it cannot do, with every
key in one hand (``BEYOND`` shows each case that a folder can show):

* A run that never was, or another than the one that was: whoever holds all keys can
  make every message, ledger and model of a run that holds.  Keys of separate
  organisations, and the auditor's own copy of the plan, are what stands against it.
* Another model, or another sum, where the plan does not keep vectors; another start.
* The hashes of revealed shares and of requests, where vectors are not kept.
* What only a clock, a person or a process knows: the start's tool and flags (a
  simulation, seeded randomness, ledgers that live on), a failure's reason and which of
  several clients it blames, the end of a ledger after the last update that arrived and
  the times in it, an attempt of which no trace is left.
* A release that was reserved and never sent, added or left out at a ledger's end; runs
  before this one, where every ledger was invented with the rest of the folder.
* Scores and costs in metrics.json, and the pages: nothing is claimed of the former, and
  no verifier reads the latter; `secure-fl report` draws them anew from report.json.
* A figure within the tolerance by which two machines may differ.

A client that lies alone about its own data, noise or sampling is not seen by any of
this: that is what the report's assumptions are.
"""

from __future__ import annotations

from typing import Final

from .mutations_beyond import BEYOND
from .mutations_bytes import BYTES
from .mutations_export import EXPORTS
from .mutations_files import OTHER_FILES
from .mutations_folder import Mutation
from .mutations_ledger import LEDGERS
from .mutations_log import FIELDS
from .mutations_messages import MESSAGES
from .mutations_order import ORDER
from .mutations_plan import PLANS
from .mutations_report import REPORTS
from .mutations_sums import SUMS
from .mutations_vectors import VECTORS

__all__ = ["BEYOND", "CORPUS"]

CORPUS: Final[tuple[Mutation, ...]] = (
    *BYTES,
    *FIELDS,
    *ORDER,
    *MESSAGES,
    *LEDGERS,
    *EXPORTS,
    *REPORTS,
    *PLANS,
    *OTHER_FILES,
    *VECTORS,
    *SUMS,
)
