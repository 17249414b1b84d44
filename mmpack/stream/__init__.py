"""The training stream: mixed, packed and balanced rows, the same on any number of ranks and after any restart.

    with RowStream.open("plan.toml", rank=0, ranks=8) as stream:
        for row in stream:
            ...

`mmpack.plan` decides which documents form which row, `mmpack.fetch` reads their bytes, and `mmpack.rows` decodes and
assembles them. `mmpack.stream.workers` runs this in worker processes. `mmpack.stream.torch` provides tensors and
torchdata's StatefulDataLoader. `SampleStream` yields the samples of a shard set one by one, without rows.
"""

from typing import TYPE_CHECKING

from mmpack.lazy import make_dir, make_lazy_getattr
from mmpack.rows.collate import collate

if TYPE_CHECKING:
    from mmpack.plan import Plan, open_plan
    from mmpack.plan.plan_config import PlanConfig
    from mmpack.rows.row import IGNORE_INDEX, Row
    from mmpack.stream.row_stream import RowStream, load_plan, load_plan_config
    from mmpack.stream.sample_stream import SampleStream, SampleStreamConfig
    from mmpack.stream.tars.pack_rows import TarStreamConfig

__all__ = [
    "IGNORE_INDEX",
    "Plan",
    "PlanConfig",
    "Row",
    "RowStream",
    "SampleStream",
    "SampleStreamConfig",
    "TarStreamConfig",
    "collate",
    "load_plan",
    "load_plan_config",
    "open_plan",
]

__getattr__ = make_lazy_getattr(
    globals(),
    {
        "IGNORE_INDEX": "mmpack.rows.row",
        "Plan": "mmpack.plan",
        "PlanConfig": "mmpack.plan.plan_config",
        "Row": "mmpack.rows.row",
        "RowStream": "mmpack.stream.row_stream",
        "SampleStream": "mmpack.stream.sample_stream",
        "SampleStreamConfig": "mmpack.stream.sample_stream",
        "TarStreamConfig": "mmpack.stream.tars.pack_rows",
        "load_plan": "mmpack.stream.row_stream",
        "load_plan_config": "mmpack.stream.row_stream",
        "open_plan": "mmpack.plan",
    },
)
__dir__ = make_dir(__all__)
