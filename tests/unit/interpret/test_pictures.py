"""Regions on vertices, and drawings looked at pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boldmill.atomic import write_json, write_text
from boldmill.errors import ConfigError
from boldmill.interpret import canvas
from boldmill.interpret.connectogram import angles, chord, circle_order, draw_bars, draw_connectogram, spread
from boldmill.interpret.cortex import draw_cortex, draw_flat, flat_labels
from boldmill.interpret.regions import atlas_files, named, of_atlas, on_vertices, read_labels
from boldmill.spaces.embedded import fslr32k_labels
from boldmill.spaces.images import write_labels_gifti
from boldmill.spaces.parcels import schaefer100, table_tsv
from boldmill.spaces.transfer import by_position

VERTICES = 10242


@pytest.fixture(scope="module")
def labels() -> Any:
    """Schaefer-100 of all fsaverage5 vertices."""
    return by_position(fslr32k_labels()).labels


@pytest.fixture(scope="module")
def atlas(labels: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a prepared atlas that the interpretation reads."""
    folder = tmp_path_factory.mktemp("atlas")
    files = {"parcels": "parcels.tsv"}
    write_text(folder / "parcels.tsv", table_tsv(schaefer100()))
    for side, half in zip(("lh", "rh"), np.split(labels, 2), strict=True):
        files[f"fsaverage5_{side}"] = f"{side}.label.gii"
        write_labels_gifti(folder / f"{side}.label.gii", half, {0: "none"}, "CortexLeft")
    write_json(folder / "atlas.json", {"files": files})
    return folder / "atlas.json"


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def reds(path: Path) -> int:
    """How many pixels are clearly red."""
    image = pixels(path)
    return int(((image[..., 0] - image[..., 1] > 60) & (image[..., 0] - image[..., 2] > 60)).sum())


def test_regions_have_names_networks_and_sides() -> None:
    names = [parcel.name for parcel in schaefer100()]
    assert named(names) == schaefer100()
    code = named(["2001"])[0]
    assert (code.id, code.name, code.network, code.hemisphere) == (1, "2001", "", "")


def test_an_atlas_gives_the_column_of_each_vertex(atlas: Path, labels: Any) -> None:
    assert len(atlas_files(atlas)) == 4
    regions = named([parcel.name for parcel in schaefer100()])
    assert np.array_equal(of_atlas(atlas, regions), labels)
    turned = named([parcel.name for parcel in schaefer100()][::-1])
    assert np.array_equal(of_atlas(atlas, turned), np.where(labels > 0, 101 - labels, 0))
    with pytest.raises(ConfigError, match="not those of the snapshot: LH_Vis_1"):
        of_atlas(atlas, regions[1:])


def test_label_files_are_checked(tmp_path: Path) -> None:
    good = write_labels_gifti(tmp_path / "good.label.gii", np.arange(VERTICES) % 5, {0: "none"}, "CortexLeft")
    short = write_labels_gifti(tmp_path / "short.label.gii", np.ones(7, int), {0: "none"}, "CortexLeft")
    found = read_labels(good, good, 4)
    assert found.shape == (2 * VERTICES,) and found.max() == 4
    with pytest.raises(ConfigError, match="key 4 of 3 regions"):
        read_labels(good, good, 3)
    with pytest.raises(ConfigError, match="not one label for each of 10242"):
        read_labels(good, short, 4)
    with pytest.raises(ConfigError, match="cannot read the labels"):
        read_labels(write_text(tmp_path / "x.gii", "no"), good, 4)


def test_vertices_take_the_value_of_their_region() -> None:
    found = on_vertices(np.array([5.0, 7.0]), np.array([2, 0, 1]))
    assert found.tolist()[0] == 7 and np.isnan(found[1]) and found[2] == 5


def test_every_region_has_flat_pixels_on_its_own_side(labels: Any) -> None:
    columns, mask = flat_labels(labels)
    assert len(columns) == mask.sum()
    plane = np.zeros(mask.shape, int)
    plane[mask] = columns
    half = mask.shape[1] // 2
    assert set(np.unique(plane[:, :half])) == set(range(51)) and set(np.unique(plane[:, half:])) == {0, *range(51, 101)}


def test_one_hot_region_is_the_only_red_one(labels: Any, tmp_path: Path) -> None:
    values = np.zeros(100)
    values[30] = 3.0
    hot = draw_flat(tmp_path / "hot.png", values, labels, "t", "u", signed=True)
    values[30] = 0.0
    none = draw_flat(tmp_path / "none.png", values, labels, "t", "u", signed=True)
    share = (flat_labels(labels)[0] == 31).mean()
    mask = flat_labels(labels)[1].mean()
    expected = share * mask * pixels(hot).shape[0] * pixels(hot).shape[1]
    assert 0.3 * expected < reds(hot) - reds(none) < 1.5 * expected  # the picture holds more than the grid


