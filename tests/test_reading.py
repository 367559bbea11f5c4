"""Processes that read files: the same images, no process left over, nothing lost with one of them."""

import gc
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from aesearch.images import worker_processes as reading
from aesearch.images.decode import Preprocessing
from aesearch.images.sources.opening import open_source
from aesearch.images.worker_processes import Readers, read_images

pytestmark = pytest.mark.skipif(
    os.name != "posix" or reading.cores() == 1, reason="readers are for several cores of a POSIX system"
)
PREPROCESSING = Preprocessing(24, 24, 3)
HOLDS_READERS = """
import signal, sys, time, psutil
from aesearch.images.worker_processes import Readers
signal.signal(signal.SIGINT, signal.default_int_handler)  # though whoever runs the tests ignores it
readers = Readers()
while not readers.ready:
    time.sleep(0.01)
print(*(child.pid for child in psutil.Process().children()), flush=True)
time.sleep(600)
"""

FORKS = """
import multiprocessing, sys, time
import numpy as np
from aesearch.images.sources import files as sources
from aesearch.images.decode import Preprocessing
from aesearch.images.sources.opening import open_source
sources.WORTH_READERS, sources.MANY = -1, 2
source, shape = open_source(sys.argv[1]), Preprocessing(24, 24, 3)
positions = np.arange(len(source))
expected = source.read(positions, shape).images
while not source._readers.ready:
    time.sleep(0.01)
readers = source._readers

def read():
    for _ in range(20):
        assert np.array_equal(source.read(positions, shape).images, expected)

others = [multiprocessing.get_context("fork").Process(target=read) for _ in range(2)]
for other in others:
    other.start()
read()
for other in others:
    other.join()
read()
print([other.exitcode for other in others], source._readers is readers and readers.ready)
"""


def until(condition, seconds=30):
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    return condition()


def children():
    return [c for c in psutil.Process().children() if reading.READER in c.cmdline()]


@pytest.fixture
def paths(mixed_folder, tmp_path):
    """Good files and bad ones, one by a name that is no Unicode, and a name that cannot be one."""
    some = sorted(p for p in mixed_folder.rglob("*") if p.is_file())
    odd = tmp_path / os.fsdecode(b"odd-\xff.png")
    odd.write_bytes(next(p for p in some if p.suffix == ".png").read_bytes())
    return [str(p) for p in (*some, odd)] + ["a\0b.png", "lone-\ud800.png", str(mixed_folder / "gone.png")]


@pytest.fixture
def started():
    """Readers at hand, and their processes."""
    before = children()
    readers = Readers()
    processes = [child for child in children() if child not in before]
    assert processes and until(lambda: readers._idle.qsize() == len(processes))
    return readers, processes


def read(by, paths):
    images = np.zeros((len(paths), *PREPROCESSING.shape), np.uint8)
    return images, by(paths, PREPROCESSING, images)


def assert_same(found, expected):
    good = [not reason for _, reason, _ in expected[1]]
    assert found[1] == expected[1] and 0 < sum(good) < len(good)
    assert np.array_equal(found[0][good], expected[0][good])


def test_readers_give_what_this_process_does(paths, started, monkeypatch):
    readers, _ = started
    expected = read(read_images, paths)
    monkeypatch.setattr(reading, "read_images", None)  # so that it is not this process that reads
    for _ in range(3):
        assert_same(read(readers.read, paths), expected)


def test_what_a_killed_reader_leaves_undone_is_done_here(paths, started):
    readers, processes = started
    expected = read(read_images, paths)
    for process in processes:
        process.kill()
    for _ in range(2 * len(processes)):
        assert_same(read(readers.read, paths), expected)
    assert not readers.ready


def test_a_source_turns_to_processes_once_they_are_worth_it(mixed_folder, monkeypatch):
    source = open_source(str(mixed_folder))
    positions = np.arange(len(source))
    expected = source.read(positions, PREPROCESSING)
    assert source._readers is None  # type: ignore[attr-defined]
    monkeypatch.setattr("aesearch.images.sources.files.WORTH_READERS", -1)
    monkeypatch.setattr("aesearch.images.sources.files.MANY", 2)
    source.read(positions[:1], PREPROCESSING)
    assert source._readers is None  # type: ignore[attr-defined]
    source.read(positions, PREPROCESSING)
    assert until(lambda: source._readers.ready)  # type: ignore[attr-defined]
    found = source.read(positions, PREPROCESSING)
    assert np.array_equal(found.images, expected.images) and len(found.images)
    assert (found.hashes, found.skipped) == (expected.hashes, expected.skipped)


def test_readers_end_with_what_holds_them():
    def some():
        held = Readers()
        assert until(lambda: held.ready)
        return children()

    before = children()
    processes = [child for child in some() if child not in before]
    gc.collect()
    assert processes and not any(process.is_running() for process in processes)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_readers_end_when_their_process_does(number):
    with subprocess.Popen([sys.executable, "-c", HOLDS_READERS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        pids = [int(word) for word in run.stdout.readline().split()]
        run.send_signal(number)
        run.communicate()
    assert pids and until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_forked_process_has_readers_of_its_own(mixed_folder):
    run = subprocess.run(
        [sys.executable, "-c", FORKS, mixed_folder], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == "[0, 0] True\n"


def test_where_no_reader_can_be_started_none_is_left(paths, monkeypatch):
    expected, before = read(read_images, paths), children()
    monkeypatch.setattr(sys, "path", [*sys.path, "a\0b"])
    readers = Readers()
    assert not readers.ready and children() == before
    assert_same(read(readers.read, paths), expected)
