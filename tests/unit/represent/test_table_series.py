"""Tables of parcel series at the parcellate stage: read by their ticket, and brought to an atlas."""

import json
from pathlib import Path

import numpy as np
import pytest

from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.errors import MachineFault
from boldmill.index.command import ingest
from boldmill.provenance.hashing import look
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.trace import trace
from boldmill.represent import parcellate_command
from boldmill.represent.table_series import table_series
from boldmill.stages import Settings, stage_json

T, C = 30, 5
NAMES = [f"7Networks_{name}" for name in ("LH_Vis_1", "LH_Vis_2", "RH_Vis_1", "RH_Default_1", "RH_Limbic_1")]


def series(seed: int, columns: int = C) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((T, columns)).astype(np.float32)


def config(tmp_path: Path, **dataset):
    entry = {"name": "ds", "root": str(tmp_path / "all.npz"), "kind": "tables", **dataset}
    return parse({"results": str(tmp_path / "results"), "datasets": [entry], "shards": {"n_buckets": 1}})


def tickets(tmp_path: Path, **dataset) -> dict[str, dict]:
    ingest(Settings(stage_json(config(tmp_path, **dataset), "ingest")), tmp_path / "results")
    found = sorted((tmp_path / "results" / "index" / "tickets").glob("*.json"))
    return {path.stem.removeprefix("ds_sub-"): json.loads(path.read_text()) for path in found}


def test_values_are_those_of_the_file_and_columns_without_data_are_nan(tmp_path):
    values = series(1).astype(np.float64)
    values[:, 1] = 0
    values[3, 2] = np.inf
    np.savez(tmp_path / "all.npz", names=np.array(NAMES), a=values, b=series(2))
    found = tickets(tmp_path)
    names, read = table_series(found["a"])
    assert names == NAMES
    assert read.dtype == np.float32 and read.shape == (T, C)
    assert np.isnan(read[:, 1:3]).all()
    np.testing.assert_array_equal(read[:, [0, 3, 4]], values[:, [0, 3, 4]].astype(np.float32))


def test_columns_without_names_are_numbered_and_text_tables_are_read(tmp_path):
    np.savez(tmp_path / "all.npz", a=series(1), b=series(2))
    assert table_series(tickets(tmp_path)["a"])[0] == [f"column_{i:03d}" for i in range(1, 6)]
    np.savetxt(tmp_path / "one.tsv", series(3), delimiter="\t", header="\t".join("abcde"), comments="", fmt="%.9g")
    names, read = table_series(tickets(tmp_path, root=str(tmp_path / "one.tsv"))["one"])
    assert names == list("abcde")
    np.testing.assert_array_equal(read, series(3))


def test_names_of_a_label_table_win(tmp_path):
    np.savez(tmp_path / "all.npz", a=series(1))
    (tmp_path / "labels.tsv").write_text("index\tname\n" + "".join(f"{i}\tp{i}\n" for i in range(1, 6)))
    (ticket,) = tickets(tmp_path, labels="labels.tsv").values()
    assert table_series(ticket)[0] == ["p1", "p2", "p3", "p4", "p5"]
    (tmp_path / "labels.tsv").write_text("".join(f"{i}\tq{i}\n" for i in range(1, 6)))
    with pytest.raises(MachineFault, match=r"other names now.*snakemake ingest"):
        table_series(ticket)


def test_a_source_that_changed_since_ingest_is_refused(tmp_path):
    np.savez(tmp_path / "all.npz", a=series(1), b=series(2))
    found = tickets(tmp_path)
    np.savez(tmp_path / "all.npz", a=series(1), b=series(9), c=series(3))
    np.testing.assert_array_equal(table_series(found["a"])[1], series(1))  # another member changes nothing
    with pytest.raises(MachineFault, match="'b' is not what ingest saw"):
        table_series(found["b"])
    np.savez(tmp_path / "all.npz", a=series(1))
    with pytest.raises(MachineFault, match="holds no 'b'"):
        table_series(found["b"])
    (tmp_path / "all.npz").unlink()
    with pytest.raises(MachineFault, match="snakemake ingest"):
        table_series(found["a"])


def parcellate(tmp_path: Path, **dataset):
    cfg = config(tmp_path, **dataset)
    paths = sorted((tmp_path / "results" / "index" / "tickets").glob("*.json"))
    out = tmp_path / "results" / "parcellate" / "bucket-000.json"
    words = ["parcellate", "--subjects", "--tables", *map(str, paths), "--operators"]
    words += ["--results", str(tmp_path / "results"), "--out", str(out), "--config-json", stage_json(cfg, "parcellate")]
    assert main(words) == 0
    return json.loads(out.read_text())


