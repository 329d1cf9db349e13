"""Base of every configuration section: frozen, keyword-only, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of ``config.yaml``; every field states its default, its unit and its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def fill(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values with those that a name among them stands for; by default there are none."""
        return dict(values)
