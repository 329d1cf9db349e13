"""`boldmill doctor`: every check in its good and its bad state, and the exit status."""

import os
from pathlib import Path

import pytest

from boldmill.atomic import write_text
from boldmill.cli import main
from boldmill.config.model import Config
from boldmill.index.read import Index, ScanRow
from boldmill.paths import Layout
from boldmill.setup import checks, doctor, machine
from boldmill.setup.checks import Check

SCHAEFER = "Schaefer2018-100Parcels7Networks"


def by_name(found):
    return {check.name: check for check in found}


def test_python_version():
    assert checks.python_version((3, 11, 0)).status == "ok"
    assert checks.python_version((3, 10, 9)).status == "fail"


def test_packages_against_their_pins(monkeypatch):
    versions = {"torch": "2.13.0+cpu", "numpy": "1.0"}

    def version(name):
        if name not in versions:
            raise checks.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(checks.importlib.metadata, "version", version)
    found = by_name(checks.packages(["torch==2.13.0", "numpy==2.4.6", "nilearn==0.13.1"]))
    assert found["packages"].found == "1 at their pinned version"
    assert found["numpy"] == Check("warn", "numpy", "1.0, pinned is 2.4.6", "python -m pip install numpy==2.4.6")
    assert found["nilearn"].status == "fail"
    assert set(found) == {"packages", "numpy", "nilearn"}


def test_pins_are_those_of_the_project():
    assert any(pin.startswith("torch==2.13.0") for pin in checks.pins())
    assert not any("pytest" in pin for pin in checks.pins())


def test_templates_present_empty_and_missing(tmp_path):
    folder = tmp_path / "tpl-MNI152NLin6Asym"
    folder.mkdir()
    (folder / "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz").write_bytes(b"x" * 5000)
    (folder / "tpl-MNI152NLin6Asym_res-02_desc-brain_mask.nii.gz").write_bytes(b"")
    found = by_name(checks.templates(Config(), tmp_path))
    assert found["template T1w"].status == "ok"
    assert "empty placeholder" in found["template brain mask"].found
    assert found[f"template atlas {SCHAEFER}"].status == "fail"
    assert "boldmill fetch" in found[f"template atlas {SCHAEFER}"].fix


def test_brain_only_t1w_is_no_head_template(tmp_path):
    folder = tmp_path / "tpl-MNI152NLin6Asym"
    folder.mkdir()
    (folder / "tpl-MNI152NLin6Asym_res-02_desc-brain_T1w.nii.gz").write_bytes(b"x" * 5000)
    assert by_name(checks.templates(Config(), tmp_path))["template T1w"].status == "fail"


def test_every_file_a_stage_asks_templateflow_for_is_looked_for(tmp_path):
    """Resolution, label names and spheres too: the stages stop without them."""
    more = "Schaefer2018 seg=7n scale=400"
    spaces = {"atlas_source": "templateflow", "surface_source": "templateflow", "further_atlases": [more]}
    config = Config.model_validate({"spaces": spaces})
    folder = tmp_path / "tpl-MNI152NLin6Asym"
    folder.mkdir()
    (folder / "tpl-MNI152NLin6Asym_res-01_T1w.nii.gz").write_bytes(b"x" * 5000)
    found = by_name(checks.templates(config, tmp_path))
    atlases = [
        f"{what} {label}" for label in (SCHAEFER, "Schaefer2018-seg-7n-scale-400") for what in ("atlas", "names of")
    ]
    assert set(found) == {f"template {what}" for what in ("T1w", "brain mask", *atlases, "sphere L", "sphere R")}
    assert {check.status for check in found.values()} == {"fail"}


def test_one_table_of_all_thresholds_of_an_atlas_is_enough(tmp_path):
    """The atlas stage takes it: HOCPA's volumes have a `desc`, its table has none."""
    config = Config.model_validate({"spaces": {"further_atlases": ["HOCPA th25"]}})
    folder = tmp_path / "tpl-MNI152NLin6Asym"
    folder.mkdir()
    (folder / "tpl-MNI152NLin6Asym_atlas-HOCPA_dseg.tsv").write_bytes(b"x" * 5000)
    found = by_name(checks.templates(config, tmp_path))
    assert found["template names of HOCPA-th25"].status == "ok"
    assert found["template atlas HOCPA-th25"].status == "fail"


