"""The leak audit: nothing that a document of a packed row holds may reach another one, in the model as it is trained.

Every document is changed in turn, its ids, pixels and values, and its loss is differentiated. What other documents give
must stay the same, and what they are embedded as must not matter to the loss: to the bit where all is dense; with
experts a sum may be made in another order, since how many tokens an expert gets has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmpack.errors import DataError
from mmpack_trainer.audit_places import (
    BatchDocument,
    Misplaced,
    documents_of,
    image_faults,
    label_faults,
    position_faults,
)
from mmpack_trainer.batch import MicroBatch
from mmpack_trainer.model.decoder import MultimodalDecoder
from mmpack_trainer.model.inputs import Inputs, Outputs
from mmpack_trainer.model.moe import MultimodalMoE
from mmpack_trainer.titan import CosSinRoPE, token_losses, whole

EXPERTS_TOLERANCE = 1e-5
"""Largest difference between documents that is let pass in a model with experts, float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """What documents do to each other. The last of the D + 1 sources are the pads and unreadable places.

    Attributes:
        outputs: float64 (D + 1, D), largest change of a target's logits, hidden states, predicted actions and embeddings
            when the source is changed.
        gradients: float64 (D + 1, D), largest gradient of the target's loss by the source's embeddings.
        dropped: tokens that found no place at an expert, in the batch as it is.
    """

    outputs: NDArray[np.float64]
    gradients: NDArray[np.float64]
    dropped: int

    @property
    def between(self) -> NDArray[np.float64]:
        """float64 (D + 1, D): the larger of both, 0 for a document and itself."""
        found = np.fmax(self.outputs, self.gradients)
        # A number that is none is a difference too.
        found[np.isnan(self.outputs) | np.isnan(self.gradients)] = np.inf
        np.fill_diagonal(found, 0.0)
        return found

    @property
    def largest(self) -> float:
        """Between any two."""
        return float(self.between.max(initial=0.0))


@dataclass(frozen=True, slots=True, eq=False)
class AuditReport:
    """What an audit found.

    Attributes:
        documents: of the batch.
        misplaced: what is wrong with spans, labels and positions.
        effects: without drops at experts; None where the batch could not be made.
        tolerance: largest effect that is let pass.
        coupling: effects with drops, where the model has a capacity factor. A token that takes an expert's last place
            takes it from another document: this is how capacity works, and no leak of the mask.
    """

    documents: tuple[BatchDocument, ...]
    misplaced: tuple[Misplaced, ...]
    effects: Effects | None
    tolerance: float
    coupling: Effects | None = None

    @property
    def leaks(self) -> list[tuple[int, int]]:
        """(source, target) of documents that reach others; the source may be the pads, numbered D."""
        if self.effects is None:
            return []
        return [(int(a), int(b)) for a, b in np.argwhere(self.effects.between > self.tolerance)]

    @property
    def idle(self) -> list[int]:
        """Documents whose change did not even change themselves: nothing was tried with them."""
        return [] if self.effects is None else np.flatnonzero(np.diag(self.effects.outputs) == 0).tolist()

    @property
    def is_tight(self) -> bool:
        """Whether all was tried, and no document reaches another."""
        return self.effects is not None and not (self.misplaced or self.leaks or self.idle)

    def name(self, source: int) -> str:
        """What a source is called."""
        return str(self.documents[source]) if source < len(self.documents) else "pads"

    def findings(self) -> Iterator[str]:
        """Every fault as a sentence that names its documents."""
        for fault in self.misplaced:
            yield fault.what if fault.document is None else f"{self.name(fault.document)}: {fault.what}"
        for source, target in self.leaks:
            size = 0.0 if self.effects is None else self.effects.between[source, target]
            yield f"{self.name(source)} reaches {self.name(target)}: a difference of {size:.3g}"
        for number in self.idle:
            yield f"{self.name(number)}: the model does not read it"


