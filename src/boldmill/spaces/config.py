"""Which template, atlas and surfaces are used, and where they come from. Nothing falls back silently."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from boldmill.config.base import Section


class SpacesConfig(Section):
    """Named sources of template, atlas and surfaces."""

    template_source: Literal["templateflow", "demo"] = Field(
        default="templateflow", description="head template: TemplateFlow, or the demo cohort's own head"
    )
    template: str = Field(
        default="MNI152NLin6Asym", description="output space (TemplateFlow name; the demo's is MNI152NLin2009aSym)"
    )
    demo_template: str = Field(
        default="resources/demo/template", description="folder of the demo's head template (template_source: demo)"
    )
    resolution: float = Field(default=2.0, gt=0, le=8, description="voxel size of the output grid, mm")
    atlas_source: Literal["templateflow", "embedded"] = Field(
        default="templateflow",
        description="atlas: TemplateFlow's volume, or one built from the surface labels that installed packages carry",
    )
    atlas: str = Field(default="Schaefer2018", description="atlas name (TemplateFlow)")
    atlas_desc: str = Field(default="100Parcels7Networks", description="atlas variant (TemplateFlow `desc`)")
    further_atlases: list[str] = Field(
        default=[],
        description="atlases beside the first, from TemplateFlow, e.g. [Schaefer2018 400Parcels17Networks]; models "
        "read the first",
    )
    surface_source: Literal["templateflow", "embedded"] = Field(
        default="embedded",
        description="how fsaverage5 gets its labels: by TemplateFlow's fsaverage-registered fsLR sphere, or by the "
        "nearest cortical point in MNI between the meshes that installed packages carry",
    )
    flat: Literal["fsaverage5"] = Field(
        default="fsaverage5", description="flat surface: nilearn's fsaverage5 flattening in the published layout"
    )
