"""The script behind the README's figures of quality runs through."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import data_dir

SCRIPT = Path(__file__).parent.parent / "scripts" / "quality.py"


@pytest.mark.slow
def test_every_table_of_quality_is_printed(monkeypatch, capsys):
    data_dir()
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--quick", "--digits", "8"])
    monkeypatch.syspath_prepend(SCRIPT.parent)
    runpy.run_path(str(SCRIPT), run_name="__main__")  # in this process: to import all again would take longer
    printed = capsys.readouterr().out
    assert "seeds: [0]" in printed and "torch 2" in printed and "machine: " in printed
    rows = (
        "patches, averaged",
        "aesearch, mean",
        "2 numbers",
        "50 numbers",
        "combined",
        "nap",
        "10% odd",
        "first-6000, seed 1",
        "digit 8",
    )
    for row in rows:
        assert re.search(rf"^{re.escape(row)}:? .*\d\.\d+", printed, re.MULTILINE), row
    assert len(re.findall(r"^MNIST, ", printed, re.MULTILINE)) == 9
