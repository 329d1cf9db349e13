"""Write the ground truth beside the data sets: what every image was drawn from, documented in its README.

Axis legend: T volumes, P parcels, X Y Z a 5 mm grid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from boldmill.atomic import atomic, write_json, write_text
from boldmill.demo.anat import FIELD_OF_VIEW_MM, Anatomy
from boldmill.demo.bad import FAULTS
from boldmill.demo.bids import bold_path
from boldmill.demo.bold import BoldRun
from boldmill.demo.cohort import Run, Subject, bad_runs
from boldmill.demo.geometry import Floats, centred_affine, save_nifti, world_grid
from boldmill.demo.head import Head
from boldmill.demo.motion import COLUMNS, displacement
from boldmill.demo.parameters import Parameters
from boldmill.demo.signals import NETWORKS, Edge, networks
from boldmill.demo.warp import MEAN_MM

GRID_MM = 5.0

README = f"""# Ground truth of the boldmill demo cohort

All coordinates are world coordinates in mm (RAS). Matrices act on column vectors (x, y, z, 1).

| file | content |
|---|---|
| `cohort.tsv` | latent values behind each subject: group, site, standardised age and ability, motion level |
| `effects.json` | planted edges (parcel ids 1..100), what drives each, its sign, its share per subject |
| `bad_scans.tsv` | runs broken on purpose: the fault, and a word its quarantine reason must contain |
| `sub-X/*_shape.json` | affine part of the subject's shape (template -> T1w world) |
| `sub-X/*_from-template_to-T1w_displacement.nii.gz` | on a template grid; point in T1w world = x + value(x) |
| `sub-X/*_from-T1w_to-template_displacement.nii.gz` | on a T1w-world grid; point in the template = x + value(x) |
| `sub-X/*_desc-motion_truth.tsv` | six rigid parameters per volume, and the displacement from rest |
| `sub-X/*_desc-pose_truth.json` | rotation centre and convention, pose of the run, slice times |
| `sub-X/*_desc-parcels_dseg.nii.gz` | parcel seen by each BOLD voxel with the head at rest |
| `sub-X/*_desc-signals_truth.npz` | parcel signals (see below) |

**Motion.** A head point at rest position x (BOLD world) is at `R (x - c) + c + d` in volume t, with `R = Rx Ry Rz`
(rad), d = (trans_x, trans_y, trans_z) and c the `centre` of the pose file. Volume 0 is not at rest: relative to volume
r the motion is `M(t) M(r)^-1`. `displacement` is the root mean square over a ball of 55 mm radius about c.

**Pose.** `pose` maps T1w world to the run's BOLD world with the head at rest: what coregistration must find.

**Shape.** `to_template(x) = y + u(y)`, `y = A^-1 x`; u has a mean length of {MEAN_MM} mm over the brain. T1w images are
drawn from the template head by this map, with the subject's own skull thickness, bias field and Rician noise.

**Signals** (`npz`, no pickles): `signals` (T, 100), unit SD, at each volume's middle (`times`, s); `fc` their Pearson
correlation; `slice_times` (s); `frequencies` (K), `cosine` and `sine` (K, 100) so that the signal at any time t is
`sum_k cos(2 pi f_k t) cosine_k + sin(2 pi f_k t) sine_k`. A voxel of slice k in volume v shows time
`v TR + slice_times[k]`. Column p - 1 is parcel p. Cleaning that filters and regresses also removes part of the true
signal (about 30 of the 54 degrees of freedom of 150 volumes): compare with the truth after the same projection, or
before confound regression.

**Effects.** Each planted edge shares the two parcels' own signal parts: their covariance rises by share x own variance
and no other covariance changes. `--effect` scales the group effect only; age and cognition effects stay.

**Not simulated:** susceptibility distortion and dropout, T1 equilibration, motion within a volume, spin history.
"""


def truth_folder(root: Path, subject: str) -> Path:
    """Return the folder of one subject's truth files."""
    return root / f"sub-{subject}"


