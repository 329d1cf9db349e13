"""Ingest of data sets of tables: what becomes a scan, what is refused and why, and what a change touches."""

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boldmill.config.load import parse
from boldmill.errors import ConfigError, DataFault
from boldmill.index.command import ingest
from boldmill.index.parcel_tables import read_labels
from boldmill.index.read import read_index
from boldmill.index.table_files import array_sha256, examine_table
from boldmill.stages import Settings, stage_json

T, C = 30, 5


def series(seed: int, volumes: int = T, columns: int = C) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((volumes, columns)).astype(np.float32)


class Study:
    """A folder with tables, and what ingest makes of it."""

    def __init__(self, base: Path) -> None:
        self.base, self.root, self.results = base, base / "ds", base / "results"
        self.root.mkdir()

    def npz(self, name: str = "all.npz", **members: np.ndarray) -> Path:
        np.savez(self.root / name, **members)
        return self.root / name

    def raw(self, members: dict[str, bytes], name: str = "all.npz") -> Path:
        """Write an archive of given bytes."""
        with zipfile.ZipFile(self.root / name, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return self.root / name

    def rows(self, **dataset):
        config = {"name": "ds", "root": str(self.root), "kind": "tables", **dataset}
        raw = {"results": str(self.results), "datasets": [config], "shards": {"n_buckets": 8}}
        ingest(Settings(stage_json(parse(raw), "ingest")), self.results)
        return {row.scan_id.removeprefix("ds_"): row for row in read_index(self.results).scans}

    def ticket(self, scan: str):
        return json.loads((self.results / "index" / "tickets" / f"ds_{scan}.json").read_text())

    def tickets(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.results / "index" / "tickets").iterdir()}

    def table(self, name: str) -> list[list[str]]:
        return [line.split("\t") for line in (self.results / "index" / name).read_text().splitlines()[1:]]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def npy(values: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, **options)
    return buffer.getvalue()


def test_a_member_is_a_scan_with_the_hash_of_its_own_content(study):
    values = series(1)
    study.npz(__roi__=np.array(["10", "20", "30", "40", "50"]), Pitt_0050003=values, NYU_1=series(2, 40))
    rows = study.rows(atlas="HO111", tr=2.0)
    assert {s: (r.kind, r.tr, r.n_volumes, r.status) for s, r in rows.items()} == {
        "sub-Pitt0050003": ("table", 2.0, T, "ok"),
        "sub-NYU1": ("table", 2.0, 40, "ok"),
    }
    ticket = study.ticket("sub-Pitt0050003")
    by_hand = hashlib.sha256(b"<f4 (30, 5)\n" + values.tobytes()).hexdigest()
    assert ticket["series"] == [{"path": "all.npz", "member": "Pitt_0050003", "size": values.nbytes, "sha256": by_hand}]
    assert (ticket["atlas"], ticket["name"], ticket["root"]) == ("HO111", "Pitt_0050003", str(study.root))
    assert ticket["columns"]["named"] and ticket["columns"]["n"] == C
    assert study.table("quarantine.tsv") == []


def test_another_member_or_a_touched_file_changes_one_ticket(study, monkeypatch):
    members = {f"p{i}": series(i) for i in range(6)}
    path = study.npz(**members)
    study.rows()
    before = study.tickets()
    times = {p: p.stat().st_mtime_ns for p in (study.results / "index" / "tickets").iterdir()}
    study.npz(**members, p9=series(9))
    study.rows()
    after = study.tickets()
    assert set(after) - set(before) == {"ds_sub-p9.json"}
    assert all(after[name] == content for name, content in before.items())
    assert {p: p.stat().st_mtime_ns for p in times} == times  # not even touched
    study.npz(**{**members, "p2": series(99)}, p9=series(9))
    study.rows()
    assert {name for name, content in study.tickets().items() if after[name] != content} == {"ds_sub-p2.json"}
    from boldmill.index import table_cache

    def never(path):
        raise AssertionError(f"read {path}")

    monkeypatch.setattr(table_cache, "examine_table", never)
    study.rows()  # unchanged: nothing is read
    monkeypatch.undo()
    seen = []
    examine = table_cache.examine_table
    monkeypatch.setattr(table_cache, "examine_table", lambda path: (seen.append(path), examine(path))[1])
    study.npz("more.npz", q=series(7))
    study.rows()
    assert seen == [study.root.absolute() / "more.npz"]
    assert path.exists()


