"""Random rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sample_rows(rows: int, most: int, seed: int) -> NDArray[np.int64]:
    """Rows to fit, rising: all, or so many of them at random."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most]) if rows > most else np.arange(rows)
