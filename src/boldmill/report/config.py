"""Settings of the report."""

from __future__ import annotations

from pydantic import Field

from boldmill.config.base import Section


class ReportConfig(Section):
    """The self-contained HTML report."""

    max_scans: int = Field(default=24, ge=1, description="scans shown with pictures; tables always list all")
    max_movies: int = Field(default=3, ge=0, description="scans shown with their flat-map movie (about 1 MB each)")
    dpi: int = Field(default=72, ge=40, le=300, description="resolution of embedded pictures, dots per inch")
