"""Check Python, pinned packages, data files, templates, engines, GPU, SLURM, disk and the clone; say what to fix.

On a login node also: the partitions of profiles/slurm against SLURM's own, whether compute nodes can see the results
and the templates, and free inodes. Nothing asks a network; jobs need none.

Exit status: 0 if nothing fails (warnings allowed), 1 if a check fails.

Example:
    boldmill doctor --config config.yaml my.yaml
"""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING

from boldmill.errors import EXIT_FAILURE, EXIT_OK

if TYPE_CHECKING:
    from boldmill.config.model import Config
    from boldmill.setup.checks import Check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", nargs="+", metavar="FILE", help="configuration files, later ones winning")


def run(args: argparse.Namespace) -> int:
    """Run all checks and print them as one table."""
    from boldmill.config.load import parse, read_yaml
    from boldmill.config.model import Config
    from boldmill.setup.machine import clone_root

    config = Config()
    if args.config:
        from boldmill.config.load import load

        config = load(*args.config)
    elif (root := clone_root()) is not None and (root / "config.yaml").is_file():
        config = parse(read_yaml(root / "config.yaml"))
    found = all_checks(config)
    print(render(found))
    failed = sum(check.status == "fail" for check in found)
    warned = sum(check.status == "warn" for check in found)
    print(f"\n{failed} failed, {warned} warnings, {len(found) - failed - warned} fine")
    return EXIT_FAILURE if failed else EXIT_OK


def all_checks(config: Config) -> list[Check]:
    """Return every check for a configuration."""
    from pathlib import Path

    from boldmill.setup import checks, cluster, machine
    from boldmill.spaces.flow import flow_home

    return [
        checks.python_version(),
        *checks.packages(),
        *checks.data_files(),
        *checks.templates(config),
        *checks.datasets(config),
        checks.index(config),
        *checks.engines(config),
        machine.gpu(),
        machine.slurm(),
        *cluster.login_node({"results": Path(config.results), "templates": flow_home()}, machine.clone_root()),
        *machine.machine(config),
        *machine.clone(),
    ]


def render(found: list[Check]) -> str:
    """Return the table: status, what, what was found, and the fix below it."""
    lines = []
    for check in found:
        lines.append(f"{check.status:<5} {check.name:<22} {check.found}".rstrip())
        if check.fix:
            lines += textwrap.wrap(f"fix: {check.fix}", 110, initial_indent=" " * 29, subsequent_indent=" " * 34)
    return "\n".join(lines)
