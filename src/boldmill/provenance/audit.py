"""Answer an auditor: whether files are what was written, what made them, and what they hold.

  verify     re-hash every recorded file and name every mismatch
  trace      show what made one file, one row of a table or one metric, down to the raw files
  stale      name what the current configuration, code and inputs would no longer give
  orphans    name files that no record knows, or whose scan is no longer in the index
  leakage    prove that no evaluated subject was in a model's pre-training, or name them
  export     describe the results for others: BIDS metadata and a Workflow Run RO-Crate
  forget     list, and with --delete remove, everything that holds a subject's data

Each has its own options and examples: boldmill audit ACTION --help. All read results/provenance/ledger.parquet, which
`snakemake audit` brings up to date. Exit status: 0 nothing was found, 1 something was found or the question cannot be
answered, 2 the command line is wrong.

Example:
  boldmill audit verify
"""

from __future__ import annotations

import argparse
import importlib
import io
import sys

ACTIONS = {
    "verify": "boldmill.provenance.verify",
    "trace": "boldmill.provenance.trace",
    "stale": "boldmill.provenance.stale",
    "orphans": "boldmill.provenance.orphans",
    "leakage": "boldmill.provenance.leakage",
    "export": "boldmill.provenance.export",
    "forget": "boldmill.provenance.forget",
}
"""Action -> module, which offers ``add_arguments(parser)`` and ``run(args) -> int``; imported only when called."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the action; its own options are left to its module."""
    parser.add_argument("action", choices=ACTIONS, help="what to ask")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of the action")


def run(args: argparse.Namespace) -> int:
    """Run one action and return its exit status."""
    module = importlib.import_module(ACTIONS[args.action])
    parser = argparse.ArgumentParser(
        prog=f"boldmill audit {args.action}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files are to be printed whatever they are
        sys.stdout.reconfigure(errors="backslashreplace")
    return int(module.run(parser.parse_args(args.rest)))