def test_an_atlas_of_their_own_needs_no_operators(tmp_path):
    values = series(1)
    values[:, 1] = 0
    np.savez(tmp_path / "all.npz", names=np.array(list("abcde")), a=values, b=series(2))
    own = {"atlas": "HO 5", "tr": 2.5}
    tickets(tmp_path, **own)
    manifest = parcellate(tmp_path, **own)
    assert (manifest["configured"], manifest["subjects"]) == ([], {})
    assert manifest["atlases"] == {"HO-5": {"name": "HO 5", "parcels": list("abcde")}}
    one = manifest["scans"]["ds_sub-a"]
    assert (one["status"], one["kind"], one["tr"], one["n_volumes"]) == ("ok", "table", 2.5, T)
    assert one["flags"] == ["1 of 5 columns without data: b"]
    file = tmp_path / "results" / one["atlases"]["HO-5"]["files"]["timeseries"]
    header, *rows = file.read_text().splitlines()
    assert header == "a\tb\tc\td\te" and {row.split("\t")[1] for row in rows} == {"n/a"}
    record = json.loads(Path(f"{tmp_path}/results/parcellate/bucket-000.json.prov.json").read_text())
    member = next(item for item in record["inputs"] if item["path"].endswith("all.npz::a"))
    assert look(member["path"]).sha256 == member["sha256"]
    results = tmp_path / "results"
    lines = trace(Ledger.of_records(results), f"{results}/parcellate/bucket-000.json#scan=ds_sub-a")
    assert any("all.npz::a " in line for line in lines) and not any("all.npz::b " in line for line in lines)
    np.savez(tmp_path / "all.npz", names=np.array(list("abcde")), a=series(8))
    assert look(member["path"]).sha256 not in (None, member["sha256"])
    gone = look(f"{tmp_path}/all.npz::b")
    assert gone.sha256 is None and "cannot be read" in gone.why


class Bench:
    """Operators of a configured atlas of five parcels."""

    atlases = ("Schaefer2018-5Parcels7Networks",)

    def __init__(self, results: Path = Path()) -> None:
        self.results = results

    def atlas_name(self, _label: str) -> str:
        return "Schaefer2018 5Parcels7Networks"

    def parcels(self, _label: str) -> list[str]:
        return NAMES


@pytest.mark.parametrize(
    ("names", "atlas", "reason", "order"),
    [
        ([NAMES[i] for i in (4, 3, 2, 1, 0)], "", "", [4, 3, 2, 1, 0]),
        ([NAMES[i] for i in (4, 3, 2, 1, 0)], "Schaefer2018 5Parcels7Networks", "", [4, 3, 2, 1, 0]),
        (None, "Schaefer2018 5Parcels7Networks", "", [0, 1, 2, 3, 4]),
        (None, "", "could be of any atlas", None),
        (list("abcde"), "", "the configured atlas is", None),
    ],
)
def test_columns_are_matched_to_the_configured_atlas(tmp_path, monkeypatch, names, atlas, reason, order):
    members = {"a": series(1), **({"names": np.array(names)} if names else {})}
    np.savez(tmp_path / "all.npz", **members)
    found = tickets(tmp_path, atlas=atlas, pattern="{sub}")
    (ticket,) = found.values()
    entry = parcellate_command._one_table(Bench(tmp_path / "results"), _Record(), ticket, _known())
    if reason:
        assert entry["status"] == "quarantined" and reason in entry["reason"] and entry["kind"] == "table"
        return
    assert entry["status"] == "ok"
    file = tmp_path / "results" / entry["atlases"][Bench.atlases[0]]["files"]["timeseries"]
    assert file.read_text().splitlines()[0] == "\t".join(NAMES)
    read = np.genfromtxt(file, skip_header=1, delimiter="\t")
    np.testing.assert_allclose(read, series(1)[:, order], rtol=1e-6)
    assert any("columns of the table taken" in flag for flag in entry["flags"])


def _known():
    return {label: {"name": Bench().atlas_name(label), "parcels": NAMES} for label in Bench.atlases}


class _Record:
    def add_input(self, *_args) -> None: ...
    def add_output(self, *_args) -> None: ...
