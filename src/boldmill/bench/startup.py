"""How long the interpreter takes to import boldmill and to print its help, beyond an empty interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from boldmill.bench.table import Row, side_by_side

HEAVY = frozenset(
    {
        *("numpy", "scipy", "pandas", "pyarrow", "torch", "sklearn", "skimage", "matplotlib", "safetensors"),
        *("nibabel", "nilearn", "nipype", "dipy", "SimpleITK", "templateflow", "bids2table", "snakemake"),
    }
)
"""Modules that `import boldmill`, `boldmill --help` and reading the configuration never load."""

GOALS = {
    # name: (words of the interpreter, seconds over an empty one)
    "import boldmill": (["-c", "import boldmill"], 0.050),
    "boldmill --help": (["-m", "boldmill", "--help"], 0.300),
}


def measure(repeats: int) -> list[Row]:
    """Return one row per start-up, in milliseconds."""
    rows = []
    for name, (words, limit) in GOALS.items():
        ours, peer = side_by_side(_call(words), _call(["-c", "pass"]), repeats=repeats)
        rows.append(
            Row(
                name=name,
                ours=1e3 * ours,
                peer=1e3 * peer,
                unit="ms",
                ratio=peer / ours,
                goal=f"at most {1e3 * limit:.0f} ms over `python -c pass`",
                met=ours - peer < limit,
            )
        )
    return rows


def loaded(code: str) -> set[str]:
    """Return the top-level modules a fresh interpreter has loaded after running ``code``."""
    tail = "\nimport sys\nprint('\\n' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def _call(words: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
