"""The plan: the documents of every row, as a pure function of index, seed and mixture.

    plan = open_plan(config)
    plan.row(123456)

Planning reads no media, and rows do not depend on the number of ranks or workers.
"""

from typing import TYPE_CHECKING

from mmpack.lazy import make_dir, make_lazy_getattr
from mmpack.plan.planned_rows import PAIR_OVERHEAD, PlannedDocument, PlannedRow, PlannedSample

if TYPE_CHECKING:
    from mmpack.plan.plan import PLAN_VERSION, Plan, PlanEndError, open_plan
    from mmpack.plan.state import StreamState, WindowCursor, read_state

__all__ = [
    "PAIR_OVERHEAD",
    "PLAN_VERSION",
    "Plan",
    "PlanEndError",
    "PlannedDocument",
    "PlannedRow",
    "PlannedSample",
    "StreamState",
    "WindowCursor",
    "open_plan",
    "read_state",
]

# These names load on first use, because worker processes and sample streams do not plan.
__getattr__ = make_lazy_getattr(
    globals(),
    {
        "PLAN_VERSION": "mmpack.plan.plan",
        "WindowCursor": "mmpack.plan.state",
        "Plan": "mmpack.plan.plan",
        "PlanEndError": "mmpack.plan.plan",
        "StreamState": "mmpack.plan.state",
        "open_plan": "mmpack.plan.plan",
        "read_state": "mmpack.plan.state",
    },
)
__dir__ = make_dir(__all__)
