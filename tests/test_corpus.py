"""A folder of the worst files: each is taken or listed with a reason, and none is mixed up with another."""

from __future__ import annotations

import csv
import os
import socket
import stat
import struct
import zlib

import numpy as np
from conftest import gradient, jpeg_bytes, png_claiming
from fuzz import SEEN, mutate, originals
from PIL import Image, ImageCms

from aesearch.collection import Collection
from aesearch.decoding import UnreadableImageError, decode, describe


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
