"""Trains one configuration to its end, from its last checkpoint on, and writes down each step as it is done.

python -m tests.trainer.resume_run CONFIG.json STEPS.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.train import Step, Trainer

from mmpack.config import parse


def main(config: Path, out: Path) -> None:
    """Trains."""
    trainer = Trainer(parse(json.loads(config.read_text()), TrainConfig, where=str(config)))

    def log(step: Step) -> None:
        if trainer.world.is_first:
            record = {
                "number": step.number,
                "loss": step.loss,
                "parts": step.parts,
                "gradient_norm": step.gradient_norm,
                "tokens": step.tokens,
                "rows": trainer.loader.state_dict(),
                "chosen": step.chosen.tolist(),
            }
            with out.open("a") as file:
                file.write(json.dumps(record) + "\n")

    trainer.fit(log)
    trainer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
