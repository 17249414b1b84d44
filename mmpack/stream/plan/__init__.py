"""The plan: which documents go to which row, as a pure function of index, seed and mixture.

    plan = open_plan(config)
    plan.row(123456)

No media are read here, and nothing depends on the number of ranks or workers.
"""

from mmpack.stream.plan.plan import PLAN_VERSION, Plan, open_plan
from mmpack.stream.plan.state import Cursors, StreamState, read_state
from mmpack.stream.plan.types import PAIR_OVERHEAD, PlannedDocument, PlannedRow, PlannedSample

__all__ = [
    "PAIR_OVERHEAD",
    "PLAN_VERSION",
    "Cursors",
    "Plan",
    "PlannedDocument",
    "PlannedRow",
    "PlannedSample",
    "StreamState",
    "open_plan",
    "read_state",
]
