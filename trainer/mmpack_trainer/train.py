"""A training run: steps over packed rows, from the first or the last checkpoint on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from mmpack.errors import ConfigError, DataError
from mmpack.plan import PlanEndError
from mmpack.serialisation import to_builtins
from mmpack.stream import RowStream
from mmpack_trainer.accounting import batch_of
from mmpack_trainer.batch import Batches, MicroBatch
from mmpack_trainer.checkpoint import Checkpoints, Run
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.contrastive import Contrast, contrast
from mmpack_trainer.data import RowLoader
from mmpack_trainer.losses import PARTS, loss_of, totals
from mmpack_trainer.model.build import decoder_config
from mmpack_trainer.model.inputs import Outputs, Routing
from mmpack_trainer.model.masks import Backend
from mmpack_trainer.optimizer import adamw, balance, clip, row_norms, set_lr
from mmpack_trainer.parallel import build, start
from mmpack_trainer.schedule import learning_rate


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a step did, equal on all ranks but for the times.

    Attributes:
        number: from 1.
        loss: what was differentiated.
        parts: ce, action, aux, z, contrastive; without their factors.
        gradient_norm: before clipping.
        lr: learning rate.
        tokens: places of documents, over all ranks; `places` with the pads, `labels` those that predict an id.
        seconds: of the step on this rank, `waited` of them for data.
        chosen: int64 (layers, E), tokens that chose each expert; (0, 0) without experts.
        dropped: choices beyond capacity.
        gate: float32 (layers, 5), means over tokens, see :class:`Routing`.
        router_gradient: float32 (layers, E), norm of the gradient of each expert's row of the gate, before clipping.
    """

    number: int
    loss: float
    parts: dict[str, float]
    gradient_norm: float
    lr: float
    tokens: int
    places: int
    labels: int
    seconds: float
    waited: float
    chosen: Tensor
    dropped: int
    gate: Tensor
    router_gradient: Tensor

    @property
    def fill(self) -> float:
        """Tokens / places."""
        return self.tokens / self.places


class DivergenceError(DataError):
    """The gradient is not finite. The weights are still those of the step before."""