def test_a_member_that_is_gone_leaves_a_tombstone(study):
    study.npz(a=series(1), b=series(2))
    study.rows()
    study.npz(a=series(1))
    study.rows(files=["all.npz"], pattern="{sub}")
    assert [row[0] for row in study.table("tombstones.tsv")] == ["ds_sub-b"]


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


BAD = {
    "pickled": (npy(np.array([{"a": 1}], dtype=object), allow_pickle=True), "pickled"),
    "evil": (pickle.dumps(Evil()), "no sound .npy array"),
    "line": (npy(series(1)[:, 0]), "its shape is (30,)"),
    "cube": (npy(np.zeros((3, 3, 3))), "its shape is (3, 3, 3)"),
    "words": (npy(np.full((T, C), "a")), "not numbers"),
    "complex": (npy(series(1) * 1j), "not numbers"),
    "nan": (npy(np.full((T, C), np.nan)), "no column of it varies"),
    "zero": (npy(np.zeros((T, C))), "no column of it varies"),
    "flat": (npy(np.ones((T, C))), "no column of it varies"),
    "none": (npy(np.zeros((0, C))), "its shape is (0, 5)"),
    "short": (npy(series(3, 10)), "fewer than the 20 of index.min_volumes"),
    "narrow": (npy(series(3, columns=4)), "4 columns, most series of the data set have 5"),
    "turned": (npy(series(3, 24).T), "24 columns"),
    "cut": (npy(series(4))[:-40], "bytes promised"),
    "empty": (b"", "no sound .npy array"),
}


def test_bad_members_are_quarantined_by_name_and_all_else_goes_on(study):
    good = {f"good{i}.npy": npy(series(i)) for i in range(len(BAD) + 1)}
    study.raw({**good, **{f"{name}.npy": content for name, (content, _) in BAD.items()}})
    rows = study.rows()
    assert sum(row.ok for row in rows.values()) == len(good)
    for name, (_, reason) in BAD.items():
        row = rows[f"sub-{name}"]
        assert row.status == "quarantined" and reason in row.reason, (name, row.reason)
        assert row.fix and row.ticket == ""
    listed = {row[0]: row for row in study.table("quarantine.tsv")}
    assert set(listed) == {f"ds_sub-{name}" for name in BAD}
    assert listed["ds_sub-line"][-1] == f"{study.root}/all.npz:line"


def test_a_series_of_other_orientation_is_told(study):
    study.npz(a=series(1), b=series(2), c=series(3).T)
    assert "rows and columns look exchanged" in study.rows()["sub-c"].reason


@pytest.mark.parametrize("name", ["../up.npy", "/etc/x.npy", "a/../../b.npy", "c:/x.npy"])
def test_a_member_that_leads_out_of_the_archive_is_refused(study, name):
    path = study.raw({"a.npy": npy(series(1)), name: npy(series(2))})
    fault = {one.member: one.fault for one in examine_table(path).series}
    assert fault["a"] == "" and "leads out of the archive" in fault[name.removesuffix(".npy")]


def test_a_header_that_promises_more_than_there_is_reads_nothing(study):
    content = npy(series(1)).replace(b"(30, 5), }", b"(99999999999, 5), }")
    path = study.raw({"a.npy": content})
    assert "no sound .npy array" in examine_table(path).series[0].fault