def audit(
    model: MultimodalDecoder, batches: Callable[[Mapping[str, Any]], MicroBatch], arrays: Mapping[str, Any]
) -> AuditReport:
    """Audits a model on a batch, in one process. The model is left as it was.

    Whose a place is follows from `document_ids` alone; spans, positions and labels are what is audited.

    Args:
        model: in float32, and not compiled.
        batches: makes what the model and the losses read.
        arrays: of rows, see :func:`mmpack.stream.torch.collate_tensors`.

    Returns:
        Two passes per document, or four where experts have a capacity.
    """
    documents, owner = documents_of(arrays)
    misplaced = [*image_faults(arrays, owner), *label_faults(arrays, documents, owner)]
    experts = [module for module in model.modules() if isinstance(module, MultimodalMoE)]
    tolerance = EXPERTS_TOLERANCE if experts else 0.0
    try:
        batch = batches(arrays)
    except DataError as error:
        misplaced.append(Misplaced("spans", None, str(error)))
        return AuditReport(documents, tuple(misplaced), None, tolerance)
    probe = _Probe(model, batch, len(documents), owner)
    limits = [each.capacity_factor for each in experts]
    coupling = probe.effects() if any(limit is not None for limit in limits) else None
    try:
        for each in experts:
            each.capacity_factor = None
        effects = probe.effects()
    finally:
        for each, limit in zip(experts, limits, strict=True):
            each.capacity_factor = limit
    misplaced += position_faults(probe.positions, documents)
    return AuditReport(documents, tuple(misplaced), effects, tolerance, coupling)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A forward pass: `embedded` and `hidden` (B, L, dim), positions (B, L) of every layer."""

    outputs: Outputs
    embedded: Tensor
    hidden: Tensor
    positions: list[Tensor]


class _Probe:
    """A model on a batch of `count` documents; `owner` (B, L) is the number of each place's, `count` for none."""

    def __init__(
        self, model: MultimodalDecoder, batch: MicroBatch, count: int, owner: NDArray[np.int64]
    ) -> None:
        self._model, self._batch, self._count = model, batch, count
        self._owner = torch.from_numpy(owner).to(batch.inputs.tokens.device)
        self.positions: list[NDArray[np.int64]] = []

    def effects(self) -> Effects:
        """Every document changed, and its loss differentiated."""
        count, inputs = self._count, self._batch.inputs
        base = self._run(inputs)
        self.positions = [each.cpu().numpy() for each in base.positions]
        outputs, gradients = np.zeros((count + 1, count)), np.zeros((count + 1, count))
        for number in range(count + 1):
            seen = self._run(self._changed(inputs, number))
            outputs[number] = self._differences(base, seen)
            if number < count:
                gradients[:, number] = self._gradients(seen, number)
        dropped = sum(int(each.dropped) for each in base.outputs.routing)
        return Effects(outputs, gradients, dropped)

    def _run(self, inputs: Inputs) -> _Seen:
        with _watched(self._model) as (embedded, hidden, positions), torch.enable_grad():
            outputs = self._model(inputs)
        return _Seen(outputs, embedded[-1], whole(hidden[-1]), positions)

    def _changed(self, inputs: Inputs, number: int) -> Inputs:
        """Another document in the places of one: other ids, negatives of its pictures, other values."""
        owner = self._owner.flatten()
        highest = int(inputs.tokens.max()) + 1
        # By place, so that a document of one id throughout does not stay one.
        other = (inputs.tokens + 1 + torch.arange(inputs.tokens.shape[1], device=owner.device) % 5) % highest

        def moved(vectors: Tensor, index: Tensor) -> Tensor:
            return torch.where((owner[index] == number)[:, None], 0.5 - vectors, vectors)

        return replace(
            inputs,
            tokens=torch.where(self._owner == number, other, inputs.tokens),
            patches=moved(inputs.patches, inputs.patch_index),
            values=moved(inputs.values, inputs.value_index),
            actions=moved(inputs.actions, inputs.action_index),
        )

    def _differences(self, base: _Seen, seen: _Seen) -> NDArray[np.float64]:
        """The largest of each document."""
        owner, inputs = self._owner.flatten(), self._batch.inputs
        pairs = [
            (base.hidden.flatten(0, 1), seen.hidden.flatten(0, 1), owner),
            (
                whole(base.outputs.all_logits()).flatten(0, 1),
                whole(seen.outputs.all_logits()).flatten(0, 1),
                owner,
            ),
        ]
        if base.outputs.actions is not None and seen.outputs.actions is not None:
            pairs.append((base.outputs.actions, seen.outputs.actions, owner[inputs.action_index]))
        if base.outputs.embeddings is not None and seen.outputs.embeddings is not None:
            ends = owner[inputs.cls_index].flatten()
            pairs.append((base.outputs.embeddings.flatten(0, 1), seen.outputs.embeddings.flatten(0, 1), ends))
        found = torch.zeros(self._count + 1, device=owner.device)
        for before, after, whose in pairs:
            change = (after.detach().float() - before.detach().float()).abs()
            if len(change):
                found.scatter_reduce_(0, whose, change.amax(-1), "amax")
        return found[:-1].double().cpu().numpy()

    def _gradients(self, seen: _Seen, number: int) -> NDArray[np.float64]:
        """The largest gradient of a document's loss by the embeddings of each source."""
        owner, inputs, targets = self._owner, self._batch.inputs, self._batch.targets
        outputs = seen.outputs
        document = owner == number
        loss = token_losses(outputs.all_logits()[document][None], targets.labels[document][None]).sum()
        if outputs.actions is not None:
            own = owner.flatten()[inputs.action_index] == number
            loss = loss + ((outputs.actions - targets.actions)[own].square() * targets.action_mask[own]).sum()
        if outputs.embeddings is not None:
            loss = loss + outputs.embeddings[owner.flatten()[inputs.cls_index] == number].sum()
        (gradient,) = torch.autograd.grad(loss, seen.embedded)
        found = torch.zeros(self._count + 1, device=owner.device)
        found.scatter_reduce_(
            0, owner.flatten(), whole(gradient).flatten(0, 1).float().abs().amax(-1), "amax"
        )
        return found.double().cpu().numpy()


@contextmanager
def _watched(model: MultimodalDecoder) -> Iterator[tuple[list[Tensor], list[Tensor], list[Tensor]]]:
    """Keeps what the embedding and the last norm give, and the positions that reach each layer's rotation."""
    embedded: list[Tensor] = []
    hidden: list[Tensor] = []
    positions: list[Tensor] = []

    def turned(module: Any, arguments: tuple[Any, ...]) -> None:
        query, _, given = arguments
        rows, places = query.shape[:2]
        # Without positions heads are turned by the place in the row.
        positions.append(torch.arange(places).expand(rows, places) if given is None else whole(given))

    with ExitStack() as stack:
        for hook in (
            model.tok_embeddings.register_forward_hook(lambda _, __, out: embedded.append(out)),
            model.norm.register_forward_hook(lambda _, __, out: hidden.append(out)),
            *(
                module.register_forward_pre_hook(turned)
                for module in model.modules()
                if isinstance(module, CosSinRoPE)
            ),
        ):
            stack.callback(hook.remove)
        yield embedded, hidden, positions
