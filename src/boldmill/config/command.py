"""Print the JSON schema of the configuration, or write it to a file.

Example:
    boldmill schema --out workflow/schemas/config.schema.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from boldmill.atomic import write_text
from boldmill.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", metavar="FILE", type=Path, help="write there instead of printing")


def schema_text() -> str:
    """Return the schema as the committed file holds it."""
    from boldmill.config.model import json_schema

    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


def run(args: argparse.Namespace) -> int:
    """Print or write the schema."""
    if args.out:
        write_text(args.out, schema_text())
    else:
        print(schema_text(), end="")
    return EXIT_OK