def test_the_cortex_shows_a_hot_region_and_gives_the_same_bytes(labels: Any, tmp_path: Path) -> None:
    values = np.zeros(100)
    values[labels[0] - 1 if labels[0] else 5] = 3.0
    hot = draw_cortex(tmp_path / "hot.png", values, labels, "t", "u", signed=True)
    again = draw_cortex(tmp_path / "again.png", values, labels, "t", "u", signed=True)
    none = draw_cortex(tmp_path / "none.png", np.zeros(100), labels, "t", "u", signed=True)
    assert hot.read_bytes() == again.read_bytes()
    assert reds(hot) > reds(none) + 100


def test_the_circle_mirrors_the_hemispheres() -> None:
    regions = schaefer100()
    groups = circle_order(regions)
    assert sorted(column for group in groups for column in group) == list(range(100))
    heads = [(regions[group[0]].hemisphere, regions[group[0]].network) for group in groups]
    assert [network for side, network in heads if side == "L"] == [n for side, n in heads[::-1] if side == "R"]
    angle = angles(groups)
    assert len(set(np.round(angle, 6))) == 100
    left, right = angle[:50], angle[50:]
    assert (np.cos(left) < 0.1).all() and (np.cos(right) > -0.1).all()


def test_a_chord_starts_and_ends_at_its_regions_and_stays_inside() -> None:
    start, end = np.array([1.0, 0]), np.array([0, 1.0])
    curve = chord(start, end)
    assert np.allclose(curve[0], start) and np.allclose(curve[-1], end)
    assert (np.linalg.norm(curve[1:-1], axis=1) < 1).all()


@given(st.lists(st.floats(-4 * np.pi, 4 * np.pi), min_size=2, max_size=24))
def test_names_keep_their_distance_and_their_order_and_move_no_more_than_they_must(wanted: list[float]) -> None:
    moved = spread(np.array(wanted), 0.05)
    ring = np.sort(moved % (2 * np.pi))
    assert np.diff(ring, append=ring[0] + 2 * np.pi).min() > 0.05 - 1e-9
    places = np.sort(np.array(wanted) % (2 * np.pi))
    if np.diff(places, append=places[0] + 2 * np.pi).min() >= 0.05:
        assert np.allclose(np.exp(1j * moved), np.exp(1j * np.array(wanted)))


def test_names_that_meet_across_the_top_of_the_circle_part_to_both_sides() -> None:
    assert np.allclose(
        spread(np.array([2 * np.pi - 0.01, 0.01, 3.0]), 0.1) % (2 * np.pi), [2 * np.pi - 0.05, 0.05, 3.0]
    )


def test_connectogram_colours_follow_the_sign(tmp_path: Path) -> None:
    regions = schaefer100()
    edges = np.zeros(4950)
    edges[[5, 700, 3000]] = [3.0, 2.0, 1.0]
    plus = draw_connectogram(tmp_path / "plus.png", edges, regions, "t", ("a {high}", "b"), 40)
    minus = draw_connectogram(tmp_path / "minus.png", -edges, regions, "t", ("a {high}", "b"), 40)
    empty = draw_connectogram(tmp_path / "empty.png", 0 * edges, regions, "t", ("a {high}", "b"), 40)
    assert reds(plus) > reds(empty) + 300 > reds(minus)
    again = draw_connectogram(tmp_path / "again.png", edges, regions, "t", ("a {high}", "b"), 40)
    assert again.read_bytes() == plus.read_bytes()


def test_bars_of_an_atlas_without_surface(tmp_path: Path) -> None:
    regions = named([f"{2000 + i}$" for i in range(111)])  # a dollar sign is no formula
    spread = np.full(111, np.nan)
    path = draw_bars(tmp_path / "bars.png", np.arange(111.0), spread, regions, "t", "u", 10)
    other = draw_bars(tmp_path / "other.png", np.arange(111.0), np.ones(111), regions, "t", "u", 10)
    assert pixels(path).std() > 20 and path.read_bytes() != other.read_bytes()


def test_scales() -> None:
    assert canvas.scale(np.array([1.0, -3.0]), signed=True)[:2] == (-3.0, 3.0)
    assert canvas.scale(np.array([1.0, 4.0, np.nan]), signed=False)[:2] == (0.0, 4.0)
    assert canvas.scale(np.zeros(3), signed=False)[:2] == (0.0, 1.0)
