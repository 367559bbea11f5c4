"""The scripts behind the README's figures run through."""

import io
import re
import runpy
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import data_dir
from PIL import Image
from sklearn.datasets import load_digits

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
        "raw 1-NN",
        "digit 8",
    )
    for row in rows:
        assert re.search(rf"^{re.escape(row)}:? .*\d\.\d+", printed, re.MULTILINE), row
    assert len(re.findall(r"^MNIST, ", printed, re.MULTILINE)) == 9


@pytest.mark.slow
def test_the_time_to_the_first_answer_is_printed(monkeypatch, capsys, tmp_path):
    digits = load_digits()
    with tarfile.open(tmp_path / "digits.tar", "w") as tar:
        for number, (image, label) in enumerate(zip(digits.images[:80], digits.target[:80], strict=True)):
            file = io.BytesIO()
            Image.fromarray((image * 15).astype(np.uint8)).resize((16, 16)).save(file, "JPEG")
            entry = tarfile.TarInfo(f"digits/{label}/{number}.jpg")
            entry.size = file.tell()
            file.seek(0)
            tar.addfile(entry, file)
    script = SCRIPT.with_name("first_answer.py")
    arguments = [str(script), str(tmp_path / "digits.tar"), "--images", "70", "--efforts", "quick"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert "images: 70" in printed and "torch 2" in printed
    assert re.search(
        r"^quick +first answer after +\d+\.\d s .*kNN-10 0\.\d+, linear probe 0\.\d+$", printed, re.MULTILINE
    )
