"""Tar files of flat maps: written as published, read by `webdataset`, and imported with the same frames."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boldmill import tables
from boldmill.atomic import read_json, sha256_file
from boldmill.cli import main
from boldmill.errors import BoldmillError, DataFault
from boldmill.shards.datasets import ShardDataset
from boldmill.shards.reader import Snapshot
from boldmill.shards.webdataset import entities_of, index_tar, join_clips, read_run, run_key, write_tar

MASK = np.arange(80).reshape(8, 10) % 3 != 0  # the grid of the cohort
RUNS = 9  # of the cohort; the one of three frames has no clip
CLIPS = ["--clip-frames", "4", "--clip-stride", "4", "--buckets", "3"]


def export(cohort, out: Path, *more: str) -> Path:
    words = ["export", "webdataset", "--snapshot", str(cohort.layout.snapshot("latest")), "--out", str(out)]
    assert main([*words, *more]) == 0
    return out


def imported(tars: list[Path], out: Path, *more: str, status: int = 0) -> Snapshot:
    words = ["import", "webdataset", *map(str, tars), "--name", "other", "--out", str(out), *CLIPS, *more]
    assert main(words) == status
    return Snapshot.load(out / "datasets" / "other" / "manifest.json")


def content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def tars(cohort, tmp_path_factory) -> list[Path]:
    """Two runs in each tar file."""
    out = export(cohort, tmp_path_factory.mktemp("wds"), "--shard-mb", "0.003")
    return sorted(out.glob("flat-*.tar"))


def frames_of(cohort, scan: str) -> np.ndarray:
    return np.load(cohort.frames(scan))["frames"]


def npy(values: np.ndarray, **how: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **how)
    return buffer.getvalue()


def test_a_sample_is_a_run_with_the_published_members(cohort, tars) -> None:
    assert [path.name for path in tars] == [f"flat-{i:05d}.tar" for i in range(len(tars))]
    found: dict[str, bytes] = {}
    for path in tars:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert [m.name for m in members] == sorted(m.name for m in members)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        found |= content(path)
    assert len(found) == 4 * RUNS
    key = "sub-01_mod-rfMRI_task-rest_mag-na_dir-na_run-2"
    assert {name for name in found if name.startswith(key)} == {
        f"{key}.{suffix}" for suffix in ("bold.npy", "mean.npy", "meta.json", "std.npy")
    }
    scan = "toy_sub-01_task-rest_run-2"
    with np.load(cohort.frames(scan)) as flat:
        bold = np.load(io.BytesIO(found[f"{key}.bold.npy"]))
        assert bold.dtype == np.float16
        np.testing.assert_array_equal(bold, flat["frames"][:8])  # two clips of four of ten frames
        np.testing.assert_array_equal(np.load(io.BytesIO(found[f"{key}.mean.npy"])), flat["mean"])
        np.testing.assert_array_equal(np.load(io.BytesIO(found[f"{key}.std.npy"])), flat["std"])
    meta = json.loads(found[f"{key}.meta.json"])
    assert {
        "sub": "01",
        "task": "rest",
        "n_frames": 8,
        "tr": 1.0,
        "tr_in": 2.0,
        "scan_id": scan,
    }.items() <= meta.items()


def test_the_same_snapshot_gives_the_same_bytes(cohort, tars, tmp_path) -> None:
    again = sorted(export(cohort, tmp_path, "--shard-mb", "0.003").glob("*.tar"))
    assert [sha256_file(path) for path in again] == [sha256_file(path) for path in tars]
    manifest = read_json(tmp_path / "flat.json")
    assert manifest["samples"] == sum(s["samples"] for s in manifest["shards"]) == RUNS
    assert all(s["size"] == (tmp_path / s["path"]).stat().st_size for s in manifest["shards"])
    record = read_json(tmp_path / "flat.json.prov.json")
    assert {Path(o["path"]).name for o in record["outputs"]} >= {path.name for path in again}
    assert (
        main(["export", "webdataset", "--snapshot", str(cohort.layout.snapshot("latest")), "--out", str(tmp_path)]) == 2
    )


def test_shuffled_and_filtered(cohort, tmp_path) -> None:
    keys = []
    for folder, more in (("a", ["--shuffle", "1"]), ("b", ["--shuffle", "1"]), ("c", []), ("d", ["--site", "A"])):
        (path,) = export(cohort, tmp_path / folder, *more).glob("*.tar")
        keys.append([sample.key for sample in index_tar(path)[0]])
    assert keys[0] == keys[1] != keys[2] == sorted(keys[0])
    assert 0 < len(keys[3]) < len(keys[2])


def test_the_webdataset_package_reads_them(cohort, tars) -> None:
    import webdataset

    read = webdataset.WebDataset([str(path) for path in tars], shardshuffle=False).decode()
    seen = {}
    for sample in read:
        meta = sample["meta.json"]
        seen[meta["scan_id"]] = sample["bold.npy"]
        assert sample["mean.npy"].shape == sample["std.npy"].shape == (int(MASK.sum()),)
        assert sample["__key__"].startswith(f"sub-{meta['sub']}_mod-")
    for scan, bold in seen.items():
        np.testing.assert_array_equal(bold, frames_of(cohort, scan)[:8])
    assert len(seen) == RUNS


def test_the_webdataset_package_reads_the_first_generation(cohort, tmp_path) -> None:
    import webdataset

    (path,) = export(cohort, tmp_path, "--generation", "v1").glob("*.tar")
    for sample in webdataset.WebDataset(str(path), shardshuffle=False).decode():
        mask = sample["mask.npz"]
        image = np.zeros(mask["shape"], bool)
        image[mask["row"], mask["col"]] = mask["data"]
        np.testing.assert_array_equal(image, MASK)
        assert sample["events.json"] == [] and "mean.npy" not in sample


@pytest.mark.parametrize("generation", ["v2", "v1"])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_what_is_exported_comes_back_the_same(cohort, tmp_path, generation, dtype) -> None:
    out = export(cohort, tmp_path / "wds", "--generation", generation, "--shard-mb", "0.003")
    grid = ["--grid", str(out / "flat-mask.npz")] if generation == "v2" else []
    other = imported(sorted(out.glob("*.tar")), tmp_path / "back", *grid, "--clip-dtype", dtype)
    np.testing.assert_array_equal(other.flat_mask, MASK)
    original = Snapshot.load(cohort.layout.snapshot("latest"))
    rows, theirs = other.rows("flat_clips"), original.rows("flat_clips")
    assert len(rows) == len(theirs)
    for scan in original.scans(having="flat_clips").itertuples():
        key = run_key({**tables.pairs(scan.entities), "sub": scan.subject})
        mine, own = rows.all_of(f"other_{key}"), theirs.all_of(scan.scan_id)
        values = rows.read(mine, "values") * rows.column("scale")[mine][:, None, None].astype(np.float32)
        np.testing.assert_allclose(values, theirs.read(own, "values"), rtol=0, atol=0 if dtype == "float16" else 0.02)
        if dtype == "float16":
            assert rows.read(mine, "values").tobytes() == theirs.read(own, "values").tobytes()
        for name in ("mean", "std"):
            found = rows.find(mine[0], name)
            assert (found is None) == (generation == "v1")
            if found is not None:
                np.testing.assert_array_equal(found, theirs.find(own[0], name))
        assert rows.row(mine[0], ["tr", "tr_in"]) == {"tr": 1.0, "tr_in": 2.0}
    assert len(ShardDataset(other, "flat_clips", split=["train", "validation", "heldout"])) == len(rows)


def test_an_import_is_shards_like_all_others(tars, tmp_path) -> None:
    grid = tars[0].parent / "flat-mask.npz"
    other = imported(tars, tmp_path / "a", "--grid", str(grid), "--grid-name", "toy")
    again = imported(tars, tmp_path / "b", "--grid", str(grid), "--grid-name", "toy")
    assert other.manifest == again.manifest  # hashes of shards included
    assert {s["sha256"] for s in other.manifest["shards"]}
    for shard in other.manifest["shards"]:
        table = pq.read_table(tmp_path / "a" / "datasets" / "other" / shard["path"])
        tables.validate(table, shard["table"])
    other.verify()
    scans = other.scans()
    assert set(scans["subject"]) == {"00", "01", "02", "03", "04", "06", "08"}
    assert set(scans["space"]) == {"toy"} and set(scans["kind"]) == {"surface"}
    record = read_json(tmp_path / "a" / "datasets" / "other" / "manifest.json.prov.json")
    assert [item["sha256"] for item in record["inputs"] if item["path"].endswith(tars[0].name)] == [
        sha256_file(tars[0])
    ]
    row = pq.read_table(other.paths("flat_clips")[0]).to_pylist()[0]
    assert tables.pairs(row["stage_digests"]) == {"import": record["settings_digest"]}
    assert len(row["source_sha256"][0]) == 64
    assert json.loads(other.rows("flat_clips").schemas[0].metadata[b"grid"])["name"] == "toy"
    with pytest.raises(BoldmillError, match="flat maps only"):
        other.scans(having="fc")


def test_another_grid_is_refused(cohort, tars, tmp_path, capsys) -> None:
    np.savez(tmp_path / "wide.npz", components=np.ones((3, 8, 10)))
    other = np.roll(MASK, 1, axis=1)
    assert other.sum() == MASK.sum()
    np.savez(tmp_path / "moved.npz", mask=other)
    (first,) = export(cohort, tmp_path / "v1", "--generation", "v1").glob("*.tar")

    def refused(tar: Path, *more: str) -> str:
        words = ["import", "webdataset", str(tar), "--name", "x", "--out", str(tmp_path / "out"), *CLIPS]
        assert main([*words, *more]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "the grid must be named" in refused(tars[0])
    assert f"{MASK.sum()} pixels, the grid has 80" in refused(tars[0], "--grid", str(tmp_path / "wide.npz"))
    assert "another grid" in refused(first, "--grid", str(tmp_path / "moved.npz"))
    assert "no image" in refused(tars[0], "--grid", str(npz_without_mask(tmp_path)))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "moved.npz").read_bytes()[:100])
    np.save(tmp_path / "plain.npy", MASK)
    for name in ("none.npz", "empty.npz", "cut.npz", "plain.npy"):
        assert "cannot read the grid" in refused(tars[0], "--grid", str(tmp_path / name))
    for seconds in ("0", "-1", "nan"):
        assert "seconds above 0" in refused(first, f"--tr={seconds}")


def npz_without_mask(folder: Path) -> Path:
    np.savez(folder / "other.npz", x=np.ones(3))
    return folder / "other.npz"


def test_a_snapshot_names_a_grid_too(cohort, tars, tmp_path) -> None:
    other = imported(tars[:1], tmp_path, "--grid", str(cohort.layout.snapshot("latest")))
    np.testing.assert_array_equal(other.flat_mask, MASK)


def forged(values: np.ndarray) -> bytes:
    """Return a small npy file that claims to hold more than any memory."""
    head = np.lib.format.header_data_from_array_1_0(values) | {"shape": (10**14, values.shape[1])}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, head)
    return buffer.getvalue()


def test_bad_samples_are_listed_and_stop_nobody(tmp_path) -> None:
    pixels, good = int(MASK.sum()), np.ones((9, int(MASK.sum())), np.float16)
    cases: dict[str, tuple[dict[str, bytes], str]] = {
        "sub-01_task-a": ({"bold.npy": npy(good)}, ""),
        "sub-02_task-a": ({"bold.npy": npy(np.array([{}], object), allow_pickle=True)}, "no plain numpy array"),
        "sub-03_task-a": ({"bold.npy": npy(good[:, :-1])}, f"the grid has {pixels} pixels"),
        "sub-04_task-a": ({"bold.npy": npy(np.full_like(good, np.inf))}, "not all finite"),
        "sub-05_task-a": ({"meta.json": b"{}"}, "no bold.npy"),
        "sub-06_task-a": ({"bold.npy": npy(good), "meta.json": b"{"}, "meta.json is no JSON"),
        "sub-07_task-a": ({"bold.npy": npy(good[:3])}, "3 frames, a clip has 4"),
        "sub-08_task-a": ({"bold.npy": npy(good)[:50]}, "no plain numpy array"),
        "sub-09_task-a": ({"bold.npy": npy((good * 100).astype(np.uint8))}, "uint8, not a z-scored"),
        "sub-10_task-a": ({"bold.npy": npy(good), "std.npy": npy(np.ones(3, "f4"))}, "std.npy has shape (3,)"),
        "sub-11_task-a": ({"bold.npy": npy(good), "meta.json": b'{"tr": "x"}'}, "tr no number"),
        "sub-13_task-a": ({"bold.npy": npy(good), "meta.json": b'{"tr": NaN}'}, "tr no number above 0"),
        "sub-14_task-a": ({"bold.npy": npy(good), "meta.json": b'{"tr_in": -2}'}, "tr no number above 0"),
        "sub-15_task-a": ({"bold.npy": npy(good), "mask.npz": b""}, "mask.npz is no sparse matrix"),
        "sub-16_task-a": ({"bold.npy": npy(good), "mask.npz": b"PK\x03\x04 cut"}, "mask.npz is no sparse matrix"),
        "sub-17_task-a": ({"bold.npy": npy(good), "mask.npz": npy(good)}, "mask.npz is no sparse matrix"),
        "sub-18_task-a": ({"bold.npy": forged(good)}, "no plain numpy array"),
        "sub-12_task-a": ({"bold.npy": npy(good.astype(np.float32) * 1e6)}, "not all finite"),
    }
    write_tar(tmp_path / "x.tar", ((key, members) for key, (members, _) in cases.items()))
    np.savez(tmp_path / "grid.npz", mask=MASK)
    other = imported([tmp_path / "x.tar"], tmp_path / "out", "--grid", str(tmp_path / "grid.npz"), status=3)
    assert list(other.scans()["scan_id"]) == ["other_sub-01_task-a"]
    listed = read_json(tmp_path / "out" / "shards" / "quarantine.json")["scans"]
    assert {name.removeprefix("other_") for name in listed} == {key for key, (_, why) in cases.items() if why}
    for key, (_, why) in cases.items():
        if why:
            assert why in listed[f"other_{key}"]["reason"] and listed[f"other_{key}"]["fix"]


def test_a_tar_cut_short_gives_what_it_has(tars, tmp_path) -> None:
    whole = tars[0].read_bytes()
    first, second = index_tar(tars[0])[0][:2]
    end = second.members["bold.npy"][0]
    grid = ["--grid", str(tars[0].parent / "flat-mask.npz")]
    for cut, name in ((end + 100, "in data"), (end - 600, "in a header")):
        (tmp_path / f"{name}.tar").write_bytes(whole[:cut])
        other = imported([tmp_path / f"{name}.tar"], tmp_path / name, *grid, status=3)
        assert list(other.scans()["scan_id"]) == [f"other_{first.key}"]
        assert read_json(tmp_path / name / "shards" / "quarantine.json")["scans"]


def evil(path: Path, name: str, kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type = kind
        entry.linkname = "/etc/passwd"
        tar.addfile(entry)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../x.bold.npy", tarfile.REGTYPE),
        ("/x.bold.npy", tarfile.REGTYPE),
        ("a/../../x.bold.npy", tarfile.REGTYPE),
        ("x.bold.npy", tarfile.SYMTYPE),
        ("x.bold.npy", tarfile.LNKTYPE),
        ("x.bold.npy", tarfile.CHRTYPE),
    ],
)
def test_members_cannot_escape(tmp_path, name: str, kind: bytes) -> None:
    with pytest.raises(BoldmillError, match="no plain file inside it"):
        index_tar(evil(tmp_path / "x.tar", name, kind))


def test_what_is_no_tar_is_named(tmp_path, tars, capsys) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar" * 200)
    with pytest.raises(BoldmillError, match="not a tar file"):
        index_tar(tmp_path / "x.tar")
    with pytest.raises(BoldmillError, match="not a tar file"):
        index_tar(tmp_path / "missing.tar")
    words = ["import", "webdataset", str(tars[0]), str(tars[0]), "--name", "x", "--out", str(tmp_path / "o")]
    assert main(words) == 1
    assert "sample is there twice" in capsys.readouterr().err


def test_gaps_between_clips_are_refused(cohort, tmp_path, capsys, monkeypatch) -> None:
    from boldmill.shards.rows import TableRows

    original = TableRows.column
    monkeypatch.setattr(TableRows, "column", lambda self, name: original(self, name) * (2 if name == "start" else 1))
    words = ["export", "webdataset", "--snapshot", str(cohort.layout.snapshot("latest")), "--out", str(tmp_path)]
    assert main(words) == 1
    assert "no clip has frames 4 to 7" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.tar"))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 30))
def test_joining_undoes_cutting(length: int, stride: int, n_frames: int) -> None:
    frames = np.arange(n_frames * 3).reshape(n_frames, 3).astype(np.float16)
    starts = list(range(0, n_frames - length + 1, stride))
    if not starts:
        return
    clips = np.stack([frames[start : start + length] for start in starts])
    if stride > length and len(starts) > 1:
        with pytest.raises(DataFault, match="no clip has frames"):
            join_clips(starts, clips, "x")
        return
    np.testing.assert_array_equal(join_clips(starts, clips, "x"), frames[: starts[-1] + length])


def test_clips_that_overlap_must_agree() -> None:
    clips = np.arange(24, dtype=np.float16).reshape(2, 4, 3)
    with pytest.raises(DataFault, match="begins at frame 2 differs"):
        join_clips([0, 2], clips, "x")
    with pytest.raises(DataFault, match="no clip has frames 0 to 0"):
        join_clips([1, 5], clips, "x")


def test_keys_spell_entities() -> None:
    entities = {"sub": "100206", "task": "MOTOR", "mag": "3T", "dir": "LR", "ses": "a b/c"}
    key = run_key(entities)
    assert key == "sub-100206_mod-tfMRI_task-MOTOR_mag-3T_dir-LR_ses-abc"
    assert entities_of(key) == {**entities, "mod": "tfMRI", "ses": "abc"}


def test_published_members_are_read(tmp_path) -> None:
    """A sample as the first generation writes it, by numpy and scipy alone, in a folder."""
    from scipy.sparse import coo_array, save_npz

    frames, mask = np.ones((9, int(MASK.sum())), np.float16), io.BytesIO()
    save_npz(mask, coo_array(MASK), compressed=False)
    key = "hcp/sub-1_mod-tfMRI_task-WM_mag-3T_dir-LR"
    members = {
        "bold.npy": npy(frames),
        "mask.npz": mask.getvalue(),
        "meta.json": b'{"n_frames": 9}',
        "events.json": b"[]",
    }
    write_tar(tmp_path / "x.tar", [(key, members)])
    ((sample,), cut) = index_tar(tmp_path / "x.tar")
    assert cut == ""
    np.testing.assert_array_equal(read_run(sample, int(MASK.sum())).frames, frames)
    other = imported([tmp_path / "x.tar"], tmp_path / "out")
    row = other.scans().iloc[0]
    assert (row["subject"], row["task"]) == ("1", "WM")
    assert tables.pairs(row["entities"])["mag"] == "3T"
