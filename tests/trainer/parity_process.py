"""Trains several small configurations one after the other in one group of processes; run by torchrun.

    torchrun ... -m tests.trainer.parity_process CASES.json OUT.json

CASES.json holds {name: TrainConfig}, float8 emulated; OUT.json gets {name: [step, ...]} from the first process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mmpack.settings import parse_settings
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.train import Step, Trainer


def main(cases: Path, out: Path) -> None:
    """Runs every case from its first step."""
    found = {}
    for name, table in json.loads(cases.read_text()).items():
        trainer = Trainer(parse_settings(table, TrainConfig, where=name), emulate_fp8=True)
        steps: list[Step] = [trainer.step() for _ in range(trainer.config.steps)]
        trainer.close()
        found[name] = [
            {
                "parts": step.parts,
                "loss": step.loss,
                "gradient_norm": step.gradient_norm,
                "chosen": step.chosen.tolist(),
                "dropped": step.dropped,
                "router_gradient": step.router_gradient.tolist(),
            }
            for step in steps
        ]
        if trainer.world.is_first:
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
