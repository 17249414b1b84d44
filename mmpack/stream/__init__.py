"""The training stream: mixed, packed, balanced rows, the same on any number of ranks and workers, after any restart.

    with RowStream.open("plan.toml", rank=0, ranks=8) as stream:
        for row in stream:
            ...

`mmpack.stream.plan` says which documents go to which row; `mmpack.stream.read` gets their bytes; `mmpack.stream.media`
and `mmpack.stream.assemble` make rows of them. `mmpack.stream.torch` has tensors and torchdata's StatefulDataLoader.
"""

from mmpack.stream.collate import collate
from mmpack.stream.config import PlanConfig
from mmpack.stream.plan import Plan, open_plan
from mmpack.stream.row import IGNORE, Row
from mmpack.stream.stream import RowStream, load_plan

__all__ = ["IGNORE", "Plan", "PlanConfig", "Row", "RowStream", "collate", "load_plan", "open_plan"]
