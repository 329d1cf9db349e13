"""A small project whose every file was written under a Recorder: raw -> ticket -> preprocess -> shards -> snapshot
-> model -> metrics. Four subjects, two of them of one family, in two buckets; 01, 02 and 03 train, 04 is held out."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boldmill.atomic import sha256_file, write_json, write_text
from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.index.read import ScanRow
from boldmill.index.write import bury, write_index
from boldmill.paths import Layout
from boldmill.provenance.record import Recorder
from boldmill.stages import Settings, stage_json

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)
PEOPLE = {"01": 0, "02": 0, "03": 1, "04": 1}
"""Subject -> bucket."""
SPLITS = {"demo/01": "train", "demo/02": "train", "demo/03": "validation", "demo/04": "heldout"}


def scan_id(subject: str) -> str:
    return f"demo_sub-{subject}_task-rest"


class Project:
    """Writes the files of each stage, as its command would."""

    def __init__(self) -> None:
        self.raw = {"datasets": [{"name": "demo", "root": "raw"}], "models": {"train": ["brainmass"]}}
        write_json("config.yaml", self.raw)
        self.families = dict.fromkeys(PEOPLE, "") | {"02": "F1", "03": "F1"}
        self.extra_bytes: dict[str, str] = {}

    def settings(self, stage: str) -> Settings:
        return Settings(stage_json(parse(self.raw), stage))

    def ingest(self, people: dict[str, int] = PEOPLE) -> None:
        for subject in people:
            if not self.bold(subject).exists():
                write_text(self.bold(subject), self.extra_bytes.get(subject, f"bold of {subject}"))
        table = write_text("raw/participants.tsv", "participant_id\n" + "".join(f"sub-{s}\n" for s in people))
        with Recorder(self.settings("ingest"), out=LAYOUT.index, inputs=[table]) as record:
            rows = []
            for subject, bucket in people.items():
                name, bold = scan_id(subject), [{"sha256": sha256_file(self.bold(subject))}]
                ticket = LAYOUT.ticket(name)
                record.add_output(write_json(ticket, {"root": "raw", "scan_id": name, "bold": bold}))
                facts = (2.0, 9, False, f"index/tickets/{name}.json", "", "", "", "")
                rows.append(ScanRow(name, "demo", subject, "", "rest", "", "volume", "ok", bucket, "", "CC0", *facts))
            bury(LAYOUT, map(scan_id, people), [])
            record.add_output(LAYOUT.index.with_name("tombstones.tsv"))
            write_index(LAYOUT.index, rows, "digest", 2)

    def bold(self, subject: str) -> Path:
        return Path(f"raw/sub-{subject}/func/sub-{subject}_task-rest_bold.nii.gz")

    def preprocess(self, subject: str) -> None:
        out, ticket = LAYOUT.subject("demo", subject), LAYOUT.ticket(scan_id(subject))
        image = LAYOUT.derivatives("demo") / f"sub-{subject}" / "func" / f"sub-{subject}_task-rest_boldref.nii.gz"
        with Recorder(self.settings("preprocess"), out=out, inputs=[ticket, self.bold(subject)]) as record:
            record.add_output(write_text(image, f"image of {self.bold(subject).read_text()}"))
            record.add_output(write_text(LAYOUT.derivatives("demo") / "dataset_description.json", "{}"))
            write_json(out, {"subject": subject, "image": sha256_file(image)})

    def shards(self, bucket: int, people: dict[str, int] = PEOPLE) -> None:
        who = [subject for subject, of in people.items() if of == bucket]
        scans, fc = LAYOUT.shard("scans", bucket), LAYOUT.shard("fc", bucket, "atlas")
        inputs = [LAYOUT.subject("demo", s) for s in who] + [LAYOUT.ticket(scan_id(s)) for s in who]
        with Recorder(self.settings("shards"), out=scans, inputs=inputs) as record:
            hashes = [[sha256_file(self.bold(s))] for s in who]
            common = {"scan_id": [scan_id(s) for s in who], "dataset": ["demo"] * len(who), "subject": who}
            families = {"family": [self.families[s] for s in who], "source_sha256": hashes}
            fc.parent.mkdir(parents=True, exist_ok=True)
            scans.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({**common, **families}), scans)
            pq.write_table(pa.table({**common, "values": [[float(int(s)), 0.5] * 9 for s in who]}), fc)
            record.add_output(fc, own_record=True)

    def snapshot(self, name: str = "latest", splits: dict[str, str] = SPLITS) -> Path:
        out = LAYOUT.snapshot(name)
        shards = sorted((RESULTS / "shards").rglob("*.parquet"))
        with Recorder(self.settings("snapshot"), out=out, inputs=shards):
            listed = [{"path": f"../../{p.relative_to(RESULTS)}", "sha256": sha256_file(p)} for p in shards]
            write_json(out, {"id": f"id-{name}", "name": name, "shards": listed, "subjects": splits})
        return out

    def model(self, subjects: tuple[str, ...] = ("demo/01", "demo/02", "demo/03"), snapshot: str = "latest") -> Path:
        out = LAYOUT.checkpoint("brainmass")
        with Recorder(self.settings("train_brainmass"), out=out, inputs=[LAYOUT.snapshot(snapshot)]) as record:
            write_text(out, "weights")
            about = {"model": "brainmass", "snapshot": f"id-{snapshot}"}
            record.add_output(write_json(out.with_name("config.json"), about))
            record.add_output(write_json(out.with_name("subjects.json"), {"subjects": list(subjects)}))
            record.note(snapshot=f"id-{snapshot}")
        return out

    def evaluate(self, tested: tuple[str, ...] = ("demo/04",), more: str = "") -> Path:
        out, weights = LAYOUT.metrics("brainmass"), LAYOUT.checkpoint("brainmass")
        with Recorder(self.settings("evaluate"), out=out, inputs=[LAYOUT.snapshot("latest"), weights]) as record:
            rows = ["task\tmethod\tmodel\tmetric\tvalue", "group\tfc_logistic\tbaseline\tauc\t0.75"]
            rows += [f"group\tbrainmass_{kind}\tbrainmass\tauc\t0.8" for kind in ("frozen", "random")]
            write_text(out, "\n".join(rows) + "\n" + more)
            methods = [("brainmass_frozen", s) for s in tested] + [("brainmass_random", s) for s in SPLITS]
            table = pa.table({"task": ["group"] * len(methods), "method": [m for m, _ in methods],
                              "subject": [s for _, s in methods]})  # fmt: skip
            pq.write_table(table, out.with_name("predictions.parquet"))
            record.add_output(out.with_name("predictions.parquet"))
        return out

    def ledger(self) -> None:
        assert main(["ledger", "--out", str(LAYOUT.ledger), "--config-json", self.settings("ledger").text]) == 0

    def all(self) -> None:
        self.ingest()
        for subject in PEOPLE:
            self.preprocess(subject)
        for bucket in (0, 1):
            self.shards(bucket)
        self.snapshot()
        self.model()
        self.evaluate()
        self.ledger()


@pytest.fixture(scope="module")
def withdrawal() -> ModuleType:
    """The project of two data sets that people withdraw from (withdrawal.py)."""
    spec = importlib.util.spec_from_file_location("withdrawal", Path(__file__).with_name("withdrawal.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["withdrawal"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The whole project, in the working directory."""
    monkeypatch.chdir(tmp_path)
    made = Project()
    made.all()
    return made
