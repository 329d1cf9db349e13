"""`boldmill init`: what it finds, what it writes, and that the file loads on top of another configuration."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import yaml

from boldmill.cli import main
from boldmill.config.governed import governed
from boldmill.config.load import load
from boldmill.config.model import Config
from boldmill.setup.survey import dataset_name, survey, task_suggestions


def write(tree, *more, out="my.yaml"):
    path = tree.base / out
    assert main(["init", str(tree.root), *more, "--out", str(path)]) == 0
    return path


def test_written_file_loads_on_top_of_a_demo_configuration(tree):
    tree.good("01", "02")
    demo = tree.base / "demo.yaml"
    demo.write_text(
        "results: results\nspaces: {template_source: demo, atlas_source: embedded, resolution: 4}\n"
        "datasets: [{name: demo, root: x}]\nevaluate: {tasks: [{name: group, column: group}]}\n"
    )
    config = load(demo, write(tree))
    assert [(d.name, d.root, d.licence) for d in config.datasets] == [("ds", str(tree.root), "CC0")]
    assert config.spaces == Config().spaces
    assert config.evaluate.tasks == []
    assert config.results == "results-ds"


def test_every_key_is_written_with_its_meaning_and_default(tree):
    tree.good("01")
    text = write(tree).read_text()
    for name, field in Config.model_fields.items():
        assert f"\n{name}:" in f"\n{text}", name
        inner = getattr(field.annotation, "model_fields", {})
        for key in inner:
            mark = "# " if f"{name}.{key}" in governed() else ""
            assert f"\n  {mark}{key}:" in text, f"{name}.{key}"
    joined = " ".join(line.strip().removeprefix("# ") for line in text.splitlines())
    assert "fewest volumes of a BOLD run (default: 20) min_volumes: 20" in joined
    assert "accepted repetition time, seconds (default: [0.1, 12.0])" in joined
    assert "one of none, linear, quadratic, cosine (default: cosine) drift: cosine" in joined
    assert max(map(len, text.splitlines())) <= 200


def test_runs_are_described_and_short_ones_get_a_smaller_confound_set(tree):
    tree.t1w("01")
    tree.bold("01", shape=(6, 5, 4, 24), sidecar={"RepetitionTime": 2.52})
    text = write(tree).read_text()
    joined = " ".join(line.strip().removeprefix("# ") for line in text.splitlines())
    assert "1 x task-rest (24 volumes, TR 2.52 s)" in joined
    assert "this set leaves about 16." in joined  # 24 - 1 - 6 - 1, since with tissue it would be 14 < 15
    (dataset,) = yaml.safe_load(text)["datasets"]
    assert dataset["overrides"]["clean"] == {
        "motion": "6",
        "compcor": 0,
        "drift": "linear",
        "band_low": None,
        "band_high": None,
    }


def test_long_runs_keep_the_defaults(tree):
    tree.t1w("01")
    tree.bold("01", shape=(4, 4, 4, 300))
    assert yaml.safe_load(write(tree).read_text())["datasets"][0]["overrides"] == {}


def test_tasks_come_from_two_level_columns_with_enough_people(tree):
    people = [f"{i:02d}" for i in range(1, 25)]
    for person in people:
        tree.t1w(person)
    rows = [f"sub-{p} {'ab'[int(p) % 2]} {'x' if p == '01' else 'y'} {int(p) * 1.5} {int(p) % 3}" for p in people]
    tree.participants("participant_id group rare score third\n" + "\n".join(rows))
    found = task_suggestions([survey(tree.root, set())], folds=5)
    assert [(task["column"], task["kind"], enough) for task, _, enough in found] == [
        ("group", "classification", True),
        ("rare", "classification", False),
        ("score", "regression", False),
    ]
    path = write(tree)
    (task,) = load(path).evaluate.tasks
    assert (task.column, task.kind, task.positive, task.datasets) == ("group", "classification", "b", ["ds"])
    assert "#  - {column: rare" in path.read_text()


def test_existing_file_is_kept_unless_forced(tree, capsys):
    tree.good("01")
    path = write(tree)
    path.write_text("mine")
    assert main(["init", str(tree.root), "--out", str(path)]) == 2
    assert path.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    write(tree, "--force")
    assert path.read_text() != "mine"


def test_two_roots_of_one_name_get_two_names(trees, tmp_path):
    a, b = trees.Tree(tmp_path / "x"), trees.Tree(tmp_path / "y")
    a.good("01")
    b.good("01")
    path = tmp_path / "my.yaml"
    assert main(["init", str(a.root), str(b.root), "--out", str(path)]) == 0
    assert [d.name for d in load(path).datasets] == ["ds", "ds2"]


@pytest.mark.parametrize(
    ("folder", "title", "name"),
    [
        ("/d/ds000001-1.0.0", "A study", "ds000001"),
        ("/d/my_study", "whatever", "mystudy"),
        ("/d/cohort/bids", "Rest in patients with pain", "Restinpatients"),
        ("/d/cohort/bids", "bids", "cohort"),
    ],
)
def test_names_are_letters_and_digits(folder, title, name):
    assert dataset_name(Path(folder), title, set()) == name


def test_folder_that_is_no_data_set_is_refused(tmp_path, capsys):
    assert main(["init", str(tmp_path), "--out", str(tmp_path / "my.yaml")]) == 2
    assert "holds no sub-* folder" in capsys.readouterr().err
    assert not (tmp_path / "my.yaml").exists()


def test_a_root_that_is_not_there_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "notes.md").write_text("words")
    for root, why in (("nowhere", "no such folder"), ("notes.md", "no file of parcel series")):
        assert main(["init", str(tmp_path / root), "--out", str(tmp_path / "my.yaml")]) == 2
        assert why in capsys.readouterr().err


def test_damaged_images_are_runs_of_unknown_length(tree):
    """Damaged inside the compressed stream (zlib says so), and headers no reader accepts."""
    tree.good("01")
    (path,) = (tree.root / "sub-01" / "func").glob("*.nii.gz")
    whole = path.read_bytes()
    header = bytearray(gzip.decompress(whole))
    header[70:72] = b"\x63\x33"  # a data type there is none of
    content = {1: whole[:20] + bytes(range(60)) + whole[80:], 2: gzip.compress(bytes(header)), 3: b""}
    for run, damaged in content.items():
        path.with_name(f"sub-01_task-bad_run-{run}_bold.nii.gz").write_bytes(damaged)
    runs = survey(tree.root, set()).runs
    assert sum(n for (task, _, volumes), n in runs.items() if task == "bad" and volumes is None) == 3


def test_columns_whose_names_differ_in_signs_only_are_two_tasks(tree):
    people = [f"{i:02d}" for i in range(1, 21)]
    tree.good(*people)
    rows = "".join(f"sub-{who}\t{'xy'[i % 2]}\t{'uv'[i % 2]}\n" for i, who in enumerate(people))
    (tree.root / "participants.tsv").write_text(f"participant_id\ta b\ta.b\n{rows}")
    tasks = load(write(tree)).evaluate.tasks
    assert [(task.name, task.column) for task in tasks] == [("a-b", "a b"), ("a-b2", "a.b")]


def test_the_folder_one_stands_in_gives_its_own_name(tree, monkeypatch):
    monkeypatch.chdir(tree.root)
    assert dataset_name(Path(), "", set()) == "ds"


@pytest.mark.data
def test_real_data_sets(real_bids, tmp_path):
    path = tmp_path / "my.yaml"
    roots = [str(real_bids / name) for name in ("pumi", "studyforrest", "ds002748")]
    assert main(["init", *roots, "--out", str(path)]) == 0
    config = load(path)
    assert [d.name for d in config.datasets] == ["pumi", "studyforrest", "ds002748"]
    pumi, forrest, anat = (d.overrides for d in config.datasets)
    assert pumi["clean"]["band_low"] is None
    assert (pumi["clean"]["motion"], pumi["clean"]["tissue"], pumi["clean"]["drift"]) == ("6", "wm_csf", "linear")
    assert forrest == {"clean": {"motion": "6", "compcor": 5}}
    assert anat == {}
    assert config.spaces.template_source == "templateflow"


def arrays(folder, *names, volumes=40, columns=6, **more):
    members = {name: np.random.default_rng(i).normal(size=(volumes, columns)) for i, name in enumerate(names)}
    np.savez(folder / "series.npz", **members, **more)
    return folder / "series.npz"


@pytest.mark.filterwarnings("error")  # a code of the wrong type would print pydantic's
def test_tables_are_described_with_their_phenotypes(tmp_path, capsys):
    path = arrays(tmp_path, "A_1", "B_2", "C_3", __roi__=np.array(list("abcdef")))
    (tmp_path / "other.csv").write_text("x,y\nq,1\nr,2\n")
    (tmp_path / "broken.csv").write_text('a,b\n1,"2\n' + "x,3\n" * 40000)
    (tmp_path / "pheno.csv").write_text("n,FILE_ID,SITE_ID,IQ\n1,A_1,X,100\n2,B_2,Y,-9999\n3,Z_9,Y,90\n")
    out = tmp_path / "my.yaml"
    assert main(["init", str(path), "--out", str(out)]) == 0
    config = load(out)
    (one,) = config.datasets
    assert (one.name, one.kind, one.root, one.atlas) == ("series", "tables", str(path), "series 6")
    assert (one.phenotypes, one.id_column, one.site_column) == ("pheno.csv", "FILE_ID", "SITE_ID")
    assert one.missing == [-9999] and one.pattern == ""
    assert config.models.train == ["brainmass"]
    text = out.read_text()
    assert "3 series of 6 columns and 40 volumes" in text and "    tr: null\n" in text
    assert "prefer:" not in text and "pick:" not in text
    assert "3 subjects" in capsys.readouterr().out


def test_sessions_in_names_get_a_pattern_and_known_parcels_the_configured_atlas(tree, tmp_path):
    names = [f"7Networks_{side}_Vis_{i}" for side in ("LH", "RH") for i in range(1, 4)]
    arrays(tmp_path, "sub-1-a", "sub-1-b", "sub-2-a", names=np.array(names))
    tree.good("01")
    out = tmp_path / "my.yaml"
    assert main(["init", str(tmp_path / "series.npz"), str(tree.root), "--out", str(out)]) == 0
    tables, images = load(out).datasets
    assert (tables.pattern, tables.atlas, tables.phenotypes) == ("sub-{sub}-{ses}", "", "")
    assert (images.kind, images.pattern) == ("raw", "")
    assert len(load(out).models.train) == 3


def test_a_table_of_words_is_no_data_set(tmp_path, capsys):
    (tmp_path / "pheno.csv").write_text("id,site\nA_1,X\nB_2,Y\n")
    out = tmp_path / "my.yaml"
    assert main(["init", str(tmp_path / "pheno.csv"), "--out", str(out)]) == 2 and not out.exists()
    assert "no series" in capsys.readouterr().err


def test_a_link_whose_file_is_not_here_is_no_phenotype_table(tmp_path):
    """As in a DataLad data set before `datalad get`."""
    for who in ("01", "02"):
        np.save(tmp_path / f"sub-{who}_task-rest.npy", np.random.default_rng(1).normal(size=(40, 6)))
    (tmp_path / "participants.tsv").symlink_to(tmp_path / ".git/annex/objects/absent.tsv")
    assert survey(tmp_path, set()).config.phenotypes == ""


def test_a_folder_of_tables_beside_their_phenotypes(tmp_path):
    for name in ("A_1", "B_2"):
        np.savetxt(tmp_path / f"{name}.1D", np.random.default_rng(1).normal(size=(40, 6)))
    (tmp_path / "pheno.csv").write_text("id,site\nA_1,X\nB_2,Y\n")
    out = tmp_path / "out" / "my.yaml"
    assert main(["init", str(tmp_path), "--out", str(out)]) == 0
    (one,) = load(out).datasets
    assert (one.phenotypes, one.id_column) == ("pheno.csv", "id")
    assert main(["ingest", "--config", str(out), "--results", str(tmp_path / "r")]) == 0
    from boldmill.index.read import read_index

    assert {row.scan_id.split("_")[1]: row.site for row in read_index(tmp_path / "r").ok} == {
        "sub-A1": "X",
        "sub-B2": "Y",
    }
