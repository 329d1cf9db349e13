"""Which template, atlas and surfaces are used, and where they come from. Nothing falls back silently."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from boldmill.config.base import Section
from boldmill.spaces.names import configured_atlases, parse_atlas


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
    flat: Literal["published", "rebuilt", "fsaverage5", "hcp"] = Field(
        default="rebuilt",
        description="flat surface: pycortex's 32k_fs_LR (published: yours, see flat_files); nilearn's fsaverage5 "
        "flat carried to fsLR (rebuilt: needs TemplateFlow's spheres); that flat itself (fsaverage5); or the HCP flat "
        "in a box of its own (hcp)",
    )
    flat_files: list[str] = Field(
        default=[], description="flat: published; its flat GIFTI files on fsLR-32k, left and right"
    )

    @field_validator("further_atlases")
    @classmethod
    def _readable(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_atlas(text)
        return value

    @model_validator(mode="after")
    def _apart(self) -> SpacesConfig:
        first = parse_atlas(f"{self.atlas} {self.atlas_desc}".strip())
        written = [first, *map(parse_atlas, self.further_atlases)]
        labels = list(configured_atlases(self))
        if len(labels) != len(written):
            said = ", ".join(name.text for name in written)
            raise ValueError(f"further_atlases: two of {said} are one atlas or share a label ({', '.join(labels)})")
        return self

    @model_validator(mode="after")
    def _supplied(self) -> SpacesConfig:
        if self.flat == "published" and len(self.flat_files) != 2:
            raise ValueError("flat: published needs two files in `flat_files`, left and right")
        return self
