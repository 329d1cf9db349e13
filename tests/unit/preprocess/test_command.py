"""The command on a phantom subject: manifest, reuse, quarantine, stale index."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.config.load import parse
from boldmill.errors import ConfigError, MachineFault
from boldmill.preprocess import raw
from boldmill.preprocess.images import read_volume, write_volume
from boldmill.preprocess.scratch import scratch
from boldmill.stages import stage_json

from .one_subject import FAST, N_VOLUMES, call, entry, make_ticket, settings


@pytest.fixture
def base(finished: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    for path in (copy / "results" / "index" / "tickets").glob("*.json"):
        write_json(path, {**read_json(path), "root": str(copy / "raw")})
    return copy


def manifest(base: Path) -> dict[str, Any]:
    return dict(read_json(base / "results" / "preprocess" / "ph" / "sub-01.json"))


def derived(base: Path) -> dict[str, str]:
    results = base / "results"
    return {
        p.relative_to(results).as_posix(): sha256_file(p) for p in (results / "derivatives").rglob("*") if p.is_file()
    }


def test_manifest_names_files_that_exist_and_nothing_is_left_in_scratch(finished: Path) -> None:
    found = manifest(finished)
    assert found["anat"]["status"] == "ok", found["anat"]
    scan = found["scans"]["ph_sub-01_task-rest_run-1"]
    assert scan["status"] == "ok", scan
    assert (scan["tr"], scan["n_volumes"], scan["space"]) == (2.0, N_VOLUMES, "PHANTOM")
    for key in ("t1w_template", "gm", "wm", "csf", "jacobian", "brain_mask", "t1w", "t1w_mask"):
        assert (finished / "results" / found["anat"]["files"][key]).is_file()
    for key in ("recipe", "mask", "confounds", "boldref"):
        assert (finished / "results" / scan["files"][key]).is_file()
    assert not list((finished / "results").rglob("*.pklz"))
    assert not (finished / "results" / "work").exists()  # no empty folder either
    described = read_json(finished / "results" / "derivatives" / "ph" / "dataset_description.json")
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "boldmill"


def test_every_derived_image_has_a_sidecar_with_its_sources(finished: Path) -> None:
    images = list((finished / "results" / "derivatives").rglob("*.nii.gz"))
    assert len(images) > 15
    for image in images:
        side = read_json(image.with_name(image.name.removesuffix(".nii.gz") + ".json"))
        assert side["Sources"], image
        assert all(uri.startswith("bids:") for uri in side["Sources"])


def test_provenance_names_inputs_and_outputs(finished: Path) -> None:
    record = read_json(finished / "results" / "preprocess" / "ph" / "sub-01.json.prov.json")
    inputs = " ".join(item["path"] for item in record["inputs"])
    for name in ("sub-01_T1w.nii.gz", "run-1_bold.nii.gz", "template.json", "head.nii.gz", "run-1.json"):
        assert name in inputs
    outputs = {Path(item["path"]).name for item in record["outputs"]}
    assert "sub-01_space-PHANTOM_label-GM_probseg.nii.gz" in outputs
    assert "dataset_description.json" in outputs
    assert "anat" in record["cost_cpu_s"]


def test_the_same_input_gives_the_same_bytes(base: Path) -> None:
    first, text = derived(base), (base / "results" / "preprocess" / "ph" / "sub-01.json").read_bytes()
    shutil.rmtree(base / "results" / "derivatives")
    shutil.rmtree(base / "results" / "preprocess")
    assert call(base, settings()) == 0
    second = derived(base)
    name = "derivatives/ph/dataset_description.json"  # holds the root of the raw data, which moved with the copy
    del first[name], second[name]
    assert first == second
    assert (base / "results" / "preprocess" / "ph" / "sub-01.json").read_bytes() == text


def steps(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = capsys.readouterr().err.splitlines()
    done = [line.split(": ") for line in lines if not line.startswith(" ") and ": " in line]
    return {name: "reused" if "reused" in text else text.split()[0] for name, text, *_ in done if text != "start"}


def test_a_second_run_of_the_subject_reuses_the_first(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = derived(base)
    make_ticket(base, 2)
    assert call(base, settings()) == 0
    assert steps(capsys) == {
        "anat": "reused",
        "ph_sub-01_task-rest_run-1": "reused",
        "ph_sub-01_task-rest_run-2": "done",
    }
    after = derived(base)
    assert all(after[name] == digest for name, digest in before.items() if not name.endswith("description.json"))
    assert manifest(base)["scans"]["ph_sub-01_task-rest_run-2"]["status"] == "ok"
    recipe = base / "results" / manifest(base)["scans"]["ph_sub-01_task-rest_run-1"]["files"]["recipe"]
    assert read_json(recipe)["root"] == str(base / "raw")  # the copy: else `boldmill apply` would look where it was
    (
        base / "results" / "index" / "tickets" / "ph_sub-01_task-rest_run-2.json"
    ).unlink()  # a scan that left the index leaves no files
    assert call(base, settings()) == 0
    assert set(steps(capsys).values()) == {"reused"}
    assert set(derived(base)) == set(before)
    assert not list((base / "results" / "preprocess" / "ph").rglob("*run-2*"))


def test_a_cleaning_setting_redoes_the_run_but_not_anatomy_motion_and_coregistration(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = derived(base)
    assert call(base, settings(tissue="wm_csf")) == 0
    said = capsys.readouterr().err
    for step in ("motion", "coregistration"):
        assert f"  {step}: unchanged, reused" in said
    assert "anat: unchanged, reused" in said and "run-1: done" in said
    after = derived(base)
    assert before.keys() == after.keys()
    assert all(before[name] == after[name] for name in before if "_xfm" in name or "_boldref" in name)
    # without what was remembered the same bytes come out
    shutil.rmtree(base / "results" / "preprocess" / "ph" / ".cache")
    assert call(base, settings(tissue="wm_csf")) == 0
    assert derived(base) == after and "  motion: unchanged" not in capsys.readouterr().err


def test_a_motion_setting_redoes_the_motion(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = stage_json(
        parse({**FAST, "preprocess": {**FAST["preprocess"], "motion_reference": "mean"}}), "preprocess", "ph"
    )
    assert call(base, text) == 0
    said = capsys.readouterr().err
    assert "anat: unchanged, reused" in said and "  motion: unchanged" not in said
    record = manifest(base)["scans"]["ph_sub-01_task-rest_run-1"]
    assert record["status"] == "ok" and record["qc"]["mean_fd"] < 0.3


def test_a_damaged_memory_is_not_believed(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (base / "results" / "preprocess" / "ph" / ".cache").rglob("motion/boldref.nii.gz"):
        path.write_bytes(path.read_bytes()[:-3])
    before = derived(base)
    assert call(base, settings(tissue="wm_csf")) == 0
    said = capsys.readouterr().err
    assert "  motion: unchanged" not in said and "  coregistration: unchanged, reused" in said
    assert all(derived(base)[name] == before[name] for name in before if "_boldref" in name)


def test_a_damaged_output_is_made_again(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = base / "results" / manifest(base)["scans"]["ph_sub-01_task-rest_run-1"]["files"]["mask"]
    good = path.read_bytes()
    path.write_bytes(good[:-10])
    assert call(base, settings()) == 0
    assert steps(capsys)["ph_sub-01_task-rest_run-1"] == "done"
    assert path.read_bytes() == good


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_corrupt_t1w_quarantines_every_volume_scan(base: Path) -> None:
    cut(base / "raw" / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    make_ticket(base, 1)
    make_ticket(base, 2)
    assert call(base, settings()) == 0
    found = manifest(base)
    assert found["anat"]["status"] == "quarantined"
    assert "T1w" in found["anat"]["reason"] and found["anat"]["fix"]
    assert len(found["scans"]) == 2
    for scan in found["scans"].values():
        assert scan["status"] == "quarantined"
        assert scan["reason"] == found["anat"]["reason"]
        assert scan["stage"] == "preprocess"
    left = [name for name in derived(base) if "/sub-" in name]
    assert left == []  # nothing of the earlier, good run lies about


def test_a_corrupt_run_quarantines_only_itself(base: Path) -> None:
    cut(base / "raw" / "sub-01" / "func" / "sub-01_task-rest_run-2_bold.nii.gz")
    make_ticket(base, 2)
    assert call(base, settings()) == 0
    found = manifest(base)
    assert found["anat"]["status"] == "ok"
    assert found["scans"]["ph_sub-01_task-rest_run-1"]["status"] == "ok"
    bad = found["scans"]["ph_sub-01_task-rest_run-2"]
    assert bad["status"] == "quarantined"
    assert bad["files"] == {}
    assert "Traceback" not in bad["reason"]


def test_an_unknown_output_space_stops_the_job_before_anything_is_computed(base: Path) -> None:
    text = stage_json(parse({**FAST, "preprocess": {"output_spaces": ["PHANTOMM:res-2"]}}), "preprocess", "ph")
    with pytest.raises(ConfigError, match="did you mean 'PHANTOM'"):
        call(base, text)


def test_no_t1w_at_all(base: Path) -> None:
    path = make_ticket(base, 1)
    write_json(path, {**read_json(path), "t1w": []})
    assert call(base, settings()) == 0
    found = manifest(base)
    assert found["anat"]["status"] == "absent"
    assert found["scans"]["ph_sub-01_task-rest_run-1"]["reason"].startswith("no T1w")
    assert not list((base / "results" / "derivatives" / "ph").rglob("sub-01_*"))


def test_several_t1w_take_the_first_and_say_so(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = base / "raw" / "sub-01" / "anat"
    shutil.copy(folder / "sub-01_T1w.nii.gz", folder / "sub-01_run-2_T1w.nii.gz")
    path = make_ticket(base, 1)
    ticket = read_json(path)
    ticket["t1w"].append(entry(base / "raw", folder / "sub-01_run-2_T1w.nii.gz", session=""))
    write_json(path, ticket)
    assert call(base, settings()) == 0
    assert manifest(base)["anat"]["flags"][-1] == "several_t1w: used sub-01/anat/sub-01_T1w.nii.gz of 2"
    assert steps(capsys)["anat"] == "reused"


def test_another_template_image_is_not_mistaken_for_the_old_one(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The manifest names files, not their content: equal manifests do not make equal templates."""
    path = base / "results" / "templates" / "gm.nii.gz"
    image = read_volume(path)
    write_volume(path, image.data * 0.98, image.affine, template=True)
    assert call(base, settings()) == 0
    assert steps(capsys) == {"anat": "done", "ph_sub-01_task-rest_run-1": "done"}


