"""Settings of few-shot and zero-shot evaluation."""

from __future__ import annotations

from pydantic import Field, field_validator

from boldmill.config.base import Section


class FewShotConfig(Section):
    """Classifiers learnt from k subjects per class of the pre-training split, tested on all held-out subjects."""

    shots: list[int] = Field(default=[], description="subjects per class (k), e.g. [1, 2, 4, 8, 16, 32]; empty: off")
    draws: int = Field(default=50, ge=2, description="random draws of those subjects")

    @field_validator("shots")
    @classmethod
    def _counts(cls, value: list[int]) -> list[int]:
        if value != sorted(set(value)) or any(k < 1 for k in value):
            raise ValueError("give each k once, in rising order, from 1 on")
        return value


class TransferConfig(Section):
    """One zero-shot transfer: a classifier of one task, applied to another task without any of its labels."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="name in the table")
    source: str = Field(description="task it is learnt from, by name")
    target: str = Field(description="task it is tested on; the source itself: its held-out subjects")
