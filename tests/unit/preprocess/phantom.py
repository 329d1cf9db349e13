"""A small head with known parts: scalp, skull, CSF, GM, WM as nested ellipsoids with an asymmetric fold."""

from __future__ import annotations

import numpy as np

from boldmill.preprocess.images import Grid, Volume

Triple = tuple[float, float, float]

GRID = Grid((46, 54, 46), np.array([[4.0, 0, 0, -90], [0, 4, 0, -106], [0, 0, 4, -82], [0, 0, 0, 1]]))
"""4 mm, 184 x 216 x 184 mm."""


def _inside(x: np.ndarray, radii: Triple, centre: Triple = (0, 0, 0)) -> np.ndarray:
    return (((x - np.array(centre)) / np.array(radii)) ** 2).sum(axis=-1)


def _soft(r: np.ndarray, width: float = 0.08) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip((r - 1) / width, -60, 60)))


def parts(xyz: np.ndarray) -> dict[str, np.ndarray]:
    """Return soft membership of head, brain, gm, wm, csf at world points (..., 3)."""
    x = np.asarray(xyz, dtype=np.float64)
    ripple = 1 + 0.3 * np.sin(x[..., 0] / 9) * np.cos(x[..., 1] / 11) + 0.3 * np.sin(x[..., 2] / 8 + x[..., 1] / 13)
    brain = _soft(_inside(x, (66, 82, 62)))
    wm = _soft(_inside(x, (48, 62, 44), (0, -4, 2)) * ripple) * brain
    ventricle = _soft(_inside(x, (9, 26, 12), (6, -6, 6))) * brain
    rim = brain * (1 - _soft(_inside(x, (60, 76, 56))))
    csf = np.clip(ventricle + rim, 0, 1)
    wm = wm * (1 - csf)
    gm = np.clip(brain - wm - csf, 0, 1)
    head = _soft(_inside(x, (80, 97, 76), (0, 0, -2)))
    skull = _soft(_inside(x, (73, 90, 69), (0, 0, -1))) * (1 - brain)
    nose = _soft(_inside(x, (14, 16, 16), (0, 98, -30)))
    neck = _soft(_inside(x, (30, 30, 60), (0, -25, -80)), 0.15)
    eyes = _soft(_inside(x, (13, 13, 13), (32, 84, -22))) + _soft(_inside(x, (13, 13, 13), (-32, 84, -22)))
    scalp = np.clip(np.clip(head - skull, 0, 1) + nose + neck - eyes, 0, 1) * (1 - brain)
    return {"brain": brain, "gm": gm, "wm": wm, "csf": csf, "scalp": scalp}


def t1w(xyz: np.ndarray) -> np.ndarray:
    """T1w intensity at world points."""
    p = parts(xyz)
    return 100 * p["wm"] + 65 * p["gm"] + 22 * p["csf"] + 80 * p["scalp"]


def volume(name: str, grid: Grid = GRID) -> Volume:
    """One part (or ``t1w``) on a grid."""
    points = grid.points()
    data = t1w(points) if name == "t1w" else parts(points)[name]
    return Volume(data.reshape(grid.shape).astype(np.float32), grid.affine)


def rigid(degrees: Triple, shift: Triple, scale: float = 1.0) -> np.ndarray:
    """4x4 matrix: rotations about x, y, z, a scale and a shift (mm)."""
    a, b, c = np.radians(degrees)
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = rz @ ry @ rx * scale
    matrix[:3, 3] = shift
    return matrix


def moved(matrix: np.ndarray, grid: Grid = GRID) -> Volume:
    """The head seen by a scanner after ``matrix`` (template world to subject world)."""
    inverse = np.linalg.inv(matrix)
    points = grid.points() @ inverse[:3, :3].T + inverse[:3, 3]
    noise = np.random.default_rng(7).normal(0, 1.0, len(points))
    return Volume(np.clip(t1w(points) + noise, 0, None).reshape(grid.shape).astype(np.float32), grid.affine)
