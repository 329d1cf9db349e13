"""The table of bad inputs: what is broken, what must come of it, and in which words."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from boldmill.preprocess.images import Grid

from .tree import COARSE, HEAD, TR, VOLUMES, Tree, phantom, series, still

Outcome = Literal["handled", "flagged", "quarantined", "ignored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One broken input: the run ``acq-<name>`` of the subject ``many``, or a subject of its own.

    ``words``: what the flag, or the reason of the quarantine, must say. ``subject``: the case is a subject, and what
    becomes of its run ``acq-good`` counts. ``scan``: the run's name where the case changes it.
    """

    name: str
    outcome: Outcome
    words: str = ""
    damage: Callable[[Tree, str, str], None]
    subject: bool = False
    scan: str = ""

    @property
    def label(self) -> str:
        """Label of the subject."""
        return self.name if self.subject else "many"

    @property
    def run(self) -> str:
        """Name of the run that is broken."""
        return "good" if self.subject else self.name

    @property
    def scan_id(self) -> str:
        """Scan whose fate counts."""
        return f"bad_sub-{self.label}_{self.scan or f'task-rest_acq-{self.run}'}"


def _bold(**options: Any) -> Callable[[Tree, str, str], None]:
    """Replace run 2: ``edit`` changes its data, ``header`` its header fields."""
    edit, affine, tr = options.get("edit"), options.get("affine"), options.get("tr", TR)

    def damage(tree: Tree, label: str, name: str) -> None:
        data = series()
        data = edit(data) if edit else data
        tree.replace(tree.bold(label, name), data, affine, tr, **options.get("header", {}))

    return damage


def _sidecar(**values: Any) -> Callable[[Tree, str, str], None]:
    def damage(tree: Tree, label: str, name: str) -> None:
        kept = {"RepetitionTime": TR, "TaskName": "rest", **values}
        tree.sidecar(label, name, {key: value for key, value in kept.items() if value is not None})

    return damage


def _t1w(edit: Callable[[Any], Any], affine: Any = None) -> Callable[[Tree, str, str], None]:
    def damage(tree: Tree, label: str, name: str) -> None:
        tree.replace(tree.t1w(label), edit(HEAD.data.copy()), HEAD.affine if affine is None else affine)

    return damage


def _bytes(edit: Callable[[bytes], bytes], image: str = "bold") -> Callable[[Tree, str, str], None]:
    def damage(tree: Tree, label: str, name: str) -> None:
        path = tree.bold(label, name) if image == "bold" else tree.t1w(label)
        path.write_bytes(edit(path.read_bytes()))

    return damage


def _set(where: Any, value: float) -> Callable[[Any], Any]:
    def edit(data: Any) -> Any:
        data[where] = value
        return data

    return edit


def _flip_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 64]) + content[middle + 64 :]


def _duplicate(tree: Tree, label: str, name: str) -> None:
    path = tree.bold(label, name)
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def _rename(new: str) -> Callable[[Tree, str, str], None]:
    def damage(tree: Tree, label: str, name: str) -> None:
        path = tree.bold(label, name)
        path.rename(path.with_name(new.format(label, name)))

    return damage


def _echoes(tree: Tree, label: str, name: str) -> None:
    path = tree.bold(label, name)
    for echo in (1, 2, 3):
        copy = path.with_name(path.name.replace("_bold", f"_echo-{echo}_bold"))
        copy.write_bytes(path.read_bytes())
        copy.with_suffix("").with_suffix(".json").write_text(f'{{"RepetitionTime": {TR}, "TaskName": "rest"}}')
    path.unlink()
    path.with_suffix("").with_suffix(".json").unlink()


def _loop(tree: Tree, label: str, name: str) -> None:
    path = tree.bold(label, name)
    path.unlink()
    path.symlink_to(path.name)


def _dangling(tree: Tree, label: str, name: str) -> None:
    path = tree.bold(label, name)
    path.unlink()
    path.symlink_to("nowhere.nii.gz")


