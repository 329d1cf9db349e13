"""Moves between spaces: each is named, has one direction, says where it comes from, and is listed in manifests.

Axes: points are (n, 3) in mm, x to the right, y to the front, z up (RAS+).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError

NLIN6 = "MNI152NLin6Asym"
SYM09A = "MNI152NLin2009aSym"
ASYM09C = "MNI152NLin2009cAsym"
MNI305 = "MNI305"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """An affine map of points from one space to another.

    Parameters
    ----------
    source, target : str
        Names of the spaces.
    matrix : tuple of float
        The 4 x 4 matrix, row by row, mm to mm.
    how : str
        Where the numbers come from.
    """

    source: str
    target: str
    matrix: tuple[float, ...]
    how: str

    @property
    def affine(self) -> NDArray[np.float64]:
        """The 4 x 4 matrix."""
        return np.array(self.matrix, dtype=np.float64).reshape(4, 4)

    def __call__(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Move (n, 3) points in mm."""
        moved: NDArray[np.float64] = np.asarray(points, np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return moved

    def inverse(self) -> Move:
        """Return the move back."""
        flat = tuple(float(v) for v in np.linalg.inv(self.affine).ravel())
        return Move(source=self.target, target=self.source, matrix=flat, how=f"inverse of: {self.how}")

    def describe(self) -> dict[str, Any]:
        """Return the entry written into manifests."""
        return {"from": self.source, "to": self.target, "how": self.how, "matrix": self.affine.round(6).tolist()}


_MEASURED = (
    "affine registration (Mattes mutual information, brain-masked) of the two T1w templates, measured once; "
    "tests/unit/spaces/test_moves.py checks it"
)

MOVES: tuple[Move, ...] = (
    Move(
        source=MNI305,
        target=NLIN6,
        matrix=(
            *(0.9975, -0.0073, 0.0176, -0.0429),
            *(0.0146, 1.0009, -0.0024, 1.5496),
            *(-0.0130, -0.0093, 0.9971, 1.1840),
            *(0.0, 0.0, 0.0, 1.0),
        ),
        how="FreeSurfer CoordinateSystems, case 8 (fsaverage MNI305 to MNI152)",
    ),
    Move(
        source=NLIN6,
        target=SYM09A,
        matrix=(
            *(1.01222, 0.00373, -0.00263, -0.52599),
            *(-0.02276, 1.01157, 0.00074, 0.03457),
            *(0.00098, -0.00931, 1.02181, -0.28925),
            *(0.0, 0.0, 0.0, 1.0),
        ),
        how=_MEASURED,
    ),
    Move(
        source=NLIN6,
        target=ASYM09C,
        matrix=(
            *(1.01276, -0.00127, 0.00198, -0.75840),
            *(0.00213, 1.01078, 0.00218, 0.00801),
            *(-0.00364, -0.00973, 1.02488, -0.43780),
            *(0.0, 0.0, 0.0, 1.0),
        ),
        how=_MEASURED,
    ),
)
"""The moves known; any other pair is reached by walking along these, forwards or backwards."""


def path_between(source: str, target: str) -> list[Move]:
    """Return the moves that lead from one space to another (empty if they are the same space).

    Raises
    ------
    ConfigError
        No chain of known moves leads there.
    """
    edges = [*MOVES, *(move.inverse() for move in MOVES)]
    paths: dict[str, list[Move]] = {source: []}
    queue = [source]
    while queue:
        here = queue.pop(0)
        for move in edges:
            if move.source == here and move.target not in paths:
                paths[move.target] = [*paths[here], move]
                queue.append(move.target)
    if target not in paths:
        known = ", ".join(sorted({m.source for m in edges}))
        raise ConfigError("no move between spaces", f"{source} -> {target}", f"known spaces are {known}", "use one")
    return paths[target]


def move_points(points: NDArray[Any], source: str, target: str) -> NDArray[np.float64]:
    """Move (n, 3) points in mm from one named space to another."""
    moved = np.asarray(points, np.float64)
    for move in path_between(source, target):
        moved = move(moved)
    return moved