def test_no_flipped_byte_of_a_header_is_a_traceback(tmp_path):
    """numpy reads a header as Python literals, in several ways one after the other."""
    whole, faults = npy(series(1)), 0
    for at in range(128):
        for bit in range(8):
            path = tmp_path / "a.npy"
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                faults += bool(examine_table(path).series[0].fault)
            except DataFault:
                faults += 1
    assert faults > 300


def test_a_broken_archive_and_a_damaged_member(study):
    (study.root / "x.npz").write_bytes(b"no zip at all")
    whole = study.npz(a=series(1), b=series(2)).read_bytes()
    damaged = bytearray(whole)
    at = whole.index(series(2).tobytes()[:16])
    damaged[at] ^= 255
    (study.root / "all.npz").write_bytes(bytes(damaged))
    rows = study.rows()
    assert rows["sub-a"].ok
    assert "damaged" in rows["sub-b"].reason
    assert "not a sound npz archive" in rows["sub-x"].reason


def test_columns_without_data_are_named_in_a_flag(study):
    values = series(1)
    values[:, 1] = 0
    values[3, 2] = np.nan
    values[:, 4] = 7
    study.npz(__roi__=np.array(list("abcde")), one=values, two=series(2))
    row = study.rows(tr=1.0)["sub-one"]
    assert row.ok
    assert row.flags.split("; ")[:2] == ["2 of 5 columns without data: b, c", "1 of 5 columns constant: e"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (np.array(["a", "b", "b", "c", "d"]), "names 2 columns 'b'"),
        (np.array(["a", "b", " ", "c", "d"]), "without a name"),
        (np.array(["a", "b"]), "2 names for 5 columns"),
        (np.ones((2, 2)), "should name the columns"),
    ],
)
def test_names_that_do_not_fit_are_refused_unless_a_table_of_names_is_given(study, names, reason):
    study.npz(__roi__=names, one=series(1))
    assert reason in study.rows(pattern="{sub}")["sub-one"].reason
    (study.root / "names.tsv").write_text("index\tname\n" + "".join(f"{i}\tr{i}\n" for i in range(1, 6)))
    assert study.rows(pattern="{sub}", labels="names.tsv")["sub-one"].ok
    (study.root / "names.tsv").write_text("1\ta\n2\tb\n")
    with pytest.raises(ConfigError, match="names 2 parcels, the series has 5"):
        study.rows(pattern="{sub}", labels="names.tsv")


def test_other_names_in_one_own_atlas_are_refused_but_not_where_they_are_matched(study):
    for i in range(3):
        header = "a\tb\tc\td\te" if i < 2 else "a\tb\tc\te\td"
        np.savetxt(study.root / f"s{i}.tsv", series(i), delimiter="\t", header=header, comments="")
    rows = study.rows(atlas="own")
    assert [row.ok for row in rows.values()] == [True, True, False]
    assert "other names, or another order" in rows["sub-s2"].reason
    assert all(row.ok for row in study.rows().values())