class Trainer:
    """A run of one configuration, over all processes that torchrun started, or in this one.

    Args:
        config: the run.
        lr: the learning rate of each step, the first being 0; None: the configuration's.
        emulate_fp8: see :func:`mmpack_trainer.parallel.build`.

    Raises:
        ConfigError: settings contradict each other, the plan or the number of processes.
        DataError, StorageError: the rows cannot be read.
    """

    def __init__(
        self, config: TrainConfig, *, lr: Callable[[int], float] | None = None, emulate_fp8: bool = False
    ) -> None:
        self.config = config
        self.world = world = start(config.parallel)
        reader = {
            key: value for key in ("workers", "threads") if (value := getattr(config.data, key)) is not None
        }
        self.stream = RowStream.open(
            config.data.plan, rank=world.data_rank, ranks=world.data_ranks, reader=reader
        )
        plan = self.stream.plan
        self.batch = batch_of(
            plan.config.global_batch,
            seq_len=plan.config.max_seq_len,
            micro_batch=config.micro_batch,
            ranks=world.data_ranks,
        )
        backend = _backend(config, world.device)
        self.batches = Batches(
            plan.layout,
            config.loss,
            backend=backend,
            both_ways=config.model.image_attention == "both",
            device=world.device,
        )
        tree = decoder_config(
            config.model,
            config.loss,
            self.batches.widths,
            max_seq_len=plan.config.max_seq_len,
            backend=backend,
            expert_parallel=config.parallel.expert > 1,
            seed=config.seed,
        )
        self.model = build(tree, world, config.compute, seed=config.seed, emulate_fp8=emulate_fp8)
        self.optimizer = adamw(self.model, config.optimizer)
        self.loader = RowLoader(RowLoader.Config(micro_batch=config.micro_batch), stream=self.stream)
        self.checkpoints = Checkpoints(Path(config.out), keep=config.checkpoint.keep, world=world)
        self.done = 0
        """Steps."""
        self._saved = 0
        """Steps done when a checkpoint was last written or read."""
        self._lr = lr or learning_rate(config.schedule, steps=config.steps, peak=config.optimizer.lr)
        # What decides which weights there are and what they mean: not what computes it.
        self._settings = {
            **{key: value for key, value in to_builtins(config.model).items() if key != "attention"},
            "learn_temperature": config.loss.learn_temperature,
            "vocabulary": self.batches.widths.vocabulary,
        }
        self._data: Iterator | None = None
        self._losses: list[float] = []

    def fit(
        self,
        log: Callable[[Step], None] = lambda step: None,
        *,
        ready: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Trains to the last step, from the last checkpoint on if there is one and it is to be used.

        Args:
            log: called with every step.
            ready: called before the first of them, with how many were done before.

        Raises:
            ConfigError: it is not to go on from checkpoints, and there are some.
            DataError: see :meth:`step`.
        """
        if self.config.checkpoint.resume:
            self.resume()
        elif self.done == 0 and (last := self.checkpoints.last()) is not None:
            # The run would go on from them once it is started again, as soon as it is killed.
            raise ConfigError(
                f"there are checkpoints of another run, up to step {last}",
                where=self.config.out,
                hint="Give this run another `out`, or move them away; with checkpoint.resume it goes on from the last.",
            )
        ready(self.done)
        while self.done < self.config.steps:
            try:
                step = self.step()
            except PlanEndError:
                if self.done != self._saved:
                    self.save()
                raise
            log(step)
            if self.done % self.config.checkpoint.every_steps == 0 or self.done == self.config.steps:
                self.save()

    def resume(self) -> None:
        """Goes on from the last checkpoint, if there is one. Raises ConfigError, DataError."""
        run = self.checkpoints.load(self.model, self.optimizer, self._settings)
        if run is not None:
            self.loader.load_state_dict(run.rows)
            self.done, self._saved, self._data = run.step, run.step, None

    def save(self) -> None:
        """Writes a checkpoint of the steps done."""
        loss = sum(self._losses) / max(len(self._losses), 1)
        self._losses.clear()
        run = Run(self.done, self.loader.state_dict(), loss, self._settings)
        self.checkpoints.save(self.model, self.optimizer, run)
        self._saved = self.done

    def close(self) -> None:
        """Ends reading ahead."""
        self.stream.close()

    def step(self) -> Step:
        """One optimizer step on the rows that come next.

        Raises:
            PlanEndError: the plan has no more rows.
            DivergenceError: see :meth:`learn`.
        """
        begun = perf_counter()
        batches = self._take()
        return self.learn(batches, waited_s=perf_counter() - begun)

    def learn(self, batches: list[MicroBatch], *, waited_s: float = 0.0) -> Step:
        """One optimizer step on these micro-batches, this rank's of the step.

        Args:
            batches: as many on every rank, with the batch's rows in all.
            waited_s: how long they were waited for.

        Raises:
            DivergenceError: the gradient is not finite. The weights are still those of the step before.
        """
        begun = perf_counter()
        sums = totals(batches, self.world)
        ready, contrasted = self._contrast(batches)
        parts = torch.zeros(len(PARTS), dtype=torch.float64, device=self.world.device)
        routings: list[tuple[Routing, ...]] = []
        pairs = 0
        for number, batch in enumerate(batches):
            outputs = ready[number] if ready else self.model(batch.inputs, batch.targets.ids)
            loss = loss_of(
                outputs,
                batch.targets,
                self.config.loss,
                sums,
                contrasted,
                first=pairs,
                shares=len(batches) * self.world.data_ranks,
            )
            loss.value.backward()
            parts += loss.parts
            pairs += len(batch.targets.pair_valid)
            routings.append(
                tuple(
                    each._replace(balance=each.balance.detach(), z=each.z.detach())
                    for each in outputs.routing
                )
            )
        named: dict[str, float] = dict(zip(PARTS, self.world.add(parts).tolist(), strict=True))
        named["contrastive"] = contrasted.loss.item() if contrasted is not None else 0.0
        router_gradient = row_norms([moe.router.gate.weight for moe in self.model.experts()])
        norm = clip(self.model, self.config.optimizer.max_norm)
        if not isfinite(norm):
            self.optimizer.zero_grad()
            raise self._not_finite(norm, named, batches)
        lr = self._lr(self.done)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        chosen, dropped, gate = self._routed(routings)
        self.done += 1
        step = Step(
            number=self.done,
            loss=_total(named, self.config),
            parts=named,
            gradient_norm=norm,
            lr=lr,
            tokens=sums.tokens,
            places=self.batch.tokens,
            labels=sums.labels,
            seconds=waited_s + perf_counter() - begun,
            waited=waited_s,
            chosen=chosen,
            dropped=dropped,
            gate=gate / max(sums.tokens, 1),
            router_gradient=router_gradient.cpu(),
        )
        self._losses.append(step.loss)
        return step

    def _take(self) -> list[MicroBatch]:
        if self._data is None:
            self._data = iter(self.loader)
        found = []
        for _ in range(self.batch.accumulation):
            taken = next(self._data, None)
            if taken is None:
                raise PlanEndError(
                    f"the plan ends after {self.done} steps",
                    where=self.config.data.plan,
                    hint="Give its phases more tokens, or the run fewer steps.",
                )
            arrays, labels = taken
            found.append(self.batches({**arrays, "labels": labels}))
        return found

    def _not_finite(self, norm: float, parts: dict[str, float], batches: list[MicroBatch]) -> DivergenceError:
        rows = [number for batch in batches for number in batch.inputs.numbers]
        told = ", ".join(f"{name} {value:g}" for name, value in parts.items())
        kept = (
            f"the last checkpoint is of step {self._saved}" if self._saved else "there is no checkpoint yet"
        )
        return DivergenceError(
            f"the gradient of step {self.done + 1} has a norm of {norm} ({told})",
            where=f"row {rows[0]}" if len(rows) == 1 else f"rows {min(rows)} to {max(rows)}",
            hint=f"Lower optimizer.lr, or look at the rows (mmpack show-row); {kept}.",
        )

    def _contrast(self, batches: list[MicroBatch]) -> tuple[list[Outputs], Contrast | None]:
        """The contrastive loss, which needs the embeddings of all micro-batches before the first is differentiated.

        With one micro-batch its forward pass is the only one; with more, all are run first without gradients.
        """
        if not self.config.loss.contrastive or not self.config.model.contrastive_dim:
            return [], None
        is_whole = len(batches) == 1
        with torch.set_grad_enabled(is_whole):
            outputs = [
                self.model(batch.inputs, batch.targets.ids if is_whole else batch.targets.ids.none())
                for batch in batches
            ]
        embeddings = torch.cat([each.embeddings for each in outputs]).detach()
        tau = outputs[0].temperature
        found = contrast(
            embeddings,
            torch.cat([batch.targets.pair_valid for batch in batches]),
            tau if tau is not None else embeddings.new_full((1,), self.config.loss.temperature),
            self.world,
        )
        return (outputs if is_whole else []), found

    def _routed(self, routings: list[tuple[Routing, ...]]) -> tuple[Tensor, int, Tensor]:
        """Statistics over micro-batches and ranks; moves the balancing bias."""
        if not routings[0]:
            return torch.zeros(0, 0, dtype=torch.int64), 0, torch.zeros(0, 5)
        chosen = torch.stack([torch.stack([each.chosen for each in routing]) for routing in routings]).sum(0)
        dropped = torch.stack([torch.stack([each.dropped for each in routing]) for routing in routings]).sum()
        gate = torch.stack([torch.stack([each.gate for each in routing]) for routing in routings]).sum(0)
        chosen = self.world.add(chosen)
        for moe, counts in zip(self.model.experts(), chosen, strict=True):
            if moe.expert_bias_E is not None and moe.load_balance_coeff is not None:
                balance(moe.expert_bias_E, counts, moe.load_balance_coeff)
        return chosen.cpu(), int(self.world.add(dropped)), self.world.add(gate).cpu()


def _total(parts: dict[str, float], config: TrainConfig) -> float:
    loss = config.loss
    factors = {
        "ce": 1.0,
        "action": loss.action,
        "aux": loss.aux,
        "z": loss.z,
        "contrastive": loss.contrastive,
    }
    return sum(factors[name] * value for name, value in parts.items())


def _backend(config: TrainConfig, device: torch.device) -> Backend:
    chosen = config.model.attention
    if chosen == "auto":
        return "flex" if device.type == "cuda" else "sdpa"
    return chosen
