"""Real images, small: scikit-learn's digits, and files of every kind written on the spot."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from browsing import find_browser, open_browser
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from typer.testing import CliRunner

import aesearch
from aesearch.anomalies import finder
from aesearch.cli import app
from aesearch.collection.facade import Collection
from aesearch.collection.manifest import Manifest, file_fingerprint

# processes that tests start import the very package that they test, wherever it is installed
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(aesearch.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)
QUICK = {"epochs": 8, "latent_dim": 16}


@pytest.fixture(scope="session", autouse=True)
def short_trainings():
    """The finder of faults learns for a few steps; a test of how good it is asks for all of them."""
    finder.MOST_STEPS = 60


@pytest.fixture(scope="session")
def digit_images():
    """(1797, 8, 8) uint8."""
    return np.rint(load_digits().images * (255 / 16)).astype(np.uint8)


@pytest.fixture(scope="session")
def digit_labels():
    return [str(t) for t in load_digits().target]


@pytest.fixture(scope="session")
def tiles():
    """(520, 3, 32, 32) uint8, cut from two photographs, and which of the two each is of, (520,)."""
    cut = []
    for photograph in load_sample_images().images:
        rows, columns = (side // 32 for side in photograph.shape[:2])
        whole = photograph[: rows * 32, : columns * 32].reshape(rows, 32, columns, 32, 3)
        cut.append(whole.transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32))
    return np.ascontiguousarray(np.concatenate(cut)), np.repeat([0, 1], [len(part) for part in cut])


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A collection of the digits that tests only read or derive from."""
    folder = tmp_path_factory.mktemp("collections") / "digits"
    return Collection.build("digits", folder, progress=False, **QUICK)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command line in an empty folder; checks the exit code and that nothing was a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AESEARCH_COLLECTION", raising=False)

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        if code == 1:
            line = result.stderr.strip().splitlines()[-1]
            assert line.startswith("error: ")
            assert not result.stdout
        return result

    return run


def sign_again(folder, change):
    """Change a manifest, and have it know the files as they are now."""
    manifest = Manifest.load(folder)
    change(manifest)
    for artifact in manifest.artifacts.values():
        for file, facts in artifact["files"].items():
            facts |= {"bytes": (folder / file).stat().st_size, "sha256": file_fingerprint(folder / file)}
    manifest.save()