def _folder_loop(tree: Tree, label: str, name: str) -> None:
    (tree.root / f"sub-{label}" / "func" / "again").symlink_to(tree.root / f"sub-{label}")


def _no_t1w(tree: Tree, label: str, name: str) -> None:
    tree.t1w(label).unlink()


def _wrong_head(tree: Tree, label: str, name: str) -> None:
    """Another head: bigger, turned, and with other folds, so that no boundary of it fits the run."""
    points = COARSE_T1W.points() @ np.diag([0.78, 0.82, 1.25])
    tree.replace(tree.t1w(label), phantom.t1w(points[:, [1, 0, 2]]).reshape(COARSE_T1W.shape).astype(np.float32),
                 COARSE_T1W.affine)  # fmt: skip


COARSE_T1W = Grid((52, 60, 46), np.array([[4.0, 0, 0, -104], [0, 4, 0, -118], [0, 0, 4, -90], [0, 0, 0, 1]]))


def _left_handed(tree: Tree, label: str, name: str) -> None:
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = COARSE.shape[0] - 1
    tree.replace(tree.bold(label, name), series()[::-1], COARSE.affine @ flip)


def _axes_swapped(tree: Tree, label: str, name: str) -> None:
    tree.replace(tree.bold(label, name), np.transpose(series(), (2, 0, 1, 3)), COARSE.affine[:, [2, 0, 1, 3]])


def _oblique(tree: Tree, label: str, name: str) -> None:
    turn = phantom.rigid((12, -7, 5), (0, 0, 0))
    grid = Grid(COARSE.shape, turn @ COARSE.affine)
    tree.replace(tree.bold(label, name), series(grid), grid.affine)


def _both_forms_differ(tree: Tree, label: str, name: str) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(series(), COARSE.affine)
    other = COARSE.affine.copy()
    other[:3, 3] += 35
    image.set_sform(COARSE.affine, 1)
    image.set_qform(other, 1)
    image.header.set_zooms((*image.header.get_zooms()[:3], TR))
    tree.bold(label, name).write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))


def _singular(tree: Tree, label: str, name: str) -> None:
    tree.replace(tree.bold(label, name), series(), COARSE.affine, srow_x=np.zeros(4), sform_code=1, qform_code=0)


def _overflow(tree: Tree, label: str, name: str) -> None:
    """Integers whose scale takes them beyond single precision."""
    stored = np.clip(series() * 100, 0, 32767).astype(np.int16)
    tree.replace(tree.bold(label, name), stored, scl_slope=np.float32(3e38), scl_inter=0)


def _cropped(tree: Tree, label: str, name: str) -> None:
    affine = COARSE.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([0, 0, 11])
    tree.replace(tree.bold(label, name), series()[:, :, 11:], affine)


