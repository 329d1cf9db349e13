"""A trained FM-APP: features, scores of seen phenotypes, and of unseen ones from their words.

Axes: B scans or subjects, R parcels, D width of ROI features, K seen phenotypes, E width of text vectors.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boldmill.errors import ConfigError
from boldmill.models.fm_app.architecture import Architecture
from boldmill.models.fm_app.network import FmApp
from boldmill.models.fm_app.synthesizer import Synthesizer
from boldmill.models.fm_app.text import TextBank, encoder

Modality = Literal["fmri", "t1w"]


class Predictor(nn.Module):
    """Network, text bank and synthesiser of one checkpoint."""

    def __init__(self, network: FmApp, bank: TextBank, synthesizer: Synthesizer, facts: dict[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.bank, self.synthesizer, self.facts = bank, synthesizer, facts

    @classmethod
    def build(cls, state: dict[str, Tensor], architecture: dict[str, Any]) -> Predictor:
        """Build from the state and the architecture of a checkpoint."""
        arch = Architecture.from_dict(architecture["network"])
        network = FmApp(arch)
        network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
        words = architecture["bank"]
        text_encoder = encoder(architecture["text_encoder"])
        found = text_encoder.fingerprint()
        if found != words["fingerprint"]:
            raise ConfigError(
                "text encoder changed",
                "fm_app",
                f"the model was trained with {words['fingerprint']}, this installation gives {found}",
                "install the pinned scikit-learn, or train again",
            )
        bank = TextBank(
            ids=arch.seen,
            titles=tuple(words["titles"]),
            texts=tuple(words["texts"]),
            vectors=state["bank.vectors"].numpy(),
            reference=state["bank.reference"].numpy(),
            fingerprint=words["fingerprint"],
        )
        synthesizer = Synthesizer(
            kind=architecture["synthesizer"]["kind"],
            text=bank.matrix(),
            weights=network.heads.weight.detach().numpy(),
            setting=architecture["synthesizer"]["setting"],
        )
        return cls(network, bank, synthesizer, architecture)

    @property
    def has_t1w(self) -> bool:
        """Whether the T1w branch was trained."""
        return bool(self.network.arch.features)

    def features(self, *inputs: Tensor) -> Tensor:
        """Return frozen fMRI features (B, D) of FC (B, R, R)."""
        return self.network.features(inputs[0])

    def roi(self, values: Tensor, modality: Modality) -> Tensor:
        """Return ROI features (B, R, D) of FC (B, R, R) or of morphometry (B, R, 9)."""
        return self.network.roi_fmri(values) if modality == "fmri" else self.network.roi_t1w(values)

    @torch.no_grad()
    def predict_seen(self, values: Tensor, modality: Modality) -> NDArray[np.float64]:
        """Return the seen phenotypes (B, K) in their own units."""
        return np.asarray(
            self.network.original(self.network.seen(self.roi(values, modality))).cpu().numpy(), np.float64
        )

    def text_vector(self, text: str) -> NDArray[np.float32]:
        """Return the raw vector (E,) of a text."""
        return np.asarray(encoder(self.facts["text_encoder"]).encode([text])[0])

    @torch.no_grad()
    def predict_unseen(
        self, values: Tensor, modality: Modality, vector: NDArray[np.float32], synthesizer: Synthesizer | None = None
    ) -> NDArray[np.float64]:
        """Return scores (B,) of a phenotype nobody labelled, from the raw vector (E,) of its words.

        Map, pooled feature and weights all come from the words; each row depends on its own scan only.
        """
        centred = self.bank.centre(vector)
        weight = (synthesizer or self.synthesizer).weight(centred)
        device = values.device
        scores = self.network.unseen(
            self.roi(values, modality),
            torch.from_numpy(centred).to(device),
            torch.tensor(weight, dtype=torch.float32, device=device),
        )
        return np.asarray(scores.cpu().numpy(), dtype=np.float64)
