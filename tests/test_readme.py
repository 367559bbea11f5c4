"""The README tells the truth: its commands and options exist, its Python runs, its formats are there."""

import re
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from PIL import Image

from aesearch.cli import app

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands
LINES = [line.strip() for line in README.splitlines() if line.startswith("    aesearch ")]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_named(command):
    assert re.search(rf"aesearch {command}\b|`{command}\b", README)


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_uses_options_that_exist(line):
    _, command, *arguments = shlex.split(line, comments=True)
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    assert {a for a in arguments if a.startswith("-")} <= known


@pytest.mark.slow
def test_the_python_example_runs_and_gives_what_it_says(tmp_path, monkeypatch, digit_images, digits):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits.folder, "indexes/default")  # it uses what is there
    Image.fromarray(digit_images[4]).save("img.png")
    block = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    names = {}
    exec(block, names)
    assert names["hits"].ids[0] == "digits/4" and len(names["hits"].rows) == 10
    assert names["X"].shape[0] == len(names["y"]) == 1797
    assert len(names["odd"].rows) == 50 and len(names["groups"]) == 1797 and names["xy"].shape == (1797, 2)


def test_the_store_s_table_names_every_dataset(digits):
    with h5py.File(digits.folder / "features.h5") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert all(f"`{name}" in README or f"`{name}`" in README for name in names)
        assert all(f"`{name}`" in README for name in file.attrs)
    assert np.isfinite(digits.features()).all()


def test_every_file_of_a_collection_is_explained(digits):
    kinds = {re.sub(r"map-.*\.", "map-*.", p.name) for p in digits.folder.iterdir() if not p.name.startswith(".")}
    assert all(f"`{kind}`" in README for kind in kinds)
