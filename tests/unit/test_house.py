"""House rules a machine can check."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src" / "boldmill").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_a_module_is_one_concept(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= 350
    assert not re.search(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b", text)
    assert not re.search(r"except(?: Exception)?:\s*pass$|except:\s*$", text, flags=re.MULTILINE)
    assert not re.search(r"allow_pickle\s*=\s*True|weights_only\s*=\s*False|yaml\.load\(|pickle\.load", text)
    assert text.lstrip().startswith(('"""', 'r"""'))


def test_the_links_to_the_profiles_are_links() -> None:
    for name in ("slurm", "local"):
        assert (ROOT / name).is_symlink() and (ROOT / name).resolve() == (ROOT / "profiles" / name).resolve()


def test_no_rule_names_a_partition() -> None:
    for rules in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert "partition" not in rules.read_text()
