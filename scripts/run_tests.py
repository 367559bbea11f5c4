"""Run the tests: `python3 scripts/run_tests.py` on a bare machine with Python 3.11 or newer.

Installs what is needed into .venv first. Runs up to four at once, each on one thread; further arguments go to pytest:
`-k index`, `-m "not slow"`, `-n 0` for one after the other, ….
"""

from __future__ import annotations

import os
import subprocess
import sys

from environment import ROOT, prepare

if __name__ == "__main__":
    command = [prepare(ROOT / ".venv", "dev"), "-m", "pytest", "-n", "logical", "--maxprocesses", "4", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=ROOT, env={"OMP_NUM_THREADS": "1", **os.environ}, check=False).returncode)
