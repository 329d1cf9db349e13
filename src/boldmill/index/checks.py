"""Checks of one run from its header and its metadata: pure functions that return facts or raise a fault.

Times are seconds. A flag is a remark that does not keep a scan out.
"""

from __future__ import annotations

import math
from typing import Any

from boldmill.errors import DataFault

TR_TOLERANCE = 0.01  # relative; headers hold single precision and converters round


def check_shape(shape: tuple[int, ...], where: str, min_volumes: int) -> int:
    """Return the number of volumes of a BOLD run.

    Parameters
    ----------
    shape : tuple of int
        Dimensions of the header, ``(X, Y, Z, T)``.
    where : str
        The file.
    min_volumes : int
        Fewest volumes accepted.
    """
    size = tuple(shape)
    while len(size) > 4 and size[-1] == 1:
        size = size[:-1]
    if len(size) != 4:
        raise DataFault(
            "not a BOLD run", where, f"the image has {len(size)} dimensions {size}, not 4", "give a 4D time series"
        )
    if min(size[:3]) < 2:
        raise DataFault("not a BOLD run", where, f"a single slice or line {size}", "give a whole volume")
    return check_volumes(size[3], where, min_volumes)


def check_volumes(n_volumes: int, where: str, min_volumes: int) -> int:
    """Return the number of volumes if there are enough."""
    if n_volumes < min_volumes:
        raise DataFault(
            "run too short",
            where,
            f"{n_volumes} volumes, fewer than the {min_volumes} of index.min_volumes",
            "leave the run out, or lower index.min_volumes for this data set",
        )
    return n_volumes


def check_t1w(shape: tuple[int, ...], where: str) -> None:
    """Refuse a T1w image that is not one volume."""
    size = tuple(shape)
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if len(size) != 3 or min(size) < 16:
        raise DataFault("not a T1w volume", where, f"its dimensions are {tuple(shape)}", "give one 3D volume")


def repetition_time(
    metadata: dict[str, Any], header_tr: float, where: str, accepted: tuple[float, float]
) -> tuple[float, list[str]]:
    """Return the repetition time in seconds and flags: the sidecar wins over the header.

    BIDS requires ``RepetitionTime`` in seconds; headers are often wrong (a converter's guess, milliseconds, 0 or 1),
    so a header alone is not believed.

    Parameters
    ----------
    metadata : dict
        Metadata after sidecar inheritance.
    header_tr : float
        Repetition time of the header, seconds; 0 where it has none.
    where : str
        The file.
    accepted : tuple of float
        Smallest and largest accepted value.
    """
    value = metadata.get("RepetitionTime")
    said = f"the header says {header_tr:g} s" if header_tr else "the header has none either"
    if value is None:
        if metadata.get("VolumeTiming") is not None:
            raise DataFault("no regular sampling", where, "VolumeTiming instead of RepetitionTime", "leave the run out")
        raise DataFault(
            "no repetition time", where, f"RepetitionTime is missing from its sidecars; {said}", "add it, in seconds"
        )
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataFault(
            "no repetition time", where, f"RepetitionTime is {value!r}, not a number", "write a number, in seconds"
        )
    low, high = accepted
    if not low <= value <= high:
        hint = "; it looks like milliseconds" if low <= value / 1000 <= high else ""
        raise DataFault(
            "repetition time out of range",
            where,
            f"RepetitionTime is {value:g} s, outside {low:g} to {high:g} s{hint}; {said}",
            "correct the sidecar (seconds), or index.tr_range",
        )
    flags = []
    if header_tr not in (0.0, 1.0) and abs(header_tr - value) > TR_TOLERANCE * value:
        flags.append(f"header TR {header_tr:.4g} s differs; sidecar TR {value:g} s used")
    return float(value), flags


def check_slice_timing(metadata: dict[str, Any], shape: tuple[int, ...], tr: float, where: str) -> None:
    """Refuse slice times that contradict the image or the repetition time; absent ones are fine.

    ``SliceTiming`` holds one time per slice along ``SliceEncodingDirection`` (default k), in ``[0, TR)``.
    """
    times = metadata.get("SliceTiming")
    if times is None:
        return
    fix = "correct SliceTiming in the sidecar, or remove it (no slice time correction then)"
    if not isinstance(times, list) or not all(isinstance(t, (int, float)) and not isinstance(t, bool) for t in times):
        raise DataFault("invalid slice times", where, "SliceTiming is not a list of numbers", fix)
    direction = str(metadata.get("SliceEncodingDirection") or "k")
    if direction.rstrip("-") not in ("i", "j", "k"):
        raise DataFault("invalid slice times", where, f"SliceEncodingDirection is {direction!r}", "use i, j or k")
    n_slices = shape["ijk".index(direction[0])]
    if len(times) != n_slices:
        why = f"{len(times)} SliceTiming values for {n_slices} slices along {direction}"
        raise DataFault("invalid slice times", where, why, fix)
    if not all(math.isfinite(t) for t in times) or min(times) < 0:
        raise DataFault("invalid slice times", where, "SliceTiming holds negative or infinite values", fix)
    if max(times) >= tr:
        hint = "; it looks like milliseconds" if max(times) / 1000 < tr <= max(times) / 10 else ""
        why = f"SliceTiming reaches {max(times):g} s, not below the repetition time of {tr:g} s{hint}"
        raise DataFault("invalid slice times", where, why, fix)


def check_surface(
    left: tuple[int, ...], right: tuple[int, ...], where: str, vertices: int = 10242, mesh: str = "fsaverage5"
) -> int:
    """Return the number of volumes of a pair ``(vertices, volumes)`` on a mesh."""
    for hemi, size in (("L", left), ("R", right)):
        if size[0] != vertices:
            why = f"hemi-{hemi} has {size[0]} vertices, {mesh} has {vertices}"
            raise DataFault(f"not {mesh}", where, why, f"resample the series to {mesh}")
    if left[1] != right[1]:
        why = f"hemi-L has {left[1]} volumes, hemi-R {right[1]}"
        raise DataFault("hemispheres differ", where, why, "restore the shorter file")
    return left[1]


FSLR_VERTICES = 32492
CORTEX_91K = (29696, 29716)
"""Cortical grayordinates of fsLR 91k, left and right."""


def check_cifti(shape: tuple[int, ...], where: str) -> int:
    """Return the number of volumes of a series of fsLR 91k grayordinates.

    Parameters
    ----------
    shape : tuple of int
        (volumes, grayordinates, used vertices left, right, vertices of the mesh left, right).
    """
    volumes, grayordinates, *cortex = shape
    if tuple(cortex) != (*CORTEX_91K, FSLR_VERTICES, FSLR_VERTICES):
        why = f"{grayordinates} grayordinates with {cortex[0]} and {cortex[1]} of {cortex[2]} cortical vertices"
        raise DataFault(
            "not fsLR 91k",
            where,
            f"{why}; fsLR 91k has {CORTEX_91K[0]} and {CORTEX_91K[1]} of {FSLR_VERTICES}",
            "give the 91k series (2 mm), e.g. fMRIPrep's --cifti-output 91k",
        )
    return volumes
