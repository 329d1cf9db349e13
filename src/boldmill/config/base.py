"""Base of every configuration section: frozen, keyword-only, unknown keys refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of ``config.yaml``; every field states its default, its unit and its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