def test_the_checks_agree_with_real_templateflow_files(real_bids):
    config = Config.model_validate({"spaces": {"surface_source": "templateflow"}})
    found = checks.templates(config, real_bids.parent / "templateflow")
    assert [check.status for check in found] == ["ok"] * 6


def test_missing_package_data_is_named_with_its_package(monkeypatch):
    from boldmill.errors import MachineFault
    from boldmill.spaces import embedded

    def gone():
        raise MachineFault("missing package data", "brainspace/x.csv", "brainspace is not installed", "run `pip`")

    monkeypatch.setattr(embedded, "files", gone)
    found = by_name(checks.data_files())
    assert found["atlas data"].status == "fail" and "brainspace" in found["atlas data"].found
    assert found["fsaverage5 data"].status == "ok"


def test_embedded_sources_need_no_template_files(tmp_path):
    spaces = {
        "template_source": "demo",
        "atlas_source": "embedded",
        "demo_template": str(tmp_path),
        "flat": "fsaverage5",
    }
    assert [check.status for check in checks.templates(Config.model_validate({"spaces": spaces}), tmp_path)] == ["ok"]


def test_links_of_the_clone(tmp_path):
    (tmp_path / "profiles/slurm").mkdir(parents=True)
    (tmp_path / "slurm").symlink_to("profiles/slurm")
    (tmp_path / "local").write_text("profiles/local")
    found = by_name(machine.clone(tmp_path))
    assert found["link slurm"].status == "ok"
    assert (found["link local"].status, found["link local"].found) == ("fail", "a text file (core.symlinks=false)")
    assert "core.symlinks true" in found["link local"].fix
    assert found["git"].status == "warn"
    (tmp_path / "slurm").unlink()
    assert by_name(machine.clone(tmp_path))["link slurm"].found == "missing"


def test_index_absent_fresh_and_stale(tree):
    config = Config.model_validate(tree.settings())
    assert checks.index(config).status == "warn"
    tree.good("01")
    tree.ingest()
    assert checks.index(config) == Check("ok", "index", "1 scans, 0 quarantined")
    other = Config.model_validate(tree.settings(site="B"))
    assert checks.index(other).found == "made with other settings"


def test_data_sets(tree):
    config = Config.model_validate(tree.settings(root=str(tree.base / "nowhere")))
    assert checks.datasets(config)[0].status == "fail"
    assert checks.datasets(Config.model_validate(tree.settings()))[0].status == "ok"


def test_the_disk_that_is_needed_is_that_of_the_plan(tree):
    """Images are not kept unless the configuration says so; what is done needs no more room."""
    config = Config.model_validate(tree.settings() | {"results": str(tree.base / "results")})
    rows = [scan(f"{bucket}{i:02d}", bucket) for bucket in (0, 1) for i in range(50)]
    index = Index(Path(config.results), rows)
    bare = machine.expected_bytes(index, config)
    assert bare / 100 < 200 * 2**20  # 300 volumes, nothing of 4D but clips
    kept = config.model_copy(update={"preprocess": config.preprocess.model_copy(update={"keep": ["clean", "preproc"]})})
    voxels = 182 * 218 * 182 / config.spaces.resolution**3
    expected = bare + 100 * 300 * voxels * 4 * 2 * 2 / 3
    assert machine.expected_bytes(index, kept) == pytest.approx(expected, rel=1e-3)
    write_text(Layout.at(config.results).shard("scans", 1), "made")
    assert machine.expected_bytes(index, config) == pytest.approx(bare / 2, rel=1e-3)


def scan(subject: str, bucket: int) -> ScanRow:
    known = {"dataset": "a", "subject": subject, "kind": "volume", "status": "ok", "bucket": bucket, "n_volumes": 300}
    return ScanRow(**dict.fromkeys(ScanRow._fields, "") | known | {"scan_id": f"a_sub-{subject}"})


