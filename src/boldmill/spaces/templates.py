"""The head template: T1w with skull, brain mask and GM/WM/CSF priors, all on one RAS grid of one named space.

Axes: X Y Z voxels (RAS).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import read_json
from boldmill.errors import ConfigError
from boldmill.preprocess.affine import register_affine
from boldmill.preprocess.brainmask import CLOSING, close_and_fill
from boldmill.preprocess.images import Array, Volume, bounding_box, crop_volume, read_volume
from boldmill.preprocess.syn import register_syn
from boldmill.preprocess.transforms import resample
from boldmill.spaces.config import SpacesConfig
from boldmill.spaces.flow import flow_file
from boldmill.spaces.flow_needs import head_query, mask_query
from boldmill.spaces.packages import package_file

PRIOR_SPACE = "MNI152NLin2009aSym"
"""Space of the tissue maps that nilearn carries."""
PRIOR_ITERATIONS = (50, 50, 10)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Template:
    """A head template; ``moves`` lists every move between spaces that was needed to make it."""

    space: str
    source: str
    head: Volume
    mask: Volume
    gm: Volume
    wm: Volume
    csf: Volume
    inputs: list[Path]
    moves: list[dict[str, Any]] = field(default_factory=list)

    def volumes(self) -> dict[str, Volume]:
        """The five images by their key in the manifest."""
        return {"head": self.head, "brain_mask": self.mask, "gm": self.gm, "wm": self.wm, "csf": self.csf}


def load_template(config: SpacesConfig) -> Template:
    """Make the template that the configuration names; nothing falls back silently.

    Raises
    ------
    ConfigError, MachineFault
        A file is missing (named, with what to do), or the template's contrast is not that of a T1w.
    """
    sources: dict[str, Callable[[SpacesConfig], Template]] = {"templateflow": from_templateflow, "demo": from_demo}
    template = sources[config.template_source](config)
    check_contrast(template)
    return template


def from_templateflow(config: SpacesConfig) -> Template:
    """Head and mask of TemplateFlow (res-02), mask closed and filled, priors warped from ICBM 2009a."""
    head_path, mask_path = flow_file(head_query(config.template)), flow_file(mask_query(config.template))
    head = read_volume(head_path, canonical=True, what="head template")
    mask = head.like(close_and_fill(read_volume(mask_path, canonical=True).data > 0.5, CLOSING).astype(np.float32))
    gm, wm, move = warp_priors(head, mask.data > 0, config.template)
    return Template(
        space=config.template, source="templateflow", head=head, mask=mask, **_tissue(mask, gm, wm),
        inputs=[head_path, mask_path, *icbm_files()], moves=[move],
    )  # fmt: skip


def _tissue(mask: Volume, gm: Volume, wm: Volume) -> dict[str, Volume]:
    """GM and WM inside the mask, scaled where they exceed 1 together; CSF is what they leave of it."""
    inside = mask.data > 0
    total = np.maximum(gm.data + wm.data, 1.0)
    kept_gm, kept_wm = np.where(inside, gm.data / total, 0), np.where(inside, wm.data / total, 0)
    csf = np.where(inside, 1.0 - kept_gm - kept_wm, 0)
    return {"gm": mask.like(_unit(kept_gm)), "wm": mask.like(_unit(kept_wm)), "csf": mask.like(_unit(csf))}


def _unit(data: Array) -> Array:
    return np.asarray(np.clip(data, 0, 1), dtype=np.float32)


def icbm_2009a() -> tuple[Volume, Volume, Volume]:
    """Return brain T1w, GM and WM of ICBM 2009a (symmetric), 2 mm, as nilearn carries them."""
    from nilearn import datasets

    volumes = []
    for load in (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template):
        image = load(resolution=2)
        volumes.append(Volume(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64)))
    return volumes[0], volumes[1], volumes[2]


def icbm_files() -> list[Path]:
    """Return the files :func:`icbm_2009a` reads."""
    names = [f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz" for kind in ("t1", "gm", "wm")]
    return [package_file("nilearn", f"datasets/data/{name}") for name in names]


def warp_priors(head: Volume, mask: Array, space: str) -> tuple[Volume, Volume, dict[str, Any]]:
    """Move GM and WM of ICBM 2009a to a template by affine and SyN between the two brains.

    Unwarped they lie 2.5 mm off NLin6Asym on average (p95 5.5 mm).

    Returns
    -------
    gm, wm : Volume
        On the template's grid.
    move : dict
        The entry of the manifest's ``moves``.
    """
    brain, gm, wm = icbm_2009a()
    target = head.like(np.where(mask, head.data, 0).astype(np.float32))
    crop = crop_volume(target, *bounding_box(mask, 5))
    affine = register_affine(crop, brain, pitches=(0.0,))
    warp = register_syn(crop, brain, affine.matrix, iterations=PRIOR_ITERATIONS)
    moved = resample(brain, head.grid, warp.to_subject).data[mask]
    before = resample(brain, head.grid).data[mask]
    points = head.grid.points()[mask.ravel()][::20]
    shift = np.linalg.norm(warp.to_subject(points) - points, axis=1)
    move = {
        "from": PRIOR_SPACE,
        "to": space,
        "how": "affine (mutual information) + SyN (cross-correlation) between the brain T1w of both templates",
        "what": ["gm", "wm"],
        "correlation_before": round(float(np.corrcoef(before, head.data[mask])[0, 1]), 4),
        "correlation": round(float(np.corrcoef(moved, head.data[mask])[0, 1]), 4),
        "mean_shift_mm": round(float(shift.mean()), 2),
        "p95_shift_mm": round(float(np.percentile(shift, 95)), 2),
    }
    return resample(gm, head.grid, warp.to_subject), resample(wm, head.grid, warp.to_subject), move


DEMO_FILES = {"head": "head", "mask": "brain_mask", "gm": "gm", "wm": "wm", "csf": "csf"}
"""Volume -> its name in the `files` of the demo's template.json."""