def test_scratch_leaves_the_folders_of_other_jobs(tmp_path: Path) -> None:
    base = tmp_path / "work"
    with scratch(base, "ph", "sub-01") as mine:
        (mine / "big.npy").write_bytes(b"x")
        with scratch(base, "ph", "sub-02") as other:
            assert other.is_dir() and not list(other.iterdir())
        assert mine.is_dir() and not other.exists()
    assert not base.exists()


def test_a_file_known_by_its_annex_key_alone_has_an_identity() -> None:
    """A ticket without sha256 carries ``annex_key``: without it a step would be reused after the content changed."""
    one, two = ({"path": "a", "size": 1, "sha256": None, "annex_key": f"MD5E-s1--{c}.nii.gz"} for c in "ab")
    assert raw.identity(one) != raw.identity(two)
    assert raw.identity({**one, "sha256": "abc"}) == "abc"
    with pytest.raises(MachineFault, match="no sha256 and no git-annex key"):
        raw.identity({"path": "a", "size": 1, "sha256": None})


def vanish(path: Path) -> None:
    path.unlink()


def same_size(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(("damage", "why"), [(vanish, "vanished"), (cut, "changed"), (same_size, "changed")])
def test_a_stale_index_fails_the_job(base: Path, damage: Callable[[Path], None], why: str) -> None:
    damage(base / "raw" / "sub-01" / "func" / "sub-01_task-rest_run-1_bold.nii.gz")
    with pytest.raises(MachineFault, match=f"{why}.*snakemake ingest"):
        call(base, settings())


def test_a_fault_that_is_not_the_datas_propagates(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from boldmill.preprocess import anat_interfaces

    def broken(*_: Any, **__: Any) -> None:
        raise MemoryError("no memory left")

    monkeypatch.setattr(anat_interfaces, "n4", broken)
    shutil.rmtree(base / "results" / "preprocess")
    with pytest.raises(Exception, match="no memory left"):
        call(base, settings())
    assert not (base / "results" / "preprocess" / "ph" / "sub-01.json").exists()
    assert not (base / "results" / "work").exists()
