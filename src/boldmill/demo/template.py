"""Write the demo's own head template: the head unmoved, its brain mask and its tissue priors, on one 2 mm RAS grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from boldmill.atomic import write_json
from boldmill.demo.geometry import save_nifti
from boldmill.demo.head import Head, paint
from boldmill.demo.parameters import SPACE

FILES = {
    "head": "head_T1w.nii.gz",
    "brain_mask": "brain_mask.nii.gz",
    "gm": "gm_probability.nii.gz",
    "wm": "wm_probability.nii.gz",
    "csf": "csf_probability.nii.gz",
}
T1W_SCALE = 1000.0


def write_template(root: Path, head: Head) -> list[Path]:
    """Write the five images and ``template.json``; return the files."""
    t1w, _ = paint(head)
    save_nifti(root / FILES["head"], np.rint(T1W_SCALE * t1w).astype(np.int16), head.affine)
    save_nifti(root / FILES["brain_mask"], (head.mask > 0).astype(np.uint8), head.affine)
    for tissue in ("gm", "wm", "csf"):
        stored = np.rint(255 * getattr(head, tissue)).astype(np.uint8)
        save_nifti(root / FILES[tissue], stored, head.affine, slope=1 / 255)
    manifest = {
        "space": SPACE,
        "source": "demo",
        "files": FILES,
        "moves": [],
        "description": "ICBM 152 2009a symmetric (carried by nilearn) with a synthetic skull, scalp, face and neck. "
        "The CSF map is the brain mask minus grey and white matter.",
    }
    return sorted([*(root / name for name in FILES.values()), write_json(root / "template.json", manifest)])