def from_demo(config: SpacesConfig) -> Template:
    """Read the demo cohort's own head template from the folder ``spaces.demo_template``."""
    folder = Path(config.demo_template)
    manifest = folder / "template.json"
    _require(manifest)
    about = read_json(manifest)
    paths = {key: folder / about["files"][name] for key, name in DEMO_FILES.items()}
    for path in paths.values():
        _require(path)
    space = str(about["space"])
    if space != config.template:
        why = f"the demo's head lies in {space}, the configuration asks for {config.template}"
        raise ConfigError("wrong template space", manifest, why, f"set spaces.template: {space}")
    volumes = {key: read_volume(path, canonical=True, what="demo template") for key, path in paths.items()}
    for key, volume in volumes.items():
        if not volume.grid.same_as(volumes["head"].grid):
            raise ConfigError(
                "demo template", paths[key], "its grid is not that of the head", "generate the demo again"
            )
    mask = volumes["mask"].like((volumes["mask"].data > 0.5).astype(np.float32))
    return Template(
        space=space, source="demo", head=volumes["head"], mask=mask, gm=volumes["gm"], wm=volumes["wm"],
        csf=volumes["csf"], inputs=[manifest, *paths.values()],
    )  # fmt: skip


def _require(path: Path) -> None:
    if not path.is_file():
        fix = "run `boldmill demo-data`, or name its folder"
        raise ConfigError("missing demo template", path, "there is no such file", fix)


def check_contrast(template: Template) -> None:
    """Stop unless WM > GM > CSF in the template's head: some published "T1w" head templates have T2 contrast.

    Raises
    ------
    ConfigError
    """
    means = {}
    for key in ("wm", "gm", "csf"):
        where = template.volumes()[key].data > 0.6
        means[key] = float(template.head.data[where].mean()) if where.any() else float("nan")
    if not means["wm"] > means["gm"] > means["csf"]:
        shown = ", ".join(f"{key.upper()} {value:.4g}" for key, value in means.items())
        raise ConfigError(
            "not a T1w template", template.space, f"mean intensities are {shown}", "name a T1-weighted head template"
        )
