"""The machine: its memory, and what libraries are told before they start: no telemetry, no busy waiting."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

LARGEST_SEED = 2**32 - 1  # that all libraries beneath take
MEMORY_SHARE = 0.5  # of the machine's memory, unless a limit is given
asked: list[int] = []  # how many threads, if that was said
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
LOOKS, BETWEEN = 4, 0.003  # at what is running now, and seconds from one to the next
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")  # any of them: the user has decided


def settle() -> None:
    """Set what FAISS, ONNX Runtime, scikit-learn and torch read from the environment once, when they are imported.

    Threads of OpenMP by default wait for one another in a busy loop. That is quickest where the machine has nothing
    else to do; beside other work they take the very cores that those they wait for need, so there they sleep instead.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # from 1.29 on ONNX Runtime reports to its maker
    if not any(name in os.environ for name in WAITING) and has_other_work():
        os.environ["OMP_WAIT_POLICY"] = "passive"
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=use_one_thread)


def has_other_work() -> bool:
    """Whether some other process keeps a core busy; True where that cannot be told."""
    try:
        for _ in range(LOOKS):
            if int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) <= 1:  # this process alone
                return False
            time.sleep(BETWEEN)
    except (OSError, ValueError, IndexError):
        return True
    return True


def use_threads(count: int) -> None:
    """Have everything compute on so many threads; to be called before the libraries that do it are imported."""
    asked[:] = [count]
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    if "numpy" in sys.modules:
        import threadpoolctl  # type: ignore[import-untyped]

        threadpoolctl.threadpool_limits(count)


def load() -> float:
    """How many processes have wanted a core in the last minute, in the mean; 0 where that cannot be told."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def use_one_thread() -> None:
    """Have a process that was forked do without OpenMP's threads: it would wait for ever for those of its parent."""
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    if threadpoolctl := sys.modules.get("threadpoolctl"):  # scikit-learn, which brings it, has no such function
        threadpoolctl.threadpool_limits(1, user_api="openmp")


def memory_at_hand() -> int:
    """Half of the machine's memory, in bytes; where that cannot be told, 8 GB."""
    try:
        return int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return 8 * 10**9
