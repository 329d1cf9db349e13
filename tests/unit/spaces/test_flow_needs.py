"""Which files a configuration reads: found by name as TemplateFlow's own client finds them, and all that is read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from boldmill.config.model import Config
from boldmill.spaces.flow import FETCH, finest, listed, matches, parse_name, query
from boldmill.spaces.flow_needs import config_needs, needs
from boldmill.spaces.names import parse_atlas
from boldmill.spaces.packages import package_file

QUERIES = [
    query("MNI152NLin6Asym", resolution=2, suffix="T1w", desc=None, extension=".nii.gz"),
    query("MNI152NLin6Asym", resolution=2, suffix="T1w", desc="brain"),
    query("MNI152NLin6Asym", suffix="mask", desc="brain", extension=".nii.gz"),
    query("MNI152NLin6Asym", atlas="Schaefer2018", desc="100Parcels7Networks", suffix="dseg", extension=".nii.gz"),
    query("MNI152NLin6Asym", atlas="HOCPA", desc="th25", suffix="dseg", extension=".nii.gz"),
    query("MNI152NLin6Asym", atlas="HOCPA", desc=None, suffix="dseg", extension=".tsv"),
    query("MNI152NLin6Asym", atlas="DiFuMo", desc="64dimensions", suffix="probseg", extension=".nii.gz"),
    query("MNI152NLin2009cAsym", segmentation="aseg", suffix="dseg", extension=".nii.gz"),
    query("fsLR", space="fsaverage", hemi="L", density="32k", suffix="sphere", extension=".surf.gii"),
    query("fsLR", space=None, hemi="R", density="32k", suffix="sphere"),
    query("MNIInfant", cohort=2, resolution=1, suffix="T1w"),
]


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All file names of four templates, as the client lays them out."""
    home = tmp_path_factory.mktemp("flow")
    kept = ("tpl-MNI152NLin6Asym/", "tpl-MNI152NLin2009cAsym/", "tpl-fsLR/", "tpl-MNIInfant/")
    with zipfile.ZipFile(package_file("templateflow", "conf/templateflow-skel.zip")) as archive:
        archive.extractall(home, [name for name in archive.namelist() if name.startswith(kept)])
    return home


def test_files_are_found_as_templateflows_client_finds_them(skeleton: Path) -> None:
    """The client asks pybids, which parses the whole store with patterns of its own."""
    from templateflow.client import TemplateFlowClient

    client = TemplateFlowClient(root=skeleton)
    for wanted in QUERIES:
        theirs = sorted(client.ls(wanted.template, **dict(wanted.entities)))
        assert listed(wanted, skeleton) == theirs and theirs, wanted.words


def test_other_entities_are_free_absent_ones_are_not() -> None:
    name = "tpl-X_res-02_desc-brain_T1w.nii.gz"
    assert parse_name(name) == {"tpl": "X", "res": "02", "desc": "brain", "suffix": "T1w", "extension": ".nii.gz"}
    assert matches(query("X", suffix="T1w"), name) and not matches(query("X", suffix="T1w", desc=None), name)
    assert matches(query("X", res=2), name) and not matches(query("Y", res=2), name)
    assert parse_name("template_description.json") == {}
    assert not matches(query("X", resolution=2), "tpl-X_res-iso4mm_T1w.nii.gz")  # some names have words there


def test_the_nearest_resolution_is_taken_by_name_alone() -> None:
    paths = [Path(f"tpl-X_res-{size}_atlas-A_dseg.nii.gz") for size in ("01", "03")]
    assert finest(paths, 2.0) == paths[0] and finest(paths, 2.6) == paths[1]


def test_a_short_entity_name_of_the_configuration_is_understood(tmp_path: Path) -> None:
    """``Schaefer2018 seg=7n scale=400`` writes entities as file names do."""
    assert parse_atlas("Schaefer2018 seg=7n scale=400").entities == (("seg", "7n"), ("scale", "400"))
    config = Config.model_validate({"spaces": {"further_atlases": ["Schaefer2018 seg=7n scale=400"]}})
    (wanted,) = (need for need in config_needs(config) if need.what == "atlas Schaefer2018-seg-7n-scale-400")
    name = "tpl-MNI152NLin6Asym/tpl-MNI152NLin6Asym_res-02_atlas-Schaefer2018_seg-7n_scale-400_dseg.nii.gz"
    assert wanted.among([name, name.replace("7n", "17n")]) == [name]


def test_every_file_the_readers_open_is_on_the_list(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    """The readers run on the real store, and what they opened is what the list says they will read."""
    from boldmill.spaces import atlas, flow, further, meshes, templates

    opened: set[Path] = set()

    def follow(module: object) -> None:
        real = flow.flow_file

        def noted(wanted: flow.Query) -> Path:
            opened.add(real(wanted))
            return real(wanted)

        monkeypatch.setattr(module, "flow_file", noted)

    for module in (atlas, further, meshes, templates):
        follow(module)
    monkeypatch.setattr(atlas, "with_data", lambda path: opened.add(flow.with_data(path)) or path)
    monkeypatch.setattr(templates, "warp_priors", lambda head, mask, space: (head, head, {}))
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(data / "templateflow"))
    config = Config.model_validate(
        {
            "spaces": {"surface_source": "templateflow"},
            "preprocess": {"output_spaces": ["MNI152NLin2009cAsym:res-2", "T1w"]},
        }
    )
    templates.from_templateflow(config.spaces)
    further.load_further("MNI152NLin2009cAsym")
    meshes.sphere_files()
    name = parse_atlas("Schaefer2018 100Parcels7Networks")
    atlas.with_data(finest(atlas._label_volumes(config.spaces.template, name), 2.0))
    atlas._label_table(config.spaces.template, name)
    listed_files = {path for need in config_needs(config) for path in need.found() or []}
    assert opened == listed_files and len(opened) == 8


def test_tables_of_their_own_atlas_and_embedded_sources_need_nothing() -> None:
    own = {"name": "a", "root": "a.npz", "kind": "tables", "atlas": "HO"}
    assert config_needs(Config.model_validate({"datasets": [own]})) == []
    embedded = {"template_source": "demo", "atlas_source": "embedded", "flat": "fsaverage5"}
    left = list(needs(Config.model_validate({"spaces": embedded}).spaces))
    assert [need.what for need in left] == ["sphere L", "sphere R"] and all(need.optional for need in left)


def test_the_fix_is_one_command() -> None:
    assert "snakemake fetch" in FETCH and "\n" not in FETCH
