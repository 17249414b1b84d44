"""Engines: where the tasks of a build run.

A new engine is one file with a class that implements :class:`Engine`, and one line in `ENGINES`.
"""

from __future__ import annotations

from mmpack.errors import ConfigError
from mmpack.ingest.engines.engine import Engine
from mmpack.ingest.engines.engine_config import EngineConfig
from mmpack.ingest.engines.in_process import InProcessEngine
from mmpack.ingest.engines.worker_pool import WorkerPoolEngine
from mmpack.settings import suggest

ENGINES: dict[str, Engine] = {
    "in_process": InProcessEngine(),
    "workers": WorkerPoolEngine(),
}


def select_engine(config: EngineConfig) -> Engine:
    """Returns the engine that `config` names.

    Raises:
        ConfigError: there is no engine of this name; the hint names the nearest one.
    """
    name = config.name
    if name == "auto":
        name = "in_process" if config.num_workers == 0 else "workers"
    if name not in ENGINES:
        raise ConfigError(
            f"'{name}' is not an engine", where="--engine", hint=suggest(name, ["auto", *ENGINES])
        )
    return ENGINES[name]
