"""Operations in the matrix products of BrainMass, counted from its sizes: for measurements and for planning."""

from __future__ import annotations

from boldmill.models.brainmass.architecture import READOUT, Architecture


def encoder_flops(arch: Architecture, tokens: int) -> float:
    """Return the operations of one forward pass of a scan: L (8 S C^2 + 4 S^2 C + 4 S C f), S = ``tokens``."""
    width = arch.width
    return arch.depth * (8 * tokens * width**2 + 4 * tokens**2 * width + 4 * tokens * width * arch.ffn)


def step_flops(arch: Architecture, masked: tuple[int, int]) -> float:
    """Return the operations in matrix products of a whole step per scan (multiply and add: 2).

    Four online passes forward and backward (twice the forward), two target passes forward, readout, projector and
    predictor of both views, the heads on the masked ROIs, InfoNCE.
    """
    full, plain = arch.rois + 2, arch.rois if arch.style == "paper" else arch.rois + 2
    embed = 0 if arch.width == arch.rois else 2 * arch.rois**2 * arch.width
    readout = 2 * arch.rois * arch.width * READOUT + 2 * arch.hidden * (arch.features + arch.latent)
    predictor = 2 * arch.latent * 2 * arch.latent * 2
    latent = encoder_flops(arch, plain) + embed + readout
    heads = sum(masked) * 2 * arch.ffn * (arch.width + arch.rois) + 2 * masked[0] ** 2 * arch.rois
    online = 2 * (latent + predictor) + 2 * (encoder_flops(arch, full) + embed) + heads
    return 3 * online + 2 * latent
