"""The virtual environment of the repository's own scripts; standard library only."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def prepare(folder: Path, extras: str = "") -> str:
    """Make the environment and install aesearch from this checkout into it, unless that is done; its Python.

    Parameters
    ----------
    folder : Path
        Of the virtual environment.
    extras : str
        Of the package: ``"train"`` for all that it does, ``"dev"`` for tests and checks too.
    """
    if sys.version_info < OLDEST:
        sys.exit(f"aesearch needs Python {'.'.join(map(str, OLDEST))} or newer; this is {sys.version.split()[0]}")
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + extras.encode()).hexdigest()
    stamp = folder / f"installed-{extras or 'plain'}"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print("installing into .venv (a few minutes and about 6 GB the first time: torch) …", flush=True)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        target = f"{ROOT}[{extras}]" if extras else str(ROOT)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", target]
        subprocess.run(install, check=True)
        stamp.write_text(wanted)
    return str(python)
