"""``--show`` before terminals that show pictures: what they get is the picture that ``--save`` writes."""

from __future__ import annotations

import base64
import io
import os
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))  # not on Windows

QUESTIONS = re.compile(rb"\x1b\[c|\x1b_G[^\x1b]*a=q[^\x1b]*\x1b\\")
ANSWERS = {  # to the question for attributes, and to Kitty's
    "sixel": (b"\x1b[?62;4c", b""),
    "kitty": (b"\x1b[?62c", b"\x1b_Gi=31;OK\x1b\\"),
    "neither": (b"\x1b[?62c", b""),
}


def in_terminal(kind, command):
    """What a command writes to a terminal of 80 x 24 cells of 10 x 20 pixels that answers as that kind does."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 800, 480))
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written, answered = b"", 0
    try:
        while part := os.read(ours, 2**16):
            written += part
            for question in QUESTIONS.finditer(written, answered):
                os.write(ours, ANSWERS[kind][question[0] != b"\x1b[c"])
                answered = question.end()
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, written.decode(errors="replace")
    return written


@pytest.mark.parametrize("kind", list(ANSWERS))
def test_the_picture_is_drawn_in_the_way_of_the_terminal(digits, tmp_path, kind):
    pytest.importorskip("textual_image")
    command = [sys.executable, "-m", "aesearch", "query", "--row", "4", "-k", "3", "-c", str(digits.folder)]
    written = in_terminal(kind, [*command, "--show", "--save", str(tmp_path / "sheet.png")])
    assert b"rank" in written and b"digits/4" in written
    with Image.open(tmp_path / "sheet.png") as sheet:
        saved = sheet.convert("RGB")
    if kind == "kitty":
        messages = re.findall(rb"\x1b_G([^;\x1b]*);([^\x1b]*)\x1b\\", written)
        shown = b"".join(data for keys, data in messages if b"a=q" not in keys)
        drawn = Image.open(io.BytesIO(base64.b64decode(shown))).convert("RGB")
        assert drawn.width / drawn.height == pytest.approx(saved.width / saved.height, rel=0.1)
        assert np.abs(np.asarray(drawn.resize(saved.size), float) - np.asarray(saved)).mean() < 12
    elif kind == "sixel":
        picture = re.search(rb"\x1bP[0-9;]*q(.*?)\x1b\\", written, re.S)[1]
        width, height = (int(number) for number in re.match(rb'"\d+;\d+;(\d+);(\d+)', picture).groups())
        assert width / height == pytest.approx(saved.width / saved.height, rel=0.1)
        assert picture.count(b"-") >= height // 6 - 1  # bands of six rows
    else:
        drawn = [line for line in written.decode().splitlines() if "\u2580" in line]  # halves of cells
        assert len(drawn) > 5 and "\x1b[38;2;" in drawn[0] and b"\x1bP" not in written
