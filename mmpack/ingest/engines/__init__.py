"""Engines: one file per place where the tasks of a build run. The registry lists them."""

from mmpack.ingest.engines.engine import Engine, TaskFailure
from mmpack.ingest.engines.engine_config import EngineConfig
from mmpack.ingest.engines.registry import ENGINES, select_engine
from mmpack.lazy import make_dir

__all__ = ["ENGINES", "Engine", "EngineConfig", "TaskFailure", "select_engine"]

__dir__ = make_dir(__all__)
