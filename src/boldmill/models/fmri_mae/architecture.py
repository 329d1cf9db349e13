"""Sizes of fMRI-MAE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from boldmill.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Encoder and decoder of one size (arXiv 2510.13768; ``tiny`` is the published depth-3 model, "d3")."""

    width: int
    depth: int
    heads: int
    decoder_width: int = 512
    decoder_depth: int = 4
    decoder_heads: int = 16


SIZES = {
    "tiny": Size(width=192, depth=3, heads=3, decoder_width=128, decoder_depth=1, decoder_heads=4),
    "S": Size(width=384, depth=12, heads=6),
    "B": Size(width=768, depth=12, heads=12),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Everything, beside the pixel mask, that is needed to build the module again.

    ``class_position``, ``decoder_positions_again``: properties of the first published generation, off by default.
    ``target_stride``: every n-th frame of a patch is a target.
    """

    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    patch: int = 16
    patch_t: int = 4
    frames: int = 16
    target_stride: int = 2
    clip_value: float = 3.0
    class_position: bool = False
    decoder_positions_again: bool = False

    def __post_init__(self) -> None:
        if self.frames % self.patch_t:
            raise ConfigError("patch length does not divide the clip", f"models.fmri_mae.patch_t = {self.patch_t}",
                              f"clips have {self.frames} frames", "choose a divisor of shards.clip_frames")  # fmt: skip
        if self.width % self.heads or self.decoder_width % self.decoder_heads:
            raise ConfigError("heads do not divide the width", f"width {self.width}, decoder {self.decoder_width}",
                              f"heads are {self.heads} and {self.decoder_heads}", "choose divisors")  # fmt: skip

    @property
    def times(self) -> int:
        """Temporal tokens of one clip."""
        return self.frames // self.patch_t

    @property
    def target_frames(self) -> int:
        """Target frames of one patch (all of them where patches are one frame long)."""
        return len(range(0, self.patch_t, self.target_stride))

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for the checkpoint header."""
        return asdict(self)


def design(
    preset: str, *, frames: int = 16, patch: int = 16, patch_t: int = 4, clip_value: float = 3.0
) -> Architecture:
    """Return the architecture of a preset for clips of ``frames`` frames."""
    return Architecture(**asdict(SIZES[preset]), frames=frames, patch=patch, patch_t=patch_t, clip_value=clip_value)
