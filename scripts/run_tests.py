"""Run the tests: `python3 scripts/run_tests.py` on a bare machine with Python 3.11 or newer.

Installs what is needed into .venv first. Tests run side by side, one on each core, up to four. Further arguments go
to pytest: `-k index`, `-m "not slow"`, ….
"""

from __future__ import annotations

import os
import subprocess
import sys

from environment import ROOT, prepare

if __name__ == "__main__":
    python = prepare(ROOT / ".venv", "dev")
    workers = min(4, os.cpu_count() or 1)
    command = [python, "-m", "pytest", "-n", str(workers), "--dist", "worksteal", *sys.argv[1:]]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # two threads of each worker would only be in each other's way
    sys.exit(subprocess.run(command, cwd=ROOT, env=alone, check=False).returncode)
