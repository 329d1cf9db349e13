"""BrainMass: masked-ROI modelling (MRM) and latent representation alignment (LRA) on pFC matrices.

"BrainMass: Advancing Brain Network Analysis for Diagnosis with Large-scale Self-Supervised Learning",
IEEE Trans. Med. Imaging 43(11):4004-4016, 2024 (arXiv 2403.01433).

Axes: B batch, N ROIs, C token width, M masked ROIs, F = 8 N features, D latent.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from boldmill.models.brainmass.architecture import Architecture
from boldmill.models.brainmass.encoder import Block, Encoder, sinusoid
from boldmill.train.batch_norm import BatchNorm


def mrm_head(width: int, hidden: int, rois: int, layers: int = 2) -> nn.Sequential:
    """Head back to an FC row, of two layers or of three (a further one of the hidden width)."""
    inner = [part for _ in range(layers - 2) for part in (nn.Linear(hidden, hidden), nn.LeakyReLU(0.01))]
    return nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(0.01), *inner, nn.Linear(hidden, rois))


def clean_fc(fc: Tensor) -> Tensor:
    """Return FC matrices (B, N, N) with 0 for NaN (parcels without data) and a diagonal of 1, as in training."""
    eye = torch.eye(fc.shape[-1], dtype=torch.bool, device=fc.device)
    return torch.nan_to_num(fc.float(), nan=0.0).masked_fill(eye, 1.0)


class BrainMass(nn.Module):
    """Online and target network, predictor, MRM heads, mask vector and extra tokens.

    ``unused_norm`` is part of the published parameter count and never called.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.online = Encoder(arch)
        self.predictor = nn.Sequential(
            nn.Linear(arch.latent, 2 * arch.latent),
            BatchNorm(2 * arch.latent),
            nn.ReLU(),
            nn.Linear(2 * arch.latent, arch.latent),
        )
        self.head_clf = mrm_head(arch.width, arch.ffn, arch.rois)
        self.head_rec = mrm_head(arch.width, arch.ffn, arch.rois, arch.rec_layers)
        self.mask_vector = nn.Parameter(torch.empty(1, 1, arch.width))
        self.cls_token = nn.Parameter(torch.empty(1, 1, arch.width))
        self.dist_token = nn.Parameter(torch.empty(1, 1, arch.width))
        self.unused_norm = nn.LayerNorm(arch.width)
        for vector in (self.mask_vector, self.cls_token, self.dist_token):
            nn.init.xavier_normal_(vector)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.unused_norm.requires_grad_(False)
        self.positions: Tensor
        self.register_buffer("positions", sinusoid(arch.rois + 2, arch.width), persistent=False)

    def encode(self, fc: Tensor, *, network: Encoder | None = None, masked: Tensor | None = None) -> Tensor:
        """Return the encoded ROI tokens of FC matrices, (B, N, N) -> (B, N, C); parameters as :meth:`encode_all`."""
        return self.encode_all([(fc, masked)], network=network)[0]

    def encode_all(
        self, passes: Sequence[tuple[Tensor, Tensor | None]], *, network: Encoder | None = None
    ) -> list[Tensor]:
        """Return the encoded ROI tokens of several passes, each (B, N, C), through the blocks in one batch.

        Parameters
        ----------
        passes : sequence of (fc, masked)
            FC (B, N, N), row i is the token of ROI i; and (B, M) int64 or ``None``: ROIs whose token is replaced by
            the mask vector. Their columns stay in the other rows, as published, or are 0 there (``mask_columns``): the
            value of a ROI without data.
        network : Encoder, optional
            The online network where not given.
        """
        chosen = self.online if network is None else network
        sequences = [self._sequence(fc, masked, chosen) for fc, masked in passes]
        encoded: dict[int, Tensor] = {}
        for length in {one.shape[1] for one in sequences}:
            places = [i for i, one in enumerate(sequences) if one.shape[1] == length]
            done = chosen.run(torch.cat([sequences[i] for i in places]))[:, length - self.arch.rois :]
            encoded |= dict(zip(places, torch.split(done, [len(sequences[i]) for i in places]), strict=True))
        return [encoded[i] for i in range(len(passes))]

    def _sequence(self, fc: Tensor, masked: Tensor | None, network: Encoder) -> Tensor:
        """Return what enters the blocks, (B, S, C)."""
        if masked is None:
            tokens: Tensor = network.embed(fc)
        else:
            hidden = torch.zeros(fc.shape[:2], dtype=torch.bool, device=fc.device).scatter(1, masked, True)
            seen = fc.masked_fill(hidden[:, None, :], 0.0) if self.arch.mask_columns else fc
            tokens = torch.where(hidden[..., None], self.mask_vector, network.embed(seen))
        if self.arch.style == "paper" and masked is None:
            return tokens
        extra = torch.cat([self.cls_token, self.dist_token], dim=1).expand(len(fc), -1, -1)
        return torch.cat([extra, tokens], dim=1) + self.positions

    def masked_predictions(
        self, fc: Tensor, masked: Tensor, head: nn.Module, encoded: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return predicted and true rows of the masked ROIs, each (B, M, N)."""
        encoded = self.encode(fc, masked=masked) if encoded is None else encoded
        picked = encoded.gather(1, masked[..., None].expand(-1, -1, encoded.shape[-1]))
        truth = fc.gather(1, masked[..., None].expand(-1, -1, fc.shape[-1]))
        return head(picked), truth.detach()

    def project(self, fc: Tensor) -> Tensor:
        """Return the online projector's output, (B, N, N) -> (B, D)."""
        latent: Tensor = self.online.project(self.online.readout(self.encode(fc)))
        return latent

    def features(self, fc: Tensor) -> Tensor:
        """Return the features of FC matrices, (B, N, N) -> (B, 8 N); NaN becomes 0 and the diagonal 1."""
        return self.online.readout(self.encode(clean_fc(fc)))

    @torch.no_grad()
    def target_readouts(self, *views: Tensor) -> list[Tensor]:
        """Return the target's readout of each view, (B, N, N) -> (B, F), without gradient (tokens are the online ones).

        Views share a batch in the blocks.
        """
        encoded = self.encode_all([(view, None) for view in views], network=self.target)
        return [self.target.readout(one) for one in encoded]

    @torch.no_grad()
    def target_project(self, *readouts: Tensor) -> list[Tensor]:
        """Return the target's latent (B, D) of readouts (B, F); batch statistics are those of each view."""
        return [self.target.project(one) for one in readouts]

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Move the target's parameters towards the online ones: t <- m t + (1 - m) o (buffers are its own)."""
        slow: list[Tensor] = list(self.target.parameters())
        fast: list[Tensor] = list(self.online.parameters())
        torch._foreach_lerp_(slow, fast, 1.0 - momentum)

    def set_execution(self, precision: str, *, compiled: bool = False) -> None:
        """Set how training computes: products in ``"fp32"`` or ``"bf16"``, blocks compiled (GPU) or not."""
        for network in (self.online, self.target):
            network.precision = precision
            network.compiled = torch.compile(Block.forward, dynamic=False) if compiled else None