def write_cohort_truth(root: Path, p: Parameters, people: list[Subject], edges: list[Edge]) -> None:
    """Write README, latent values, planted edges and the list of bad scans."""
    write_text(root / "README.md", README)
    rows = [
        f"sub-{s.label}\t{s.group}\t{s.site}\t{s.sex}\t{s.age}\t{s.age_z:.6f}\t{s.ability:.6f}\t{s.motion:.6f}\n"
        for s in people
    ]
    header = "participant_id\tgroup\tsite\tsex\tage\tage_z\tability\tmotion\n"
    write_text(root / "cohort.tsv", header + "".join(rows))
    member = networks()
    effects = {
        "group_effect": p.effect,
        "edges": [
            {
                "first": edge.first,
                "second": edge.second,
                "networks": [NETWORKS[member[edge.first - 1]], NETWORKS[member[edge.second - 1]]],
                "effect": edge.effect,
                "sign": edge.sign,
                "share": {f"sub-{s.label}": round(edge.share(s, p.effect), 6) for s in people},
            }
            for edge in edges
        ],
    }
    write_json(root / "effects.json", effects)
    lines = ["scan_id\tpath\tfault\treason_keyword\n"]
    if p.bad:
        for kind, run in bad_runs(p).items():
            fault, keyword = FAULTS[kind]
            lines.append(f"{run.scan_id}\t{bold_path(run)}\t{fault}\t{keyword}\n")
    write_text(root / "bad_scans.tsv", "".join(lines))


def write_shape(root: Path, subject: Subject, head: Head, anatomy: Anatomy) -> None:
    """Write a subject's affine and both displacement fields (float32, mm, shape (X, Y, Z, 1, 3))."""
    warp = anatomy.warp
    folder = truth_folder(root, subject.label)
    stem = f"sub-{subject.label}"
    write_json(folder / f"{stem}_shape.json", {"affine": warp.affine.tolist(), "from": "template", "to": "T1w world"})
    extent = np.array(head.shape) * abs(head.affine[0, 0])
    middle = head.affine[:3, :3] @ ((np.array(head.shape) - 1) / 2) + head.affine[:3, 3]
    own = anatomy.affine[:3, :3] @ ((np.array(anatomy.t1w.shape) - 1) / 2) + anatomy.affine[:3, 3]
    for name, size, centre, map_points in (
        ("from-template_to-T1w", extent, middle, warp.to_subject),
        ("from-T1w_to-template", FIELD_OF_VIEW_MM, own, warp.to_template),
    ):
        count = np.ceil(size / GRID_MM).astype(int)
        shape = (int(count[0]), int(count[1]), int(count[2]))
        affine = centred_affine(shape, GRID_MM, centre)
        points = world_grid(affine, shape)
        field = (map_points(points) - points).astype(np.float32)
        save_nifti(folder / f"{stem}_{name}_displacement.nii.gz", field[:, :, :, None, :], affine)


def write_run_truth(root: Path, p: Parameters, run: Run, drawn: BoldRun) -> None:
    """Write one run's motion, pose, parcels and signals."""
    folder = truth_folder(root, run.subject)
    truth = drawn.truth
    table = np.column_stack([truth.motion, displacement(truth.motion)])
    lines = ["\t".join((*COLUMNS, "displacement")), *("\t".join(f"{v:.9g}" for v in row) for row in table)]
    write_text(folder / f"{run.stem}_desc-motion_truth.tsv", "\n".join(lines) + "\n")
    pose = {
        "centre": truth.centre.tolist(),
        "convention": "x(t) = Rx Ry Rz (x - centre) + centre + d, BOLD world, mm and rad",
        "pose": truth.pose.tolist(),
        "slice_times": truth.slice_times.tolist(),
    }
    write_json(folder / f"{run.stem}_desc-pose_truth.json", pose)
    save_nifti(folder / f"{run.stem}_desc-parcels_dseg.nii.gz", truth.labels, drawn.affine)
    times = np.array(p.times())
    signals = truth.spectrum.at(times)
    with atomic(folder / f"{run.stem}_desc-signals_truth.npz") as temporary:
        np.savez(
            temporary,
            signals=signals,
            times=times,
            fc=correlation(signals),
            slice_times=truth.slice_times,
            frequencies=truth.spectrum.frequencies,
            cosine=truth.spectrum.cosine,
            sine=truth.spectrum.sine,
        )


def correlation(signals: Floats) -> Floats:
    """Return the Pearson correlation of the columns of (T, P), shape (P, P)."""
    return np.asarray(np.corrcoef(signals, rowvar=False))
