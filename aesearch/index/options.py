"""Which index, and how much memory it may take."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from aesearch.errors import AesearchError, check_choice
from aesearch.machine import memory_at_hand
from aesearch.vectors.distances import METRICS

KINDS = ("auto", "flat", "hnsw", "ivf", "ivfpq")
# Measured by scripts/benchmark_index.py: up to here exact search is quick, even of every row among all the others;
# beyond, inverted lists answer as quickly as a graph, and are built in a fraction of its time.
FLAT_MOST_NUMBERS = 4_000_000
LISTS = 2.0  # times the root of the rows: more are searched a little quicker, but built much more slowly …
LONGEST_LIST = 500  # … but of no more rows than this each, or a search would take the longer the more there are
MOST_ROWS, MOST_NUMBERS = 2**18, 2**24  # that an index is given or asked at once, at most: many go quicker together
SAMPLE_A_LIST, LEAST_SAMPLE = 64, 2**16  # rows that lists, and product quantisers, learn from
SLACK = 1.5  # inverted lists grow by doubling


@dataclass(frozen=True)
class IndexOptions:
    """How the index is built.

    Attributes
    ----------
    kind : str
        ``auto``, ``flat`` (exact), ``hnsw``, ``ivf``, ``ivfpq``, or any FAISS factory string.
    metric : {"cosine", "l2"}
    min_recall : float
        Below this recall@10 the search effort is raised, then another index taken. 0 keeps any index.
    max_memory : int, optional
        Bytes that an index chosen by ``auto`` may hold; by default half of the machine's memory.
    seed : int
        Draws the held-out queries.
    """

    kind: str = "auto"
    metric: str = "cosine"
    min_recall: float = 0.95
    max_memory: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)
        if not 0 <= self.min_recall <= 1:
            raise AesearchError(f"min-recall must lie in [0, 1], not {self.min_recall}")
        if self.max_memory is not None and self.max_memory < 1:
            raise AesearchError(f"max-memory must be above 0, not {self.max_memory}")

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return dataclasses.asdict(self)


def most_rows(dim: int) -> int:
    """How many vectors of so many numbers an index is best given or asked at once."""
    return max(1, min(MOST_ROWS, MOST_NUMBERS // dim))


def choose_factory(kind: str, rows: int, dim: int, memory: int) -> tuple[str, str]:
    """FAISS factory string, with the reason in a few words.

    Parameters
    ----------
    memory : int
        Bytes that one chosen by ``auto`` may hold while it is built.
    """
    lists = max(1, min(int(LISTS * math.sqrt(rows)), rows // 44))  # FAISS wants 39 training points a list, 10% held out
    parted = f"IVF{lists}"
    if rows > LONGEST_LIST * lists:  # so many that a graph finds them
        lists = rows // LONGEST_LIST
        parted = f"IVF{lists}_HNSW32"
    codes = next(m for m in (32, 16, 8, 4, 2, 1) if dim % m == 0 and m <= dim)
    named = {"flat": "Flat", "hnsw": "HNSW32", "ivf": f"{parted},Flat", "ivfpq": f"{parted},PQ{codes}x8np"}
    if kind != "auto":
        return named.get(kind, kind), "as asked"
    if rows * dim <= FLAT_MOST_NUMBERS and 4 * dim * rows <= memory:
        return "Flat", "exact search is quick at this size"
    numbers = {f"{parted},Flat": 4 * dim, f"{parted},SQ8": dim, f"{parted},PQ{codes}x8np": codes}  # bytes of a vector
    learned_from = 2 * 4 * dim * SAMPLE_A_LIST * lists  # as it is read, and prepared
    best, *_, smallest = numbers
    fits = (f for f, size in numbers.items() if max(SLACK * (size + 8) * rows, learned_from) <= memory)
    chosen = next(fits, smallest)
    if chosen != best:
        return chosen, f"{best} would take more than {memory / 1e9:.1f} GB of memory"
    return chosen, "too many rows for quick exact search"


def least_bytes(options: IndexOptions, rows: int, dim: int) -> int:
    """How large such an index will be, at least, as far as that can be told beforehand."""
    factory, _ = choose_factory(options.kind, rows, dim, options.max_memory or memory_at_hand())
    return 4 * rows * dim if re.fullmatch(r"(IVF\d+(_HNSW32)?,)?Flat|HNSW\d+", factory) else 0