def gradient(height=24, width=32, channels=3):
    """Draw a picture that has a top-left corner: bright red there."""
    y, x = np.mgrid[0:height, 0:width]
    red = np.clip(255 - 6 * (x + y), 0, 255)
    pixels = np.stack([red, x * 255 // width, y * 255 // height], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def png_claiming(width, height):
    """Bytes of a small PNG whose header claims a huge image."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def jpeg_bytes(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


GOOD = (
    "a plain.png", "alpha.png", "animated.gif", "bilevel.png", "bmp.bmp", "cmyk.jpg", "deep.png", "exif.jpg",
    "float.tif", "grey.jpg", "palette.png", "tall.webp", "unicode-ß-名.png", "wide/nested/deep down.png", "wrong.txt",
)  # fmt: skip
BAD = {
    "bomb.png": "pixels", "broken.jpg": "broken", "empty.png": "empty", "notes.md": "not an image",
    "postscript.eps": "not an image", "unreadable.png": "cannot be read",
}  # fmt: skip


@pytest.fixture(scope="session")
def mixed_folder(tmp_path_factory):
    """Every kind of file a folder of images may hold; GOOD gives rows, BAD reasons."""
    root = tmp_path_factory.mktemp("mixed")
    picture = gradient()
    picture.save(root / "a plain.png")
    alpha = picture.copy()
    alpha.putalpha(Image.new("L", picture.size, 128))
    alpha.save(root / "alpha.png")
    frames = [gradient(), Image.new("RGB", picture.size, "blue")]
    frames[0].save(root / "animated.gif", save_all=True, append_images=frames[1:])
    picture.convert("1").save(root / "bilevel.png")
    picture.save(root / "bmp.bmp")
    picture.convert("CMYK").save(root / "cmyk.jpg", quality=95)
    deep = np.linspace(0, 4095, 24 * 32).reshape(24, 32).astype(np.uint16)
    Image.fromarray(deep).save(root / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(root / "exif.jpg", exif=exif, quality=95)
    Image.fromarray(np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)).save(root / "float.tif")
    picture.convert("L").save(root / "grey.jpg")
    picture.quantize(16).save(root / "palette.png")
    gradient(90, 20).save(root / "tall.webp", quality=95)
    picture.save(root / "unicode-ß-名.png")
    (root / "wide/nested").mkdir(parents=True)
    gradient(10, 400).save(root / "wide/nested/deep down.png")
    picture.save(root / "wrong.txt", "PNG")

    (root / "bomb.png").write_bytes(png_claiming(50_000, 50_000))
    (root / "broken.jpg").write_bytes(jpeg_bytes(gradient(200, 200))[:700])
    (root / "empty.png").write_bytes(b"")
    (root / "notes.md").write_text("not a picture")
    (root / "postscript.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    (root / "unreadable.png").symlink_to(root / "gone.png")
    (root / ".hidden").mkdir()
    picture.save(root / ".hidden/x.png")
    return root


NASTY = '<img src=x onerror="document.title=1"> "q" \'s {{script}} =1+1 😀.png'


def write_labelled(folder, images, labels):
    """Each image in the folder of its label, named by its number."""
    for number, (image, label) in enumerate(zip(images, labels, strict=False)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{number:03}.png")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory, digit_images, digit_labels):
    """A collection of 160 digits in files, labels their folders, one file with a nasty name; all is made of it."""
    root = tmp_path_factory.mktemp("served")
    write_labelled(root / "photos", digit_images[:160], digit_labels)
    shutil.copy(root / "photos/0/000.png", root / f"photos/0/{NASTY}")
    made = Collection.build(str(root / "photos"), root / "c", labels="folder", progress=False, epochs=2, latent_dim=16)
    made.cluster(method="kmeans", clusters=3, space="features")
    made.anomalies(score="combined")
    made.map(method="pca")
    return made.folder


@contextlib.contextmanager
def serving(folder, *options):
    """`aesearch serve` in a process of its own; its address, and the process."""
    command = [sys.executable, "-m", "aesearch", "serve", "-c", str(folder), "--port", "0", *options]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may ignore it
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, preexec_fn=heard, **pipes) as process:
        try:
            line = process.stdout.readline()
            assert " http://" in line, line + process.stderr.read()
            yield line.split(": ", 1)[1].split("  ")[0], process
        finally:
            process.kill()


@pytest.fixture(scope="session")
def served(labelled):
    """Address of a server of `labelled`."""
    with serving(labelled) as (address, _):
        yield address


@pytest.fixture(scope="session")
def one_browser():
    found = find_browser()
    if found is None:
        pytest.skip("needs chromium and chromedriver")
    browser = open_browser(*found)
    yield browser
    browser.quit()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and (browser := getattr(item, "funcargs", {}).get("browser")):
        path = Path(item.config.rootpath, "results", f"{item.name}.png".replace("/", "-"))
        path.parent.mkdir(exist_ok=True)
        browser.save_screenshot(str(path))
        report.sections.append(("what the browser showed", str(path)))
    return report


@pytest.fixture
def browser(one_browser):
    """As it was opened, whatever tests before have made of it; what it shows when a test fails is kept in results/."""
    one_browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    one_browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    one_browser.set_window_size(1200, 800)
    one_browser.get("about:blank")
    for kind in ("browser", "performance"):  # what pages of other tests have logged
        one_browser.get_log(kind)
    return one_browser


def data_dir():
    """Folder with torchvision's datasets, or a skip that says why."""
    folder = os.environ.get("AESEARCH_DATA", "")
    if not (Path(folder) / "MNIST/raw/train-images-idx3-ubyte").is_file():
        pytest.skip("MNIST is not there; AESEARCH_DATA says where")
    return folder
