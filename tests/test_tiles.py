"""Large pictures in tiles: what is cut, how they are read, searched, ranked and brought up to date."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from aesearch import AesearchError, Collection
from aesearch.images.decode import Preprocessing, decode, size_in_header
from aesearch.images.sources.opening import open_source
from aesearch.images.tiles import Tiling, parse_box, picture_and_box, tile_id

GREY = Preprocessing(32, 32, 1)


def photographs(count, height=160, width=288):
    """Pieces of a photograph of a town."""
    town, draw = load_sample_image("china.jpg"), np.random.default_rng(0)
    places = [(draw.integers(427 - height), draw.integers(640 - width)) for _ in range(count)]
    return [town[top : top + height, left : left + width] for top, left in places]


@pytest.fixture
def folder(tmp_path):
    """24 pictures of 288 x 160 pixels, of several formats, and a broken one."""
    root = tmp_path / "photos"
    root.mkdir()
    for number, pixels in enumerate(photographs(24)):
        Image.fromarray(pixels).save(root / f"{number:02d}.{('png', 'jpg', 'tif')[number % 3]}")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return root


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """A collection of tiles of 64 pixels, one every 32; made once."""
    root = tmp_path_factory.mktemp("tiled")
    folder_of = root / "photos"
    folder_of.mkdir()
    for number, pixels in enumerate(photographs(24)):
        Image.fromarray(pixels).save(folder_of / f"{number:02d}.png")
    return Collection.build(str(folder_of), root / "c", progress=False, effort="quick", tiles="64,32")


def test_tiles_cover_a_picture_to_its_edges():
    for text, height, width in (("64", 100, 130), ("64,32", 64, 200), ("256", 20, 700), ("16,5", 33, 47), ("8", 8, 8)):
        covered = np.zeros((height, width), int)
        for left, top, wide, tall in Tiling.parse(text).boxes(height, width):
            assert (wide, tall) == (min(width, Tiling.parse(text).side), min(height, Tiling.parse(text).side))
            covered[top : top + tall, left : left + wide] += 1
        assert covered.min() >= 1
    assert len(Tiling.parse("64").boxes(128, 192)) == 6
    assert [str(Tiling.parse(text)) for text in ("256", "256,256", " 256 , 128")] == ["256", "256", "256,128"]


@pytest.mark.parametrize("text", ["", "x", "0", "4", "256,0", "256,512", "256,", "256,128,64", "-64", "99999", "٣٢"])
def test_other_tiles_are_refused(text):
    with pytest.raises(AesearchError, match="--tiles"):
        Tiling.parse(text)


def test_an_id_says_which_picture_and_where():
    assert picture_and_box(tile_id("a#b/c.png", (1, 2, 30, 40))) == ("a#b/c.png", (1, 2, 30, 40))
    assert picture_and_box("a#b.png") == ("a#b.png", None)
    for text in ("1,2,3", "1,2,3,0", "a,b,c,d", "1,2,3,-4", ""):
        with pytest.raises(AesearchError, match="box"):
            parse_box(text)


def test_each_tile_is_that_piece_of_its_picture(folder, monkeypatch):
    source = open_source(str(folder), tiles="64,32")
    assert len(source) == 24 * len(Tiling(64, 32).boxes(160, 288))
    assert source.listing_skips[0][0] == "broken.jpg" and set(source.groups) == {
        f
        for f in source.pictures.ids  # type: ignore[attr-defined]
        if "b" not in f  # type: ignore[attr-defined]
    }
    own = Preprocessing(64, 64, 3)
    positions = np.random.default_rng(0).permutation(len(source))[:40]
    batch = source.read(positions, own)
    for position, image, digest in zip(positions, batch.images, batch.hashes, strict=True):
        name, (left, top, width, height) = picture_and_box(source.ids[position])
        whole = decode((folder / name).read_bytes(), Preprocessing(160, 288, 3))
        assert np.array_equal(image, whole[:, top : top + height, left : left + width]) and len(digest) == 32
    assert np.array_equal(source.read(positions[:5], own).images, batch.images[:5])
    # Smaller, a JPEG is decoded at half its size at most: nearly what resizing the piece gives.
    small = source.read(positions, GREY).images.astype(int)
    for position, image in zip(positions, small, strict=True):
        name, (left, top, width, height) = picture_and_box(source.ids[position])
        piece = Image.open(folder / name).crop((left, top, left + width, top + height))
        wanted = np.asarray(piece.convert("L").resize((32, 32), Image.Resampling.BILINEAR), int)
        assert np.abs(image[0] - wanted).mean() < 3
        if not name.endswith("jpg"):  # only the outermost pixels see what lies beyond the tile
            assert np.abs(image[0] - wanted)[1:-1, 1:-1].max() <= 1
    decoded = []
    from aesearch.images import tiles

    real = tiles.decode_whole
    monkeypatch.setattr(tiles, "decode_whole", lambda *given: decoded.append(1) or real(*given))
    for start in range(0, len(source), 25):
        source.read(np.arange(start, min(start + 25, len(source))), GREY)
    assert len(decoded) == 24  # once each, though batches end within pictures


def test_a_tile_is_the_same_alone_and_among_all_of_its_picture(folder):
    """Those of the last column begin where no pixel of the picture at half its size does."""
    source = open_source(str(folder), tiles="60,30")
    for like in (GREY, Preprocessing(30, 30, 3), Preprocessing(60, 60, 1)):
        together = source.read(np.arange(len(source)), like).images
        for position in (0, 5, 9, 17, len(source) - 1):
            assert np.array_equal(source.read(np.array([position]), like).images[0], together[position])


def test_turned_pictures_are_cut_upright(tmp_path):
    (tmp_path / "x").mkdir()
    pixels = photographs(1)[0]
    exif = Image.Exif()
    for number, way in enumerate((1, 3, 6, 8)):
        exif[0x0112] = way
        Image.fromarray(pixels).save(tmp_path / f"x/{number}.jpg", exif=exif, quality=95)
    sizes = [size_in_header(tmp_path / f"x/{number}.jpg") for number in range(4)]
    assert sizes == [(160, 288), (160, 288), (288, 160), (288, 160)]
    source = open_source(str(tmp_path / "x"), tiles="64")
    for like in (Preprocessing(64, 64, 3), Preprocessing(16, 16, 3)):
        found = source.read(np.arange(len(source)), like).images
        for position, image in enumerate(found):
            name, (left, top, width, height) = picture_and_box(source.ids[position])
            turned = sizes[int(name[0])]
            whole = decode((tmp_path / "x" / name).read_bytes(), Preprocessing(*turned, 3))
            piece = Image.fromarray(whole.transpose(1, 2, 0)).crop((left, top, left + width, top + height))
            wanted = np.asarray(piece.resize((like.width, like.height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
            assert np.abs(image.astype(int) - wanted).mean() < 4


def test_deep_pictures_are_cut_in_the_scale_of_the_collection(tmp_path):
    (tmp_path / "x").mkdir()
    for number, pixels in enumerate(photographs(12)):
        deep = pixels[..., 1].astype(np.uint16) * 16 + number
        Image.fromarray(deep).save(tmp_path / f"x/{number}.png")
    made = Collection.build(str(tmp_path / "x"), tmp_path / "c", progress=False, effort="quick", tiles="64")
    assert 0.5 * 4095 < made.spec.preprocessing.white <= 4095
    images = made.source.read(np.arange(15), made.spec.preprocessing).images
    assert images.std() > 30


def test_a_box_a_tile_and_a_picture_find_tiles(tiled):
    (picture, box), row = picture_and_box(tiled.ids[40]), 40
    file = f"{tiled.source.name}/{picture}"
    found = tiled.query(file, box=box, k=3)
    assert found.rows[0] == row and found.distances[0] < 1e-3 and found.query.endswith("#" + ",".join(map(str, box)))
    assert row not in tiled.query(id=tiled.ids[40], k=5).rows
    whole = tiled.query(file, k=60)
    assert {picture_and_box(id)[0] for id in whole.ids[:32]} == {picture} and whole.orientations is None
    piece = Image.open(file).crop((box[0], box[1], box[0] + 64, box[1] + 64))
    assert tiled.query(piece, k=1).rows[0] == row
    over = tiled.query(file, box=(*box[:2], 10_000, 10_000), k=1)  # as far as the picture goes
    assert len(over.rows) == 1
    with pytest.raises(AesearchError, match="outside its 288 x 160 pixels"):
        tiled.query(file, box=(500, 0, 10, 10))


def test_what_is_asked_for_is_shown_in_its_place(tiled, run, tmp_path):
    whole, box = tiled.in_place([3])[0]
    assert whole.shape == (3, 160, 288) and box[2] - box[0] == pytest.approx(64 / 288)
    assert tiled.pictures([3])[0].shape == (3, 64, 64)
    file = f"{tiled.source.name}/03.png"
    told = run(
        "query", file, "--box", "10,10,64,64", "-c", tiled.folder, "-k", 4, "--save", tmp_path / "q.png", "--json"
    )
    hits = json.loads(told.stdout)["queries"][0]["hits"]
    assert hits[0]["id"].startswith("03.png#") and Image.open(tmp_path / "q.png").height > 200
    assert "left, top, width and height" in run("query", file, "--box", "1,2", "-c", tiled.folder, code=1).stderr


@pytest.mark.slow
def test_what_is_odd_is_ranked_by_picture_and_by_tile_and_shown_where_it_lies(folder, tmp_path, run):
    made = Collection.build(str(folder), tmp_path / "c", progress=False, effort="quick", tiles="64")
    pictures = made.anomalies(score="patches", top=30)
    assert pictures.scored == 24 and len(set(pictures.ids)) == 24 and len(pictures.tiles) == 24
    tiles = made.anomalies(score="patches", top=4, per="tile")
    assert tiles.scored == len(made) and tiles.ids[0] == pictures.tiles[0] and not tiles.tiles
    assert np.allclose(tiles.scores[0], pictures.scores[0])
    maps = made.heat_maps(pictures)
    assert {one.shape for one in maps} == {(160, 288)}
    (heat,), (_, box) = made.heat_maps(tiles)[:1], picture_and_box(tiles.ids[0])
    left, top, width, height = box
    heat = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR))
    inner = maps[0][top : top + height, left : left + width]  # the last tiles of a line lie over others
    assert np.allclose(inner[:32, :32], heat[:32, :32]) or left + width == 288 or top + height == 160
    across, down = pictures.where[0] * [288, 160]
    assert left <= across <= left + width and top <= down <= top + height
    assert np.allclose((across - left, down - top), tiles.where[0] * 64, atol=0.01)
    files = ["--csv", tmp_path / "odd.csv", "--heatmaps", tmp_path / "heat", "--save", tmp_path / "odd.png"]
    out = run("anomalies", "-c", made.folder, "--score", "patches", "--top", 2, *files).stdout
    assert "#" in out and len(list((tmp_path / "heat").iterdir())) == 2
    assert Image.open(next((tmp_path / "heat").iterdir())).size == (288, 160)


def test_thresholds_count_pictures(tiled):
    by_picture = tiled.anomalies(score="reconstruction", false_alarms=0.5, top=100)
    held_out = tiled.store.held_out()
    pictures = {picture_and_box(id)[0] for id, out in zip(tiled.ids, held_out, strict=True) if out}
    assert by_picture.alarms.learned_from == len(pictures)
    assert all(held_out[[id.startswith(name) for id in tiled.ids]].all() for name in pictures)
    by_tile = tiled.anomalies(score="reconstruction", false_alarms=0.5, top=1000, per="tile")
    assert by_tile.alarms.threshold == by_picture.alarms.threshold
    assert {picture_and_box(id)[0] for id in by_tile.ids} == set(by_picture.ids)


def test_an_update_knows_tiles_by_their_picture(folder, tmp_path):
    made = Collection.build(str(folder), tmp_path / "c", progress=False, effort="quick", tiles="64")
    each = len(Tiling(64, 64).boxes(160, 288))
    (folder / "00.png").rename(folder / "new-name.png")
    (folder / "01.jpg").unlink()
    Image.fromarray(photographs(30)[-1]).save(folder / "99.png")
    done = made.update()
    assert (done.added, done.removed, done.renamed, done.encoded) == (each, each, each, each)
    again = Collection.open(made.folder, progress=False)
    assert again.tiling == Tiling(64, 64) and len(again) == 24 * each
    assert "new-name.png#0,0,64,64" in again.ids and again.update().unchanged == len(again)


def test_how_pictures_are_cut_is_the_collection_s_own(tiled, tmp_path, digit_images):
    with pytest.raises(AesearchError, match="trained with --tiles 64,32, not 128"):
        Collection.build(tiled.source.name, tiled.folder, progress=False, tiles="128")
    with pytest.raises(AesearchError, match="holds none"):
        np.save(tmp_path / "x.npy", digit_images)
        Collection.build(str(tmp_path / "x.npy"), tmp_path / "d", progress=False, tiles="64")
    new = tmp_path / "new"
    new.mkdir()
    Image.fromarray(photographs(40)[-1]).save(new / "a.png")
    assert tiled.anomalies(str(new), score="reconstruction").ids == ["a.png"]


def test_pictures_too_large_or_gone_are_left_out_and_said(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO, "aesearch")
    source = open_source(str(folder), tiles="64")
    (folder / "02.tif").unlink()
    Image.fromarray(photographs(1)[0][:80]).save(folder / "03.png")
    batch = source.read(np.arange(len(source)), GREY)
    said = {source.ids[position].partition("#")[0]: reason for position, reason in batch.skipped}
    assert set(said) == {"02.tif", "03.png"} and "another size" in said["03.png"]
    assert source.thumbnails([0], 40, GREY)[0].shape == (1, 40, 40)
    assert source.thumbnails([int(batch.skipped[0][0])], 40, GREY) == [None]


def test_one_colour_picture_among_many_grey_ones_is_seen(tmp_path):
    (tmp_path / "x").mkdir()
    for number, pixels in enumerate(photographs(60, 64, 64)):
        Image.fromarray(pixels if number == 17 else pixels[..., 1]).save(tmp_path / f"x/{number:02d}.png")
    facts = open_source(str(tmp_path / "x"), tiles="32").sample_facts()
    assert len(facts) == 60 and sum(not one.grey for one in facts) == 1 and {one.height for one in facts} == {32}
