"""Sub-packages import only what is below them, and light commands stay light."""

import subprocess
import sys
from pathlib import Path

import pytest

import aesearch

ROOT = Path(aesearch.__file__).parents[1]


def test_each_sub_package_imports_only_from_those_below_it():
    """The contract in ``pyproject.toml``, which names all of them."""
    config = ROOT / "pyproject.toml"
    lint = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(sys.argv[1], no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {lint}", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    said = config.read_text()
    parts = {
        path.stem for path in (ROOT / "aesearch").iterdir() if (path / "__init__.py").exists() or path.suffix == ".py"
    }
    assert [part for part in sorted(parts - {"__init__"}) if f"aesearch.{part}" not in said] == []


@pytest.mark.parametrize("arguments", [["--help"], ["query", "--help"], ["info"]])
def test_light_commands_import_nothing_heavy(arguments, digits):
    arguments = [*arguments, "-c", str(digits.folder)] if arguments == ["info"] else arguments
    code = (
        "import sys\nfrom aesearch.cli import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'torchvision', 'umap', 'sklearn', 'faiss', 'matplotlib', 'plotly', 'pydantic'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_m_runs_the_command_line():
    done = subprocess.run([sys.executable, "-m", "aesearch", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"aesearch {aesearch.__version__}\n"
