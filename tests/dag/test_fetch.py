"""`snakemake fetch` before anything else, against a local server that stands for TemplateFlow's bucket."""

import functools
import http.server
import threading
from pathlib import Path

import pytest


@pytest.fixture
def bucket(tmp_path: Path):
    """A server of one folder; what it sends is no template, so that only the way is tried here."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_fetch_needs_no_index_and_is_no_part_of_a_run(project, bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, url = bucket
    home = project.folder / "home"
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    monkeypatch.setenv("BOLDMILL_TEMPLATEFLOW_URL", url)
    space = "MNI152Lin"  # nothing of it is in the shipped table
    project.config["spaces"] = {
        "template": space,
        "template_source": "templateflow",
        "atlas_source": "embedded",
        "flat": "fsaverage5",
    }
    project.write_config()
    names = [f"tpl-{space}/tpl-{space}_res-02_{kind}.nii.gz" for kind in ("T1w", "desc-brain_mask")]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode() * 100)
    done = project.snakemake("fetch")
    text = done.stdout + done.stderr
    for name in names:
        assert (home / name).read_bytes() == name.encode() * 100
    assert text.count("noted now") == 2 and "sphere L (read only where" in text
    assert "fetched" in (project.folder / "results/logs/fetch.log").read_text()
    assert not (project.folder / "results/index").exists()
    again = project.snakemake("fetch")
    assert (again.stdout + again.stderr).count("as at its first fetch") == 2
    project.ingest()
    assert not any(job.startswith("fetch") for job in project.jobs("all"))


def test_a_fetch_that_fails_fails_the_call_and_says_why(project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(project.folder / "home"))
    monkeypatch.setenv("BOLDMILL_TEMPLATEFLOW_URL", "http://127.0.0.1:9")
    done = project.snakemake("fetch", check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "no connection (Connection refused), 4 tries" in text and "login node" in text
