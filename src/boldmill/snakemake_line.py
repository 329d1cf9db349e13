"""What a Snakemake command line asks for: jobs, or a look at the DAG."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

# Options of Snakemake that look at the DAG or at its records without running it.
LOOKING = [
    "dryrun",
    "lint",
    "unlock",
    "list_rules",
    "list_target_rules",
    "print_compilation",
    "dag",
    "rulegraph",
    "filegraph",
    "d3dag",
    "summary",
    "detailed_summary",
    "archive",
    "report",
    "generate_unit_tests",
    "containerize",
    "cleanup_metadata",
    "cleanup_shadow",
    "list_changes",
    "list_input_changes",
    "list_params_changes",
    "list_untracked",
    "delete_all_output",
    "delete_temp_output",
    "touch",
    "export_cwl",
    "conda_create_envs_only",
    "conda_cleanup_envs",
    "list_conda_envs",
    "container_cleanup_images",
]


def parse_options(argv: Sequence[str]) -> Any:
    """Return the options of a Snakemake command line, profiles included."""
    return _options(tuple(argv))


@cache  # Snakemake looks for all plugins each time
def _options(argv: tuple[str, ...]) -> Any:
    from snakemake.cli import parse_args

    return parse_args(list(argv))[1]


def is_real_run(options: Any) -> bool:
    """Tell whether a Snakemake call runs jobs.

    >>> is_real_run(parse_options(["--cores", "1", "-n"]))
    False
    >>> is_real_run(parse_options(["--cores", "1"]))
    True
    """
    return not any(getattr(options, name, None) for name in LOOKING)
