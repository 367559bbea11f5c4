"""Commands killed at random moments and run again; scripts/torture.py does the same at length."""

from __future__ import annotations

import numpy as np
import pytest
from torture import change, finish, torture, write

IMAGES = 400


@pytest.mark.slow
def test_killed_commands_go_on_and_end_as_if_undisturbed(tmp_path):
    generator = np.random.default_rng(0)
    write(tmp_path / "photos", 0, IMAGES)
    for command, kills, signals in (("train", 1, 0), ("extract", 1, 0)):
        assert torture(tmp_path, command, kills, signals, generator)
    finish(tmp_path, "build-index")
    change(tmp_path / "photos", IMAGES)
    assert torture(tmp_path, "update", 1, 2, generator)
