"""The training stream: mixed, packed, balanced rows, the same on any number of ranks and workers, after any restart.

    with RowStream.open("plan.toml", rank=0, ranks=8) as stream:
        for row in stream:
            ...

`mmpack.stream.plan` says which documents go to which row; `mmpack.stream.read` gets their bytes; `mmpack.stream.media`
and `mmpack.stream.assemble` make rows of them. `mmpack.stream.torch` has tensors and torchdata's StatefulDataLoader.
`SampleStream` gives the samples of a build one by one, for those who make something else of them.
"""

from typing import TYPE_CHECKING

from mmpack.lazy import loader
from mmpack.stream.collate import collate

if TYPE_CHECKING:
    from mmpack.stream.config import PlanConfig
    from mmpack.stream.plan import Plan, open_plan
    from mmpack.stream.row import IGNORE, Row
    from mmpack.stream.samples import SampleStream
    from mmpack.stream.stream import RowStream, load_plan

__all__ = [
    "IGNORE",
    "Plan",
    "PlanConfig",
    "Row",
    "RowStream",
    "SampleStream",
    "collate",
    "load_plan",
    "open_plan",
]

__getattr__ = loader(
    globals(),
    {
        "IGNORE": "mmpack.stream.row",
        "Plan": "mmpack.stream.plan",
        "PlanConfig": "mmpack.stream.config",
        "Row": "mmpack.stream.row",
        "RowStream": "mmpack.stream.stream",
        "SampleStream": "mmpack.stream.samples",
        "load_plan": "mmpack.stream.stream",
        "open_plan": "mmpack.stream.plan",
    },
)
