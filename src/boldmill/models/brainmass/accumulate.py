"""The losses of a batch whose activations do not fit into memory: exact, also where scans meet.

Axes: B scans of a rank's slice, m of a micro-batch, N ROIs, F = 8 N features.

Losses of the masked passes are each scan's own: their micro-batches just add up. The alignment loss is not like that:
projector and predictor normalise over the batch. But everything up to the readout (B, F), which is what costs memory,
treats scans one by one. So the batch goes through in two passes:

1. all micro-batches up to the readout, without gradient; then projector, predictor and loss on the whole slice, and
   their gradient with respect to the readouts, which is kept;
2. each micro-batch again, with gradient: the kept gradient goes on backward from its readouts.

The second pass draws the same dropout as the first. Price: one more forward pass of both views (about a seventh of a
step). Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021, do the same for
contrastive losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from boldmill.models.brainmass.losses import Weights, aligned, masked_losses, masked_passes
from boldmill.train.precision import products

if TYPE_CHECKING:
    from boldmill.models.brainmass.model import BrainMass


def total_in_pieces(
    model: BrainMass,
    views: tuple[Tensor, Tensor],
    mask_clf: Tensor,
    mask_rec: Tensor,
    weights: Weights,
    most: int,
    part: float = 1.0,
) -> Iterator[dict[str, Tensor]]:
    """Yield pieces of ``part`` times what :func:`boldmill.models.brainmass.losses.total` returns; they add up to it.

    The caller goes backward through a piece's ``loss``, as it is, before it asks for the next one. Arguments as for
    ``total``; ``most`` scans go through the blocks at a time, ``part`` is this rank's share of the global batch.
    """
    first, second = views
    pieces = [slice(start, start + most) for start in range(0, len(first), most)]
    states: list[list[Tensor]] = []
    grads: list[Tensor] = []
    if weights.lra:
        read: list[list[Tensor]] = []
        target: list[list[Tensor]] = []
        for piece in pieces:
            states.append(_random_state(first.device))
            with torch.no_grad(), products(first.device, model.online.precision):
                read.append(_readouts(model, first[piece], second[piece]))
                target.append(model.target_readouts(first[piece], second[piece]))
        leaves = [torch.cat(one).requires_grad_() for one in zip(*read, strict=True)]
        lra = aligned(model, leaves, [torch.cat(one) for one in zip(*target, strict=True)], first.dtype)
        lra = lra * part
        yield {"loss": weights.lra * lra, "lra": lra}
        grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    onward = _random_state(first.device)
    for number, piece in enumerate(pieces):
        terms: list[Tensor] = []
        if weights.lra:
            _set_random_state(states[number], first.device)
            with products(first.device, model.online.precision):
                again = _readouts(model, first[piece], second[piece])
            _set_random_state(onward, first.device)
            # its value is 0, its gradient the kept one
            sums = [(one * grad[piece]).sum() for one, grad in zip(again, grads, strict=True)]
            terms += [one - one.detach() for one in sums]
        found: dict[str, Tensor] = {}
        if passes := masked_passes(first[piece], mask_clf[piece], mask_rec[piece], weights):
            with products(first.device, model.online.precision):
                encoded = dict(zip(passes, model.encode_all(list(passes.values())), strict=True))
            for name, (weight, loss) in masked_losses(model, passes, encoded, weights).items():
                found[name] = loss * (part * len(first[piece]) / len(first))
                terms.append(weight * found[name])
        onward = _random_state(first.device)
        yield {"loss": torch.stack(terms).sum(), **found}


def _readouts(model: BrainMass, first: Tensor, second: Tensor) -> list[Tensor]:
    """Return the online readouts (m, F) of both views, which share a batch in the blocks."""
    return [model.online.readout(one) for one in model.encode_all([(first, None), (second, None)])]


def _random_state(device: torch.device) -> list[Tensor]:
    found = [torch.get_rng_state()]
    return [*found, torch.cuda.get_rng_state(device)] if device.type == "cuda" else found


def _set_random_state(state: list[Any], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
