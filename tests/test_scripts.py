"""The script behind the README's figures of quality runs through."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import data_dir

SCRIPT = Path(__file__).parent.parent / "scripts" / "quality.py"


@pytest.mark.slow
def test_every_table_of_quality_is_printed():
    data_dir()
    arguments = ["--quick", "--digits", "8"]
    printed = subprocess.run([sys.executable, SCRIPT, *arguments], check=True, capture_output=True, text=True).stdout
    assert "seeds: [0]" in printed and "torch 2" in printed and "machine: " in printed
    for row in (
        "aesearch, mean",
        "2 numbers",
        "50 numbers",
        "combined",
        "nap",
        "10% odd",
        "first-6000, seed 1",
        "only-8, seed 0",
    ):
        assert re.search(rf"^{re.escape(row)} +-?\d+\.\d+", printed, re.MULTILINE), row
    assert len(re.findall(r"^MNIST, ", printed, re.MULTILINE)) == 9