def _huge_motion(tree: Tree, label: str, name: str) -> None:
    data = series()
    for t in range(VOLUMES):
        if t % 3 == 0:
            turn = phantom.rigid((4 * (-1) ** t, 0, 3), (0, 5.0 * (-1) ** (t // 3), 3))
            data[..., t] = still(Grid(COARSE.shape, turn @ COARSE.affine)) + np.random.default_rng(t).normal(
                0, 1, COARSE.shape
            )
    tree.replace(tree.bold(label, name), data)


SLICES = COARSE.shape[2]
GOOD_TIMES = [round(TR * k / SLICES, 4) for k in range(SLICES)]

CASES: tuple[Case, ...] = (
    # The bytes
    Case(
        name="truncatedgzip",
        outcome="quarantined",
        words="ends early|truncated",
        damage=_bytes(lambda b: b[: len(b) // 2]),
    ),
    Case(name="corruptgzip", outcome="quarantined", words="not a sound gzip stream", damage=_bytes(_flip_middle)),
    Case(
        name="wrongmagic",
        outcome="quarantined",
        words="not a NIfTI header",
        damage=_bytes(lambda b: gzip.compress(b"no image" * 500)),
    ),
    Case(name="notgzipped", outcome="quarantined", words="not a sound gzip stream", damage=_bytes(gzip.decompress)),
    Case(name="zerobytes", outcome="quarantined", words="the file is empty", damage=_bytes(lambda b: b"")),
    Case(
        name="shortdata",
        outcome="quarantined",
        words="fewer than its header promises",
        damage=_bytes(lambda b: gzip.compress(gzip.decompress(b)[:-5000])),
    ),
    Case(
        name="lfspointer",
        outcome="quarantined",
        words="Git LFS pointer",
        damage=_bytes(lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
    ),
    Case(name="symlinkloop", outcome="quarantined", words="the link leads back to itself", damage=_loop),
    Case(name="danglinglink", outcome="quarantined", words="the link points nowhere", damage=_dangling),
    Case(name="folderloop", outcome="handled", damage=_folder_loop),
    # The values
    Case(name="allzero", outcome="quarantined", words="all voxels are equal", damage=_bold(edit=np.zeros_like)),
    Case(
        name="constant",
        outcome="quarantined",
        words="all voxels are equal",
        damage=_bold(edit=lambda d: np.full_like(d, 7)),
    ),
    Case(name="allnan", outcome="quarantined", words="all voxels are equal", damage=_bold(edit=lambda d: d * np.nan)),
    Case(
        name="zerovolume",
        outcome="quarantined",
        words="without signal|no signal|empty",
        damage=_bold(edit=_set((..., 9), 0.0)),
    ),
    Case(
        name="nanvolume",
        outcome="quarantined",
        words="without signal|no signal|not finite|empty",
        damage=_bold(edit=_set((..., 9), np.nan)),
    ),
    Case(
        name="infvolume",
        outcome="quarantined",
        words="without signal|no signal|not finite|empty",
        damage=_bold(edit=_set((..., 5), np.inf)),
    ),
    Case(name="nanbackground", outcome="handled", damage=_bold(edit=_set((slice(0, 2),), np.nan))),
    Case(name="float64", outcome="handled", damage=_bold(edit=lambda d: d.astype(np.float64))),
    Case(
        name="constanthead",
        outcome="quarantined",
        words="all voxels are equal",
        damage=_t1w(lambda d: d * 0 + 3),
        subject=True,
    ),
    Case(
        name="nanhead",
        outcome="quarantined",
        words="all voxels are equal",
        damage=_t1w(lambda d: d * np.nan),
        subject=True,
    ),
    # The shape
    Case(name="threed", outcome="quarantined", words="3 dimensions", damage=_bold(edit=lambda d: d[..., 0])),
    Case(
        name="onevolume", outcome="quarantined", words="dimensions|1 volumes", damage=_bold(edit=lambda d: d[..., :1])
    ),
    Case(
        name="fewvolumes",
        outcome="quarantined",
        words="12 volumes, fewer than the 20",
        damage=_bold(edit=lambda d: d[..., :12]),
    ),
    Case(name="oneslice", outcome="quarantined", words="single slice", damage=_bold(edit=lambda d: d[:, :, :1])),
    Case(
        name="fourdhead",
        outcome="quarantined",
        words="no usable T1w.*dimensions",
        damage=_t1w(lambda d: np.stack([d, d], axis=-1)),
        subject=True,
    ),
    # The space
    Case(name="lefthanded", outcome="handled", damage=_left_handed),
    Case(name="axesswapped", outcome="handled", damage=_axes_swapped),
    Case(name="oblique", outcome="handled", damage=_oblique),
    Case(name="singularaffine", outcome="quarantined", words="affine is singular", damage=_singular),
    # The timing
    Case(
        name="trmissing", outcome="quarantined", words="RepetitionTime is missing", damage=_sidecar(RepetitionTime=None)
    ),
    Case(
        name="trzero", outcome="quarantined", words="RepetitionTime is 0 s, outside", damage=_sidecar(RepetitionTime=0)
    ),
    Case(
        name="trmilliseconds",
        outcome="quarantined",
        words="looks like milliseconds",
        damage=_sidecar(RepetitionTime=2000),
    ),
    Case(name="trtext", outcome="quarantined", words="not a number", damage=_sidecar(RepetitionTime="2 s")),
    Case(
        name="trcontradicts",
        outcome="flagged",
        words="header TR 3 s differs; sidecar TR 2 s used",
        damage=_bold(tr=3.0),
    ),
    Case(
        name="slicecount",
        outcome="quarantined",
        words="5 SliceTiming values for 26 slices",
        damage=_sidecar(SliceTiming=GOOD_TIMES[:5]),
    ),
    Case(
        name="slicelate",
        outcome="quarantined",
        words="not below the repetition time",
        damage=_sidecar(SliceTiming=[*GOOD_TIMES[:-1], 2.5]),
    ),
    Case(
        name="slicemilliseconds",
        outcome="quarantined",
        words="looks like milliseconds",
        damage=_sidecar(SliceTiming=[1000 * t for t in GOOD_TIMES]),
    ),
    Case(
        name="slicenegative",
        outcome="quarantined",
        words="negative",
        damage=_sidecar(SliceTiming=[-0.1, *GOOD_TIMES[1:]]),
    ),
    Case(
        name="slicedirection",
        outcome="quarantined",
        words="SliceEncodingDirection is 'z'",
        damage=_sidecar(SliceTiming=GOOD_TIMES, SliceEncodingDirection="z"),
    ),
    # The names and the tables
    Case(
        name="zerosidecar",
        outcome="quarantined",
        words="cannot read sidecar|acq-[a-z]*_bold.json",
        damage=lambda t, s, n: t.sidecar(s, n, ""),
    ),
    Case(
        name="invalidjson",
        outcome="quarantined",
        words="acq-[a-z]*_bold.json",
        damage=lambda t, s, n: t.sidecar(s, n, '{"RepetitionTime": 2,'),
    ),
    Case(name="duplicaterun", outcome="quarantined", words="several files for one run", damage=_duplicate),
    Case(
        name="nonbids",
        outcome="ignored",
        words="resting_state_nonbids2",
        damage=_rename("sub-{}_resting_state_{}2.nii.gz"),
    ),
    Case(
        name="phasepart",
        outcome="quarantined",
        words="part-phase is not read",
        scan="task-rest_acq-phasepart_part-phase",
        damage=_rename("sub-{}_task-rest_acq-{}_part-phase_bold.nii.gz"),
    ),
    Case(
        name="multiecho",
        outcome="flagged",
        words="echo-2 of 3 used",
        scan="task-rest_acq-multiecho_echo-2",
        damage=_echoes,
    ),
    Case(name="noparticipantsrow", outcome="flagged", words="participants", damage=lambda t, s, n: None, subject=True),
    # The head
    Case(name="missinghead", outcome="quarantined", words="no T1w", damage=_no_t1w, subject=True),
    Case(
        name="truncatedhead",
        outcome="quarantined",
        words="no usable T1w",
        damage=_bytes(lambda b: b[: len(b) // 2], "t1w"),
        subject=True,
    ),
    Case(
        name="wrongsubjecthead",
        outcome="flagged",
        words="boundary registration refused|another subject",
        damage=_wrong_head,
        subject=True,
    ),
    Case(name="hugemotion", outcome="flagged", words="large motion", damage=_huge_motion),
    Case(name="integeroverflow", outcome="quarantined", words="not finite|overflow|beyond", damage=_overflow),
    Case(name="qformsform", outcome="flagged", words="qform and sform", damage=_both_forms_differ),
    Case(name="croppedfov", outcome="flagged", words="field of view|covered", damage=_cropped),
)
