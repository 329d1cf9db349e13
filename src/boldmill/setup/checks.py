"""Checks of `boldmill doctor` on what is installed and configured: each says ok, warn or fail, and how to fix it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from boldmill.config.model import Config
from boldmill.errors import ConfigError, MachineFault
from boldmill.paths import Layout
from boldmill.spaces.flow import flow_home, listed
from boldmill.spaces.flow_needs import config_needs


class Check(NamedTuple):
    """One line of the table; ``fix`` is empty where there is nothing to do."""

    status: str
    name: str
    found: str
    fix: str = ""


def standing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there for us (one that we may not enter hides the rest)."""
    path = path.absolute()
    while not os.access(path, os.F_OK):
        path = path.parent
    return path


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
    from boldmill.spaces import embedded, flats, meshes, parcels, ribbon
    from boldmill.spaces.templates import icbm_files

    found = []
    for name, files in {
        "atlas data": embedded.files,
        "parcel names": lambda: [parcels.names_file()],
        "fsaverage5 data": lambda: [*ribbon.ribbon_files(), *flats.flat_surface("fsaverage5").files],
        "fsLR data": lambda: [*ribbon.ribbon_files("fsLR"), *meshes.cortex_and_fold_files("fsLR")],
        "ICBM template": icbm_files,
    }.items():
        try:
            paths = files()
        except MachineFault as fault:
            found.append(Check("fail", name, f"{fault.where}: {fault.why}", fault.fix))
        else:
            found.append(Check("ok", name, f"{len(paths)} files of {paths[0].parents[1]}"))
    return found


def templates(config: Config, home: Path | None = None) -> list[Check]:
    """The template, atlas and sphere files the configuration needs: there, and holding data."""
    home = home or flow_home()
    wanted = config_needs(config)
    if not wanted:
        return [Check("ok", "templates", "not needed: all data sets are tables of atlases of their own")]
    found = []
    if config.spaces.template_source == "demo":
        folder = Path(config.spaces.demo_template)
        if folder.is_dir():
            found.append(Check("ok", "demo template", str(folder)))
        else:
            fix = "boldmill demo-data (or make demo)"
            found.append(Check("warn", "demo template", f"{folder} is not there yet", fix))
    for need in wanted:
        paths, label = need.found(home), f"template {need.what}"
        if paths:
            found.append(Check("ok", label, f"{paths[0]} ({paths[0].stat().st_size / 1024:.0f} KiB)"))
        elif not need.optional:
            fix = "boldmill fetch --config FILE..., where there is a network; or set TEMPLATEFLOW_HOME"
            empty = [path for one in need.choices[0] for path in listed(one, home)]
            text = f"{empty[0]} is an empty placeholder" if empty else f"no {need.words} in {home}"
            found.append(Check("fail", label, text, fix))
    return found


def engines(config: Config) -> list[Check]:
    """Every optional engine (ANTs, FSL, AFNI): usable, and by what; or what is missing, which fails if it is chosen."""
    from boldmill.preprocess.engines import DEFAULT, ENGINES, INSTALL, chosen, missing, provider

    asked = [*chosen(config.preprocess.engines)]
    for dataset in config.datasets:
        names = dataset.overrides.get("preprocess", {}).get("engines", {})
        asked += [engine for engine in ENGINES if names.get(engine.step) == engine.name]
    own = sum(engine.name == DEFAULT for engine in ENGINES)
    found = [Check("ok", "default engines", f"{own} steps, from wheels alone")]
    for engine in ENGINES:
        if engine.name == DEFAULT:
            continue
        name, by, wanted = f"{engine.step}: {engine.name}", provider(engine), engine in asked
        if by:
            found.append(Check("ok", name, f"{engine.method}: {by}{' (chosen)' if wanted else ''}"))
        elif wanted:
            fix = f"{INSTALL[engine.name]}; or preprocess.engines.{engine.step}: {DEFAULT}"
            found.append(Check("fail", name, f"chosen, but {missing(engine)}", fix))
        else:
            found.append(Check("ok", name, f"not usable (optional): {missing(engine)}"))
    return found


def datasets(config: Config) -> list[Check]:
    """Every data set's folder."""
    found = []
    for dataset in config.datasets:
        root = Path(dataset.root)
        name = f"data set {dataset.name}"
        there = os.access(root, os.F_OK)  # never raises, as is_dir does below a folder that is closed to us
        if there and dataset.kind == "tables" and root.is_file():
            found.append(_tables_file(name, dataset.name, root))
        elif not (there and root.is_dir()):
            status = "warn" if "demo" in root.parts else "fail"
            fix = "make demo" if status == "warn" else f"correct datasets[{dataset.name}].root"
            found.append(Check(status, name, f"{root} is not there, or lies in a folder that is closed to you", fix))
        elif not os.access(root, os.R_OK | os.X_OK):
            found.append(Check("fail", name, f"{root} cannot be read", f"chmod +rx {root}"))
        else:
            found.append(Check("ok", name, str(root)))
    return found or [Check("warn", "data sets", "none configured", "boldmill init DATA_SET...")]


def _tables_file(name: str, dataset: str, root: Path) -> Check:
    from boldmill.index.table_files import ARRAYS, TEXTS

    if root.suffix not in (*ARRAYS, *TEXTS):
        fix = f"give a folder, or a file of {', '.join((*ARRAYS, *TEXTS))}, in datasets[{dataset}].root"
        return Check("fail", name, f"{root} is no table of parcel series", fix)
    if not os.access(root, os.R_OK):
        return Check("fail", name, f"{root} cannot be read", f"chmod +r {root}")
    return Check("ok", name, str(root))


def index(config: Config) -> Check:
    """An index that fits the configuration."""
    from boldmill.index.read import read_index
    from boldmill.stages import stage_json

    again = "snakemake ingest, with the same --configfile"
    if not os.access(Layout.at(config.results).index, os.F_OK):
        return Check("warn", "index", "not there yet; the first real run builds it", again)
    try:
        found = read_index(config.results)
    except ConfigError as error:
        return Check("fail", "index", error.why, again)
    if found.is_stale(stage_json(config, "ingest")):
        return Check("warn", "index", "made with other settings", again)
    return Check("ok", "index", f"{len(found.ok)} scans, {len(found.quarantined)} quarantined")
