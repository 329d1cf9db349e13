"""fMRI-MAE: a masked autoencoder on cortical flat-map video.

"Scaling Vision Transformers for Functional MRI with Flat Maps", arXiv 2510.13768 (second generation by default).

Axes: B batch, T frames, U temporal tokens, X valid pixels, S filled patches of a frame, K visible ones, Q = S - K
hidden ones, P pixels of a space-time patch, C width, D decoder width. Tokens run time-major: all patches of the first
temporal token come first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from boldmill.errors import ConfigError
from boldmill.models.fmri_mae.architecture import Architecture
from boldmill.models.fmri_mae.grid import PatchGrid, frame_normalise
from boldmill.models.fmri_mae.vit import Block, initialise
from boldmill.train.precision import full


class Positions(nn.Module):
    """Separable learned positions: one table over the patches of a frame, one over time, summed."""

    def __init__(self, times: int, patches: int, width: int) -> None:
        super().__init__()
        self.space = nn.Parameter(torch.empty(1, patches, width))
        self.time = nn.Parameter(torch.empty(times, 1, width))
        nn.init.trunc_normal_(self.space, std=0.02)
        nn.init.trunc_normal_(self.time, std=0.02)

    def forward(self, patches: Tensor) -> Tensor:
        """Positions of tubes: patches (B, K) among all of the grid -> (B, U * K, C)."""
        both = self.time[None] + self.space[0][patches][:, None]  # (B, U, K, C)
        return both.flatten(1, 2)


class Encoder(nn.Module):
    """Patch embedding, class token, blocks, norm."""

    def __init__(self, arch: Architecture, patches: int) -> None:
        super().__init__()
        self.patch_embed = nn.Linear(arch.patch_t * arch.patch**2, arch.width)
        self.pos_embed = Positions(arch.times, patches, arch.width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, arch.width))
        self.cls_position = nn.Parameter(torch.empty(1, 1, arch.width)) if arch.class_position else None
        self.blocks = nn.ModuleList(Block(arch.width, arch.heads) for _ in range(arch.depth))
        self.norm = nn.LayerNorm(arch.width, eps=1e-6)
        self.apply(initialise)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if self.cls_position is not None:
            nn.init.trunc_normal_(self.cls_position, std=0.02)

    def forward(self, patches: Tensor, where: Tensor) -> Tensor:
        """Encode patches (B, L, P) at grid places ``where`` (B, L / U) -> (B, 1 + L, C), class token first."""
        tokens = self.patch_embed(patches) + self.pos_embed(where)
        first = self.cls_token if self.cls_position is None else self.cls_token + self.cls_position
        tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        y: Tensor = self.norm(tokens)
        return y


class Decoder(nn.Module):
    """Predict hidden patches from the encoded visible ones and one shared mask token."""

    def __init__(self, arch: Architecture, patches: int) -> None:
        super().__init__()
        width = arch.decoder_width
        self.again = arch.decoder_positions_again
        self.proj = nn.Linear(arch.width, width)
        self.pos_embed = Positions(arch.times, patches, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_position = nn.Parameter(torch.zeros(1, 1, width)) if arch.class_position else None
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, arch.decoder_heads) for _ in range(arch.decoder_depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, arch.target_frames * arch.patch**2)
        self.apply(initialise)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        nn.init.zeros_(self.head.weight)  # the first prediction is 0: the loss starts at the data's variance

    def forward(self, encoded: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Encoded (B, 1 + U K, C), grid places (B, K) and (B, Q) -> predictions (B, U Q, target pixels)."""
        seen = self.proj(encoded[:, 1:])
        if self.again:
            seen = seen + self.pos_embed(visible)
        first = self.cls_token if self.cls_position is None else self.cls_token + self.cls_position
        asked = self.mask_token + self.pos_embed(hidden)
        tokens = torch.cat([first.expand(len(seen), -1, -1), seen, asked], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        y: Tensor = self.head(self.norm(tokens[:, -asked.shape[1] :]))
        return y


class FmriMae(nn.Module):
    """Masked autoencoder over clips in compact storage, for one pixel mask."""

    def __init__(self, arch: Architecture, mask: npt.NDArray[np.bool_]) -> None:
        super().__init__()
        self.arch = arch
        self.grid = PatchGrid(mask, arch.patch)
        self.encoder = Encoder(arch, self.grid.n_all)
        self.decoder = Decoder(arch, self.grid.n_all)

    def tubes(self, pixels: Tensor, picked: Tensor | None = None, stride: int = 1) -> Tensor:
        """Cut normalised pixels (B, T, X) into patches (B, U * K, frames * A), taking every ``stride``-th frame."""
        cut = self.grid.patches(pixels, picked)  # (B, K, T, A)
        cut = cut.view(*cut.shape[:2], self.arch.times, self.arch.patch_t, -1)[:, :, :, ::stride]
        return cut.permute(0, 2, 1, 3, 4).flatten(3).flatten(1, 2)

    def check_mask(self, mask: npt.NDArray[np.bool_]) -> None:
        """Refuse clips of another pixel mask than the one of training (:class:`ConfigError`)."""
        if not np.array_equal(self.grid.mask.cpu().numpy(), mask):
            raise ConfigError("flat grids differ", f"mask of {int(mask.sum())} pixels",
                              f"the model was trained on a mask of {self.grid.n_pixels} pixels",
                              "rebuild the shards with the grid of training, or train on this one")  # fmt: skip

    def places(self, picked: Tensor) -> Tensor:
        """Indices among filled patches -> indices among all patches of the grid."""
        return self.grid.filled[picked]

    def embed(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return class (B, 1, C) and patch embeddings (B, U S, C) of whole clips (B, T, X), run-wise z-scored."""
        pixels = frame_normalise(clips, self.arch.clip_value)
        every = self.grid.filled.expand(len(clips), -1)
        encoded = self.encoder(self.tubes(pixels), every)
        return encoded[:, :1], encoded[:, 1:]

    def features(self, clips: Tensor) -> Tensor:
        """Return the mean patch embedding of clips, (B, T, X) -> (B, C)."""
        return self.embed(clips)[1].mean(dim=1)

    def predict(self, pixels: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Predict hidden patches of normalised pixels: (B, T, X), (B, K), (B, Q) -> (B, U Q, target pixels)."""
        at_visible, at_hidden = self.places(visible), self.places(hidden)
        encoded = self.encoder(self.tubes(pixels, visible), at_visible)
        y: Tensor = self.decoder(encoded, at_visible, at_hidden)
        return y

    def forward(self, clips: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Return the masked reconstruction loss of clips (B, T, X)."""
        pixels = frame_normalise(clips, self.arch.clip_value)
        predicted = self.predict(pixels, visible, hidden)
        target = self.tubes(pixels, hidden, self.arch.target_stride)
        return masked_mse(predicted, target, self.weights(hidden))

    def weights(self, hidden: Tensor) -> Tensor:
        """Return which target pixels are valid: hidden (B, Q) -> (B, U Q, target pixels), bool."""
        one = self.grid.valid[hidden].repeat(1, 1, self.arch.target_frames)  # (B, Q, frames * A)
        return one.repeat(1, self.arch.times, 1)


def masked_mse(predicted: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Sum of m (p - t)^2 over sum of m, in float32 (float64 stays), over all pixels of the batch."""
    error = (full(predicted) - full(target)).square() * counted
    return error.sum() / counted.sum()
