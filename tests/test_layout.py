"""Imports flow one way, and light commands stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aesearch

PACKAGE = Path(aesearch.__file__).parent
# High to low; a module imports only what stands below it.
ORDER = (
    "__main__", "cli", "options", "console", "stopping",
    "serving", "api", "schema", "live", "documents", "sweep", "card", "report",
    "collection", "mapping", "answers", "building", "examination", "training", "updating",
    "extraction", "inspection", "scoring", "combining", "kinds", "usual", "finder", "planting", "invariance", "parts",
    "batches", "opening", "tables", "folders", "pictures", "pixels", "tiles", "sources", "reading",
    "mappage", "clusters", "duplicates", "projection", "baselines", "patchbank", "localisation", "probe",
    "grouping", "shapes", "shrinking", "index",
    "anomalies", "generation", "export", "store", "figures", "thumbnails", "patches", "autoencoders",
    "portable", "architectures", "layers", "decoding", "formats", "manifest", "facts", "orientation", "distances",
    "progress",
    "locking", "naming", "atomic", "names", "errors", "machine", "__init__",
)  # fmt: skip


LATE = {("collection", "card")}  # what the Python entry offers and stands above it is imported when it is called


def imported(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aesearch."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "aesearch":
            names |= {name for name in (alias.name for alias in node.names) if name in ORDER}
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_imports_flow_one_way(path):
    assert path.stem in ORDER
    if path.stem == "__init__":  # imports on first use only
        return
    upward = {name for name in imported(path) if ORDER.index(name) <= ORDER.index(path.stem)}
    upward -= {name for stem, name in LATE if stem == path.stem}
    assert upward == set()


@pytest.mark.parametrize("arguments", [["--help"], ["query", "--help"], ["info"]])
def test_light_commands_import_nothing_heavy(arguments, digits):
    arguments = [*arguments, "-c", str(digits.folder)] if arguments == ["info"] else arguments
    code = (
        "import sys\nfrom aesearch.cli.commands import app\n"
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
