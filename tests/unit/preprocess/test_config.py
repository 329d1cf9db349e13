"""Settings that contradict each other are refused before anything runs."""

from __future__ import annotations

import pytest

from boldmill.config.load import parse
from boldmill.errors import ConfigError


def test_a_pass_band_rises() -> None:
    parse({"clean": {"band_low": 0.01, "band_high": 0.1}})
    parse({"clean": {"band_low": None, "band_high": 0.1}})
    parse({"clean": {"band_low": 0.2, "band_high": None}})
    with pytest.raises(ConfigError, match=r"clean.*band_low = 0.1 Hz must be below band_high = 0.01 Hz"):
        parse({"clean": {"band_low": 0.1, "band_high": 0.01}})
