"""FM-APP: ROI encoders for fMRI and T1w, phenotype active map, one linear head per seen phenotype.

He et al., "FM-APP: Foundation Model for Any Phenotype Prediction via fMRI to sMRI Knowledge Transfer", IEEE TMI 44(10),
2025, doi 10.1109/TMI.2024.3506734.

Axes: B batch, R parcels, D width of ROI features, K phenotypes, E width of text vectors.

Node features of fMRI are rows of the functional connectivity: Fisher z of r clipped to +-0.999, diagonal 0, minus the
training scans' mean matrix, over one common training SD; an undefined edge becomes 0 (the training mean). Negative
edges are kept and nothing is thresholded (thresholding lowers reliability).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boldmill.models.fm_app.active_map import PhenotypeMap
from boldmill.models.fm_app.architecture import Architecture
from boldmill.models.fm_app.encoder import RoiEncoder, T1Adapter


def fisher_rows(fc: Tensor) -> Tensor:
    """Return Fisher z of correlation matrices (B, R, R) with a diagonal of 0; NaN stays NaN."""
    z = torch.atanh(fc.clamp(-0.999, 0.999))
    return z.masked_fill(torch.eye(fc.shape[-1], dtype=torch.bool, device=fc.device), 0.0)


class Heads(nn.Module):
    """One bias-free weight vector per seen phenotype: W (K, D + E), y_k = w_k . [u_k ; t_k]."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(len(arch.seen), arch.d + arch.text))
        nn.init.uniform_(self.weight, -((arch.d + arch.text) ** -0.5), (arch.d + arch.text) ** -0.5)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map (B, K, D + E) to (B, K)."""
        return torch.einsum("bke,ke->bk", pooled, self.weight)


class FmApp(nn.Module):
    """The network. Scores are z-scores of the training subjects; :meth:`original` puts them back into their units."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.encoder_fmri = RoiEncoder(arch)
        self.map = PhenotypeMap(arch.d, arch.text, arch.map)
        self.heads = Heads(arch)
        if arch.features:
            self.adapter = T1Adapter(arch)
            self.encoder_t1w = RoiEncoder(arch)
        self.text: Tensor
        self.fc_mean: Tensor
        self.fc_sd: Tensor
        self.score_mean: Tensor
        self.score_sd: Tensor
        self.register_buffer("text", torch.zeros(len(arch.seen), arch.text))
        self.register_buffer("fc_mean", torch.zeros(arch.rois, arch.rois))
        self.register_buffer("fc_sd", torch.ones(()))
        self.register_buffer("score_mean", torch.zeros(len(arch.seen)))
        self.register_buffer("score_sd", torch.ones(len(arch.seen)))

    def fit_fc(self, fc: Tensor) -> None:
        """Take mean matrix and common SD of the training scans' FC, (B, R, R)."""
        z = fisher_rows(fc)
        mean = torch.nan_to_num(torch.nanmean(z, dim=0), nan=0.0)
        sd = torch.nanmean((z - mean) ** 2).sqrt()
        self.fc_mean.copy_(mean)
        self.fc_sd.copy_(sd if bool(sd > 1e-6) else torch.ones(()))

    def roi_fmri(self, fc: Tensor) -> Tensor:
        """Return fMRI ROI features (B, R, D) of FC (B, R, R)."""
        z = torch.nan_to_num((fisher_rows(fc) - self.fc_mean) / self.fc_sd, nan=0.0)
        out: Tensor = self.encoder_fmri(z)
        return out

    def roi_t1w(self, morphometry: Tensor) -> Tensor:
        """Return T1w ROI features (B, R, D) of morphometry (B, R, 9)."""
        out: Tensor = self.encoder_t1w(self.adapter(morphometry))
        return out

    def pool(self, roi: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return Z (B, K, D + E) = [sum_r S[r, k] F[r] ; t_k] and the map S (B, R, K)."""
        active = self.map(roi, text)
        image = torch.einsum("brk,brd->bkd", active, roi)
        return torch.cat([image, text.expand(len(roi), -1, -1)], dim=2), active

    def seen(self, roi: Tensor) -> Tensor:
        """Return z-scores (B, K) of the seen phenotypes from ROI features."""
        out: Tensor = self.heads(self.pool(roi, self.text)[0])
        return out

    def original(self, scores: Tensor) -> Tensor:
        """Return seen z-scores (B, K) in the unit of each phenotype."""
        return scores * self.score_sd + self.score_mean

    def unseen(self, roi: Tensor, text: Tensor, weight: Tensor) -> Tensor:
        """Return scores (B,) of one unseen phenotype.

        The map and the pooled feature are computed from the new text; ``weight`` (D + E) is one vector for everybody.
        In ``sinkhorn`` mode the new text joins the seen ones as column K + 1, alone.

        Parameters
        ----------
        roi : Tensor
            (B, R, D).
        text : Tensor
            (E,), centred as the bank's.
        weight : Tensor
            (D + E,), from the synthesiser.
        """
        asked = text[None] if self.arch.map == "softmax" else torch.cat([self.text, text[None]])
        return self.pool(roi, asked)[0][:, -1] @ weight

    def features(self, fc: Tensor) -> Tensor:
        """Return frozen fMRI features (B, D): ROI features averaged over parcels."""
        return self.roi_fmri(fc).mean(dim=1)

    def features_t1w(self, morphometry: Tensor) -> Tensor:
        """Return frozen T1w features (B, D)."""
        return self.roi_t1w(morphometry).mean(dim=1)
