"""HTML templates of the package: everything escaped, a name that is missing is an error."""

from __future__ import annotations

import base64
import math
from typing import Any


def load(package: str, name: str) -> Any:
    """Return a jinja2 template of a package, with the filters ``number``, ``percent``, ``b64`` (bytes to base64)."""
    from importlib.resources import files

    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    environment.filters["percent"] = percent
    environment.filters["b64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))


def number(value: Any) -> str:
    """Show a number with four significant digits, and a missing one as n/a.

    >>> number(0.123456), number(None), number(float("nan")), number("boundary")
    ('0.1235', 'n/a', 'n/a', 'boundary')
    """
    if value is None or value == "":
        return "n/a"
    try:
        as_float = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{as_float:.4g}" if math.isfinite(as_float) else "n/a"


def percent(value: Any) -> str:
    """Show a share in percent.

    >>> percent("0.0312"), percent("n/a")
    ('3.1 %', 'n/a')
    """
    try:
        return f"{100 * float(value):.2g} %"
    except (TypeError, ValueError):
        return "n/a"
