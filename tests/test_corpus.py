"""A folder of the worst files: each is taken or listed with a reason, and none is mixed up with another."""

from __future__ import annotations

import csv
import os
import socket
import stat
import struct
import zlib

import h5py
import numpy as np
import pytest
from conftest import gradient, jpeg_bytes, png_claiming
from fuzz import SEEN, mutate, originals
from PIL import Image, ImageCms

from aesearch.collection.facade import Collection
from aesearch.errors import SourceError
from aesearch.images.decode import Preprocessing, UnreadableImageError, decode, describe
from aesearch.images.sources.opening import open_source


def png(width, height, rows, *, interlaced=False, broken=False):
    """Bytes of a grey PNG, put together by hand."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data) ^ (1 if broken and kind == b"IDAT" else 0)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_files(root):
    """Regular files; names of those that are good images."""
    good = {}
    for number, (name, data) in enumerate(originals().items()):
        good[f"kinds/{number}-{name.replace(' ', '-').replace(';', '')}"] = data
    picture = gradient(40, 30)
    plain = jpeg_bytes(picture)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        good[f"exif/{orientation}.jpg"] = jpeg_bytes(picture, exif=exif)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    good["icc.jpg"] = jpeg_bytes(picture, icc_profile=profile)
    good["cmyk.jpg"] = jpeg_bytes(picture.convert("CMYK"))
    good["interlaced.png"] = png(1, 1, [b"\x80"], interlaced=True)
    good["1x1.png"] = png(1, 1, [b"\x80"])
    good["1x20000.png"] = png(1, 20_000, [b"\x10"] * 20_000)
    good["a jpeg.png"] = good["quotes \" and ' and ;.jpg"] = good["new\nline.jpg"] = plain
    good["=1+1.jpg"] = good["<b>bold</b>.jpg"] = good["\x1b[31mred.jpg"] = plain
    good["x" * 246 + ".jpg"] = good["名前 ß.jpg"] = plain
    bad = {
        "empty.jpg": b"",
        "claims.png": png_claiming(50_000, 50_000),
        "text.png": b"hello",
        "jpeg.jpg": b"\xff\xd8\xff",
    }
    for ending, kind in ((".jpg", "JPEG"), (".png", "PNG"), (".tif", "TIFF"), (".gif", "GIF"), (".webp", "WEBP")):
        data = originals()[f"{kind} RGB" if kind != "GIF" else "GIF P"]
        bad |= {f"cut/{tenth}{ending}": data[: len(data) * tenth // 10] for tenth in range(1, 10)}
    bad["checksum.png"] = png(4, 4, [b"\x80" * 4] * 4, broken=True)
    for name, data in (good | bad).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(plain)
    return good, bad


def write_traps(root):
    """What is no file, or leads in circles; names of what could be taken for a file."""
    (root / "loop").symlink_to(root)
    (root / "self.jpg").symlink_to(root / "self.jpg")
    os.mkfifo(root / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(root)
        bound.bind("socket.jpg")
    if os.geteuid():
        return ["self.jpg", "pipe.jpg", "socket.jpg"]
    os.mknod(root / "device.jpg", 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # /dev/null
    return ["self.jpg", "pipe.jpg", "socket.jpg", "device.jpg"]


def test_a_corpus_of_bad_files(tmp_path, monkeypatch, run, capfd):
    monkeypatch.chdir(tmp_path)  # restored afterwards
    root = tmp_path / "photos"
    root.mkdir()
    good, bad = write_files(root)
    traps = write_traps(root)
    collection = Collection.build(str(root), tmp_path / "c", progress=False, epochs=1, latent_dim=8, image_size=(16,))
    taken = set(collection.ids)
    with (tmp_path / "c/skipped.csv").open(newline="", encoding="utf-8") as file:
        skipped = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert not set(good) - taken and len(taken) == collection.store.rows
    assert not taken & set(skipped) and all(skipped.values())
    assert {"empty.jpg", "claims.png", "text.png", "jpeg.jpg", *traps} <= set(skipped)
    assert taken | set(skipped) == {*good, *bad, *traps, r"caf\xe9.jpg"}
    features = collection.features()
    for id in sorted(set(good) & taken)[::9]:  # a row is the file of its name
        assert np.abs(collection.encode([root / id])[0] - features[collection.ids.index(id)]).max() < 1e-4
    said = run("query", "--row", 0, "-k", 500, "-c", tmp_path / "c").stdout
    run("export", "features.csv", "--format", "csv", "-c", tmp_path / "c")
    assert "'=1+1.jpg" in (root / "features.csv").read_text(encoding="utf-8")
    assert "\x1b" not in said and len(said.splitlines()) == collection.store.rows + 1


def test_files_that_vanish_or_change_after_they_were_listed(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(12):
        gradient(20 + number, 30).save(root / f"{number:02}.png")
    collection = Collection.build(str(root), tmp_path / "c", progress=False, epochs=1, latent_dim=8, image_size=(16,))
    before = collection.features()
    source = open_source(str(root))
    assert len(source.stamps) == 12  # listed, but for the contents
    (root / "03.png").unlink()
    (root / "05.png").write_bytes((root / "05.png").read_bytes()[:40])
    (root / "07.png").write_bytes((root / "00.png").read_bytes())
    (root / "09.png").unlink()
    (root / "09.png").mkdir()
    collection.extract(source)
    assert collection.ids == [f"{n:02}.png" for n in range(12) if n not in (3, 5, 9)]
    assert [id for id, _ in collection.store.skipped()] == ["03.png", "05.png", "09.png"]
    now = collection.features()
    assert np.allclose(now[:3], before[:3], atol=1e-5) and np.allclose(now[5], before[0], atol=1e-5)
    assert collection.update().encoded == 0 and np.array_equal(collection.features(), now)


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
@pytest.mark.parametrize("fate", ["gone", "cut", "smaller"])
def test_an_array_file_that_changes_after_it_was_opened(tmp_path, kind, fate):
    def write(rows):
        images = np.zeros((rows, 8, 8), np.uint8)
        if kind == "h5":
            with h5py.File(path, "w") as file:
                file["images"] = images
        elif kind == "npz":
            np.savez(path, images=images)
        else:
            np.save(path, images)

    path = tmp_path / f"x.{kind}"
    write(50)
    source = open_source(str(path))
    if fate == "smaller":
        write(20)
    elif fate == "cut":
        os.truncate(path, 300)
    else:
        path.unlink()
    if kind == "npz":  # is read whole when it is opened
        assert source.read(np.arange(30, 50), Preprocessing(8, 8, 1)).images.shape == (20, 1, 8, 8)
        return
    with pytest.raises(SourceError, match="has changed"):
        source.read(np.arange(30, 50), Preprocessing(8, 8, 1))


def test_mutated_files_are_taken_or_refused():
    files = originals()
    outcomes = set()
    for number, (name, data) in enumerate(files.items()):
        for again in range(3):
            changed = mutate(data, np.random.default_rng([2, number, again]))
            try:
                assert all(decode(changed, p).shape == p.shape for p in SEEN), name
                describe(changed)
                outcomes.add("taken")
            except UnreadableImageError:
                outcomes.add("refused")
    assert outcomes == {"taken", "refused"} and len(files) > 100
