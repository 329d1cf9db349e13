"""What the XML of a CIFTI series says: its time step and its grayordinates. The data are not read.

A grayordinate is a vertex of one cortex or a voxel of the depth; ``fsLR 91k`` has 29,696 and 29,716 of the 32,492
vertices of either hemisphere, and 31,870 voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

CORTEX = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")
UNIT = {"SECOND": 1.0}


@dataclass(slots=True)
class CiftiHeader:
    """Step between volumes (s, 0 if it is not in seconds), counts by structure, and mesh sizes of the surfaces."""

    step: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    vertices: dict[str, int] = field(default_factory=dict)

    @property
    def n_grayordinates(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def cortex(self) -> tuple[int, int, int, int]:
        """Return used vertices left and right, then vertices of the mesh left and right (0: no such surface)."""
        left, right = CORTEX
        used, mesh = self.counts.get, self.vertices.get
        return used(left, 0), used(right, 0), mesh(left, 0), mesh(right, 0)


def parse(xml: bytes) -> CiftiHeader:
    """Parse the XML of a CIFTI-2 series.

    Raises
    ------
    ValueError
        Not XML, or not that of a series of grayordinates.
    """
    found = CiftiHeader()
    types = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "MatrixIndicesMap":
            types.append(attributes.get("IndicesMapToDataType", ""))
            if attributes.get("SeriesUnit") in UNIT:
                found.step = float(attributes["SeriesStep"]) * 10.0 ** int(attributes.get("SeriesExponent", 0))
        elif name == "BrainModel":
            structure = attributes["BrainStructure"]
            found.counts[structure] = int(attributes["IndexCount"])
            if "SurfaceNumberOfVertices" in attributes:
                found.vertices[structure] = int(attributes["SurfaceNumberOfVertices"])

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    try:
        parser.Parse(xml.rstrip(b"\0"), True)
    except (expat.ExpatError, KeyError) as error:
        raise ValueError(f"its CIFTI header is broken ({error})") from error
    if sorted(types) != ["CIFTI_INDEX_TYPE_BRAIN_MODELS", "CIFTI_INDEX_TYPE_SERIES"]:
        raise ValueError(f"it is no series of grayordinates ({', '.join(sorted(types)) or 'no CIFTI maps'})")
    return found
