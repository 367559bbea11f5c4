"""Run the tests: `python3 scripts/run_tests.py` on a bare machine with Python 3.11 or newer.

Installs what is needed into .venv first. Further arguments go to pytest: `-k index`, `-m "not slow"`, ….
"""

from __future__ import annotations

import subprocess
import sys

from environment import ROOT, prepare

if __name__ == "__main__":
    python = prepare(ROOT / ".venv", "dev")
    sys.exit(subprocess.run([python, "-m", "pytest", *sys.argv[1:]], cwd=ROOT, check=False).returncode)
