"""Settings of probes and baselines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from boldmill.config.base import Section

ProbeName = Literal["logistic", "svm_rbf", "mlp", "knn", "finetune"]
BaselineName = Literal[
    "fc_linear_selected",
    "fc_svm",
    "fc_ridge",
    "fc_logistic",
    "tangent",
    "brainnetcnn",
    "transformer",
    "random",
    "covariates",
    "constant",
]


class KnnConfig(Section):
    """k nearest neighbours on frozen features."""

    k: int = Field(default=15, ge=1, description="neighbours")
    metric: Literal["cosine", "euclidean"] = Field(default="cosine", description="distance")


class Budget(Section):
    """How long and how fast a network is trained in each training fold."""

    epochs: int = Field(default=30, ge=1, description="most passes over the training rows")
    patience: int = Field(
        default=5, ge=1, description="passes without a better validation loss after which training stops"
    )
    validation: float = Field(
        default=0.15,
        ge=0,
        lt=0.5,
        description="share of the training rows carved out to choose the pass; 0: all passes",
    )
    batch: int = Field(default=32, ge=2, description="scans per step")
    lr: float = Field(default=1e-3, gt=0, description="AdamW learning rate")
    weight_decay: float = Field(default=1e-2, ge=0, description="AdamW weight decay")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="dropout of the layers before the output")


class MlpConfig(Budget):
    """Perceptron on frozen features, z-scored in the training fold."""

    hidden: int = Field(default=64, ge=1, description="hidden units")
    epochs: int = Field(default=100, ge=1, description="most passes over the training rows")
    patience: int = Field(
        default=10, ge=1, description="passes without a better validation loss after which training stops"
    )


class BrainNetCnnConfig(Budget):
    """Convolutions over rows and columns of FC (Kawahara 2017)."""

    width: int = Field(default=16, ge=1, description="channels of the edge-to-edge layers (published: 32)")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="dropout of the layers before the output")
    lr: float = Field(default=5e-4, gt=0, description="AdamW learning rate")


class TransformerConfig(Budget):
    """The encoder of the model under test, trained from random weights in each training fold (BrainMass only)."""

    head: Literal["linear", "published"] = Field(
        default="linear", description="linear, or two hidden layers of 256 and 32 as in the published code"
    )
    dropout: float = Field(
        default=0.3, ge=0, lt=1, description="dropout of the layers of the published head; the linear one has none"
    )
    epochs: int = Field(default=10, ge=1, description="most passes over the training rows")
    patience: int = Field(
        default=3, ge=1, description="passes without a better validation loss after which training stops"
    )
    lr: float = Field(default=3e-4, gt=0, description="AdamW learning rate")


class FinetuneConfig(TransformerConfig):
    """The pre-trained encoder trained further in each training fold, from the checkpoint each time (BrainMass only)."""

    lr: float = Field(default=1e-4, gt=0, description="AdamW learning rate")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="factor on the learning rate from each block to the one below it"
    )