def test_text_tables_arrays_and_one_archive_per_scan(study):
    np.savetxt(study.root / "sub-01_ses-a_task-rest_timeseries.tsv", series(1), delimiter="\t")
    np.savetxt(study.root / "sub-01_ses-b_task-rest_timeseries.csv", series(2), delimiter=",")
    np.savetxt(study.root / "P_2.1D", series(3), header="#r1\t#r2\t#r3\t#r4\t#r5", comments="", delimiter="\t")
    np.save(study.root / "P_3.npy", series(4))
    study.npz("P_4.npz", timeseries=series(5))
    study.npz("P_5.npz", arr_0=series(6))
    (study.root / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\n")
    (study.root / "sub-01_events.tsv").write_text("onset\n1\n")
    (study.root / "README.txt").write_text("about")
    rows = study.rows()
    assert set(rows) == {
        "sub-01_ses-a_task-rest", "sub-01_ses-b_task-rest", "sub-P2", "sub-P3", "sub-P4", "sub-P5"
    }  # fmt: skip
    assert all(row.ok for row in rows.values())
    path = study.root / "P_3.npy"
    (entry,) = study.ticket("sub-P3")["series"]
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() and entry["member"] == ""
    assert {row[1] for row in study.table("ignored.tsv")} == {"README.txt", "participants.tsv", "sub-01_events.tsv"}
    with pytest.raises(ConfigError, match=r"'\*\.mat' matches none"):
        study.rows(files=["*.mat"])
    assert set(study.rows(files=["P_3*", "P_4*"])) == {"sub-P3", "sub-P4"}


def test_ragged_and_wordy_tables_are_quarantined(study):
    (study.root / "ragged.tsv").write_text("1\t2\t3\n1\t2\n" * 20)
    (study.root / "wordy.csv").write_text("a,b\n" + "1,x\n" * 30)
    np.savetxt(study.root / "good.tsv", series(1), delimiter="\t")
    (study.root / "blank.tsv").write_text("")
    rows = study.rows()
    assert rows["sub-good"].ok
    assert "different lengths" in rows["sub-ragged"].reason
    assert "could not convert" in rows["sub-wordy"].reason
    assert not rows["sub-blank"].ok


def test_pandas_index_column_is_no_parcel(study):
    import pandas as pd

    pd.DataFrame(series(1), columns=list("abcde")).to_csv(study.root / "one.csv")
    study.rows()
    assert study.ticket("sub-one")["columns"]["n"] == C


def test_pattern_gives_subject_and_session_and_one_person_stays_one_subject(study):
    study.npz(**{f"sub-00{i}-{s}": series(10 * i + j) for i in range(1, 4) for j, s in enumerate(("LSD", "PLCB"))})
    with pytest.raises(ConfigError, match=r"sub-001-LSD.*begins with sub- but is no BIDS name.*pattern"):
        study.rows()
    rows = study.rows(pattern="sub-{sub}-{ses}")
    assert sorted(rows) == [f"sub-00{i}_ses-{s}" for i in range(1, 4) for s in ("LSD", "PLCB")]
    buckets = {row.subject: set() for row in rows.values()}
    for row in rows.values():
        buckets[row.subject].add(row.bucket)
    assert len(buckets) == 3 and all(len(found) == 1 for found in buckets.values())
    assert set(study.rows(pattern="sub-{sub}-{ses}", filters={"session": ["LSD"]})) == {
        f"sub-00{i}_ses-LSD" for i in range(1, 4)
    }
    with pytest.raises(ConfigError, match=r"'LSDx' is not in the data set.*did you mean 'LSD'"):
        study.rows(pattern="sub-{sub}-{ses}", filters={"session": ["LSDx"]})


def test_names_that_do_not_fit_the_pattern_are_listed(study):
    study.npz(**{"sub-001-LSD": series(1), "mean": series(2)})
    assert set(study.rows(pattern="sub-{sub}-{ses}")) == {"sub-001_ses-LSD"}
    assert study.table("ignored.tsv")[0][1:] == ["all.npz:mean", "'mean' does not fit the pattern sub-{sub}-{ses}"]


def test_two_names_that_become_one_label_are_refused(study):
    study.npz(A_1=series(1), A1=series(2), B=series(3))
    rows = study.rows()
    assert rows["sub-B"].ok and len(rows) == 2
    assert rows["sub-A1"].reason == "A1 and A_1 would be one subject, A1"
    study.npz(A_1_x=series(1), A1_y=series(2), B_x=series(3))
    rows = study.rows(pattern="(?P<sub>.+)_(?P<ses>[xy])")  # also where their scans would differ
    assert {scan: row.ok for scan, row in rows.items()} == {
        "sub-A1_ses-x": False,
        "sub-A1_ses-y": False,
        "sub-B_ses-x": True,
    }


def test_two_series_of_one_scan_are_refused(study):
    study.npz("x.npz", a=series(1), b=series(2))
    study.npz("y.npz", a=series(3), c=series(4))
    rows = study.rows()
    assert {scan: row.ok for scan, row in rows.items()} == {"sub-a": False, "sub-b": True, "sub-c": True}
    assert rows["sub-a"].reason == "several series are one scan: x.npz:a, y.npz:a"


PHENOTYPES = "ID,SITE_ID,DX,FIQ\nA_1,NYU,1,100\nB_2,PITT,2,-9999.0\nno_filename,NYU,1,90\nno_filename,NYU,1,91\n"


def test_phenotypes_are_found_by_the_series_and_odd_rows_are_listed(study):
    study.npz(A_1=series(1), B_2=series(2), C_3=series(3))
    (study.root / "pheno.csv").write_text(PHENOTYPES)
    (study.root / "pheno.json").write_text(json.dumps({"DX": {"Description": "diagnosis", "Levels": {"1": "autism"}}}))
    given = {"phenotypes": "pheno.csv", "id_column": "ID", "site_column": "SITE_ID", "missing": [-9999]}
    rows = study.rows(**given, tr={"NYU": 2.0, "PITT": 1.5})
    assert {s: (r.site, r.tr) for s, r in rows.items()} == {
        "sub-A1": ("NYU", 2.0),
        "sub-B2": ("PITT", 1.5),
        "sub-C3": ("ds", None),
    }
    assert rows["sub-C3"].flags == "repetition time unknown; no row in pheno.csv"
    people: dict = {}
    for path in (study.results / "index" / "participants").iterdir():
        held = json.loads(path.read_text())
        people |= held["subjects"]
        assert held["descriptions"]["ds"]["DX"]["Description"] == "diagnosis"
    assert people["ds/A1"]["phenotypes"] == {"SITE_ID": "NYU", "DX": 1, "FIQ": 100.0}
    assert people["ds/B2"]["phenotypes"]["FIQ"] is None
    assert people["ds/C3"]["phenotypes"] == {"SITE_ID": None, "DX": None, "FIQ": None}
    assert study.table("ignored.tsv") == [
        ["ds", "pheno.csv: no_filename", "2 rows of the phenotype table without a series"]
    ]
    for key, value, named in [
        ("id_column", "IDD", "no column 'IDD'.*did you mean 'ID'"),
        ("site_column", "SITE", "no column 'SITE'.*did you mean 'SITE_ID'"),
        ("phenotypes", "nope.csv", "not there"),
        ("tr", {"NYUU": 2.0}, "'NYUU' is no site.*did you mean 'NYU'"),
    ]:
        with pytest.raises(ConfigError, match=named):
            study.rows(**{**given, key: value})


def test_rows_named_by_series_are_joined_to_the_subject(study):
    study.npz(**{"sub-1-a": series(1), "sub-1-b": series(2)})
    (study.root / "p.csv").write_text("file,age,dose\nsub-1-a,30,1\nsub-1-b,30,2\n")
    rows = study.rows(pattern="sub-{sub}-{ses}", phenotypes="p.csv", id_column="file")
    assert all("p.csv gives several values of dose; none is used" in row.flags for row in rows.values())


def phenotypes(study) -> dict[str, dict]:
    found: dict = {}
    for path in (study.results / "index" / "participants").iterdir():
        found |= {
            who.removeprefix("ds/"): one["phenotypes"] for who, one in json.loads(path.read_text())["subjects"].items()
        }
    return found


def test_a_whole_number_written_as_a_fraction_is_not_somebody_else(study):
    study.npz(**{"5": series(1), "50": series(2), "55": series(3), "1.2": series(4)})
    (study.root / "p.csv").write_text("id,age\n5.0,23\n5.5,40\n50.0,33\n1.2,50\n")
    study.rows(phenotypes="p.csv", id_column="id")
    ages = {who: one["age"] for who, one in phenotypes(study).items()}
    assert ages == {"5": 23, "50": 33, "55": None, "12": 50}
    assert [path for _, path, _ in study.table("ignored.tsv")] == ["p.csv: 5.5"]


@pytest.mark.parametrize("line", ["{i}\tr {i}, x\tnet", "{i},r {i}; x,net", "{i}  r {i}, x"])
def test_names_of_columns_between_tabs_commas_or_blanks(tmp_path, line):
    (tmp_path / "n.txt").write_text("".join(line.format(i=i) + "\n" for i in (2, 1)))
    assert [name.replace(";", ",") for name in read_labels(tmp_path / "n.txt", 2)] == ["r 1, x", "r 2, x"]


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("p.csv", "id;age;site\r\nA_1;23,5;X\r\nB_2;30;Y\r\n", "utf-8-sig"),
        ("p.csv", "id\tage\tsite\nA_1\t23.5\tX\nB_2\t30\tY\n", "utf-16"),
        ("p.tsv", "id\tage\tsite\nA_1\t23.5\tX\nB_2\t30\tY\n", "utf-16"),
    ],
)
def test_phenotypes_as_spreadsheets_write_them(study, name, text, encoding):
    study.npz(A_1=series(1), B_2=series(2))
    (study.root / name).write_bytes(text.encode(encoding))
    study.rows(phenotypes=name, id_column="id")
    assert phenotypes(study) == {"A1": {"age": 23.5, "site": "X"}, "B2": {"age": 30.0, "site": "Y"}}