def test_folders_that_are_closed_to_us_and_no_git_are_checks_that_say_so(tree, monkeypatch):
    access, is_dir = os.access, Path.is_dir

    def closed_dir(path: Path) -> bool:
        if "closed/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(os, "access", lambda path, mode: "closed/" not in str(path) and access(path, mode))
    monkeypatch.setattr(Path, "is_dir", closed_dir)
    (tree.base / "closed").mkdir()
    closed = str(tree.base / "closed" / "x")
    assert checks.standing(Path(closed)) == tree.base / "closed"
    config = Config.model_validate(tree.settings(root=closed) | {"results": closed})
    assert checks.datasets(config)[0].status == "fail" and checks.index(config).status == "warn"
    monkeypatch.setenv("PATH", "/nonexistent")
    assert machine.clone()[-1].found == "git cannot be run"


def test_full_disk_fails(tree, monkeypatch):
    usage = type("Usage", (), {"free": 1 << 20})()
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    found = by_name(machine.machine(Config.model_validate(tree.settings())))
    assert found["disk"].status == "fail"


def test_slurm_absent_is_fine_and_dead_controller_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.slurm().status == "ok"
    for name, body in (("sbatch", "exit 0"), ("sinfo", "echo 'cannot contact slurmctld' >&2; exit 1")):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
    assert machine.slurm().found == "sbatch is there, but cannot contact slurmctld"


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_exit_status(tree, monkeypatch, capsys, status, code):
    monkeypatch.setattr(doctor, "all_checks", lambda config: [Check(status, "thing", "found", "do this")])
    assert main(["doctor", "--config", str(tree.config())]) == code
    assert "fix: do this" in capsys.readouterr().out


def test_all_checks_run_here(tree):
    found = doctor.all_checks(Config.model_validate(tree.settings()))
    assert {"python", "packages", "GPU", "SLURM", "disk", "index"} <= {check.name for check in found}
    assert all(check.fix for check in found if check.status != "ok")


def test_engines_are_listed_and_a_chosen_one_that_is_absent_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_name(checks.engines(Config()))
    assert found["default engines"].status == "ok"
    assert found["motion: fsl"] == Check("ok", "motion: fsl", "not usable (optional): mcflirt not on PATH")
    config = Config.model_validate({"preprocess": {"engines": {"motion": "fsl"}}})
    asked = by_name(checks.engines(config))["motion: fsl"]
    assert asked.status == "fail" and "install FSL" in asked.fix and asked.found.startswith("chosen, but mcflirt")
    program = tmp_path / "mcflirt"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert by_name(checks.engines(config))["motion: fsl"].found == f"MCFLIRT: {program} (chosen)"


def test_further_output_spaces_need_their_templates(tmp_path):
    config = Config.model_validate({"preprocess": {"output_spaces": ["MNI152NLin2009cAsym:res-2", "T1w"]}})
    name = "template MNI152NLin2009cAsym"
    found = by_name(checks.templates(config, tmp_path))[name]
    assert found.status == "fail" and "tpl-MNI152NLin2009cAsym (resolution 2, suffix T1w, desc brain" in found.found
    folder = tmp_path / "tpl-MNI152NLin2009cAsym"
    folder.mkdir()
    for ending in ("T1w", "mask"):
        (folder / f"tpl-MNI152NLin2009cAsym_res-01_desc-brain_{ending}.nii.gz").write_bytes(b"x" * 5000)
    assert by_name(checks.templates(config, tmp_path))[name].status == "ok"


def test_tables_of_their_own_atlas_ask_for_no_template(tmp_path):
    own = {"name": "a", "root": str(tmp_path / "a.npz"), "kind": "tables", "atlas": "HO"}
    (tmp_path / "a.npz").write_bytes(b"x")
    config = Config.model_validate({"datasets": [own]})
    (only,) = checks.templates(config, tmp_path)
    assert only.status == "ok" and "not needed" in only.found
    assert checks.datasets(config) == [Check("ok", "data set a", str(tmp_path / "a.npz"))]
    mixed = Config.model_validate({"datasets": [own, {**own, "name": "b", "atlas": ""}]})
    assert any(check.status == "fail" for check in checks.templates(mixed, tmp_path))
    (tmp_path / "a.mat").write_bytes(b"x")
    wrong = Config.model_validate({"datasets": [{**own, "root": str(tmp_path / "a.mat")}]})
    assert "no table of parcel series" in checks.datasets(wrong)[0].found
