"""Run ``python -m boldmill``."""

import sys

from boldmill.cli import main

sys.exit(main())