def test_odd_cells_of_phenotypes_are_told_and_never_fatal(study, capsys):
    study.npz(**{"007": series(1), "B": series(2)})
    (study.root / "p.tsv").write_text("id\tage\tn\n7\t1\t2\nB\t23,5\t1e999\n")
    study.rows(phenotypes="p.tsv", id_column="id")
    assert phenotypes(study)["B"] == {"age": "23,5", "n": "1e999"}  # infinity is no JSON number
    said = capsys.readouterr().out
    assert "age has numbers with a comma, which are kept as text" in said
    assert "1 of 2 subjects have no row in p.tsv; leading zeros seem lost in 1 of them" in said
    (study.root / "p.csv").write_text('id,age\nB,"1\n' + "B,2\n" * 40000)
    with pytest.raises(ConfigError, match=r"p.csv.*never closed"):
        study.rows(phenotypes="p.csv", id_column="id")


def test_a_wildcard_of_files_does_not_take_the_phenotypes_for_a_series(study):
    for name in ("A", "B"):
        np.savetxt(study.root / f"{name}.csv", series(1), delimiter=",")
    (study.root / "p.csv").write_text("id,age\nA,1\nB,2\n")
    (study.root / "names.csv").write_text("".join(f"{i},r{i},x\n" for i in range(1, C + 1)))
    rows = study.rows(files=["*.csv"], phenotypes="p.csv", id_column="id", labels="names.csv")
    assert {name: row.status for name, row in rows.items()} == {"sub-A": "ok", "sub-B": "ok"}


def test_a_repetition_time_out_of_range_is_refused(study):
    study.npz(a=series(1), b=series(2))
    assert "looks like milliseconds" in study.rows(tr=2000)["sub-a"].reason


@given(st.integers(2, 6), st.integers(1, 6), st.sampled_from(["<f4", "<f8", "<i2", ">f4"]), st.booleans())
def test_the_hash_is_of_values_shape_and_type_not_of_memory_order(rows, columns, dtype, fortran):
    values = np.arange(rows * columns).reshape(rows, columns).astype(dtype)
    same = np.asfortranarray(values) if fortran else values.copy()
    assert array_sha256(same) == array_sha256(values)
    assert array_sha256(values.reshape(columns, rows)) != array_sha256(values) or rows == columns
    assert array_sha256(values + values.dtype.type(1)) != array_sha256(values)
