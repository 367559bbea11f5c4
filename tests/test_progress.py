"""How far a long step has come, and how long all of it will take: lines for programs, bars on a terminal."""

import json
import os
import struct
import subprocess
import sys
import time

import pytest
from conftest import write_labelled

from aesearch.progress import AS_JSON, form, heard, plan, step


def test_programs_get_one_line_of_json_an_event(run, tmp_path, digit_images, digit_labels):
    write_labelled(tmp_path / "photos", digit_images[:120], digit_labels)
    said = run("build-index", tmp_path / "photos", "-c", "mine", "--epochs", "2", "--json", "--json-progress")
    assert json.loads(said.stdout)["rows"] == 120
    lines = [json.loads(line) for line in said.stderr.splitlines() if line.startswith("{")]
    begun = list(dict.fromkeys(line["step"] for line in lines if line["event"] == "begin"))
    assert [name for name in begun if name in ("list", "sample", "read", "fit", "train", "extract", "index")] == [
        "list", "sample", "read", "train", "fit", "extract", "index"
    ]  # fmt: skip
    ended = {line["step"]: line for line in lines if line["event"] == "end"}
    assert ended["train"]["done"] == ended["train"]["total"] == 2 * 108 and ended["train"]["epoch"] == "2/2"
    assert ended["list"]["done"] == ended["extract"]["done"] == 120 and ended["extract"]["seconds_left"] is not None
    assert ended["train"]["step_seconds_left"] == 0 and ended["train"]["seconds_left"] is not None
    assert ended["train"]["steps"] == ["read", "components", "train", "fit", "extract", "index"]
    quiet = run("build-index", "-c", "mine", "--overwrite", "--epochs", "1").stderr
    assert "{" not in quiet and "train:" not in quiet and "\r" not in quiet
    assert "--json-progress" in run("query", "--help").stdout


def test_on_a_terminal_a_bar_says_what_is_left_of_all(tmp_path, digit_images, digit_labels):
    write_labelled(tmp_path / "photos", digit_images[:120], digit_labels)
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))  # not on Windows
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    command = [sys.executable, "-m", "aesearch", "build-index", "photos", "-c", "mine", "--epochs", "6"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 2**16):
                written += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    text = written.decode()
    assert process.returncode == 0, text
    for name in ("list:", "sample:", "train:", "fit:", "extract:", "index:"):
        assert name in text
    assert "all_left=" in text


def test_the_time_left_for_all_adds_what_is_to_come():
    with plan({"first": 10, "second": 30}), step("first", 10, progress=False) as going:
        assert going.seconds_left is None and going.whole_seconds_left is None
        time.sleep(0.1)
        going.update(5)
        assert going.seconds_left == pytest.approx(0.1, rel=0.3)
        assert going.whole_seconds_left == pytest.approx(0.7, rel=0.3)  # as long again, and three times ten
    with plan({"first": 10, "second": 30}), step("second", 10, done=5, progress=False) as going:
        time.sleep(0.05)
        going.update(1)
        assert going.whole_seconds_left == going.seconds_left or going.whole_seconds_left > 0.15
    with plan({"unknown": 0, "second": 30}), step("unknown", 10, progress=False) as going:
        going.update(5)
        assert going.whole_seconds_left is None and going.seconds_left is not None


def test_nothing_is_told_unless_it_is_asked_for(capsys):
    token = form.set(AS_JSON)
    try:
        with step("quiet", 3):
            pass
        assert capsys.readouterr().err == ""
        with heard(True), step("told", 3) as going:
            going.update(3)
        first, last = (json.loads(line) for line in capsys.readouterr().err.splitlines())
        assert (first["event"], last["event"], last["done"]) == ("begin", "end", 3)
    finally:
        form.reset(token)
