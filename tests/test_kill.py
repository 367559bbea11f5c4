"""Commands killed at random moments and run again; scripts/torture.py does the same at length."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
from torture import change, finish, torture, write

IMAGES = 400


@pytest.mark.slow
def test_killed_commands_go_on_and_end_as_if_undisturbed(tmp_path):
    generator = np.random.default_rng(0)
    write(tmp_path / "photos", 0, IMAGES)
    for command, kills, signals in (("train", 1, 0), ("extract", 1, 0)):
        assert torture(tmp_path, command, kills, signals, generator)
    finish(tmp_path, "build-index")
    change(tmp_path / "photos", IMAGES)
    assert torture(tmp_path, "update", 1, 2, generator)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a process ends by SIGKILL")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_library_that_keeps_python_from_noticing_is_ended_all_the_same(number):
    holding = "collections.deque(itertools.repeat(0, 10**12), maxlen=0)"  # hours, and the interpreter is held
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # whoever runs the tests may ignore it
    begin = f"import collections, itertools, signal; {heard}; from aesearch import signals; signals.listen()"
    command = [sys.executable, "-u", "-c", f"{begin}; print(); {holding}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                process.communicate(timeout=0.5)  # by now it counts
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == -number and said.decode() == "stopped; the same command resumes where it can\n"
