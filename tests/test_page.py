"""The map's page, in a real browser without a network: what it shows, finds and lists, and that names stay text."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from browsing import check_quiet, drag, wait
from PIL import Image

from aesearch.collection.facade import Collection
from aesearch.drawing.map_page import MapPage
from aesearch.drawing.plots import GREY, MapDisplay
from aesearch.drawing.thumbnails import Atlas, empty_atlas

NASTY = '<img src=x onerror="document.title=1"> "quoted" {{script}} 😀.png'


def pictures(count, shape=(3, 20, 30)):
    return [np.full(shape, 40 + number % 200, np.uint8) for number in range(count)]


def test_an_atlas_keeps_every_thumbnail_where_it_says(monkeypatch):
    thumbnails = [None if n == 3 else picture for n, picture in enumerate(pictures(1500))]
    atlas = empty_atlas(1500).extended(np.full(1500, -1), np.arange(1500), [thumbnails[:700], thumbnails[700:]])
    again = Atlas.from_arrays(atlas.arrays())
    moved = np.arange(1500)[::-1]  # the images are others now, and 10 more have come
    places = np.concatenate([again.places[moved], np.full(10, -1)])
    new = [np.full((1, 9, 5), 7, np.uint8)] * 10
    again = again.extended(places, np.arange(1500, 1510), [new])
    for image, wanted in ((0, thumbnails[1499]), (1499, thumbnails[0]), (700, thumbnails[799]), (1505, new[5])):
        assert np.abs(cut(again, image).astype(int) - wanted.transpose(1, 2, 0)).mean() <= 4
    assert again.places[moved.tolist().index(3)] == -1 and len(again.sheets) == len(atlas.sheets) + 1


def cut(atlas, image):
    """An image's thumbnail, as a page finds it."""
    sheet, place = divmod(int(atlas.places[image]), atlas.across**2)
    pixels = np.asarray(Image.open(io.BytesIO(atlas.sheets[sheet])))
    top, left = place // atlas.across * atlas.side, place % atlas.across * atlas.side
    width, height = atlas.sizes[atlas.places[image]].tolist()
    return pixels[top : top + height, left : left + width]


def make_page(count=500):
    generator = np.random.default_rng(0)
    rows = np.arange(count)
    names = [f"{n:03}.png" for n in rows]
    names[7] = NASTY
    atlas = empty_atlas(count).extended(np.full(count, -1), rows, [pictures(count)])
    coordinates = generator.uniform(size=(count, 2)).astype(np.float32)
    columns = {"label": [f"group {n % 3}" if n else "" for n in rows], "split": ["train"] * count}
    near = (rows[:, None] + np.arange(1, 4)) % count
    title = "a <b>title</b>"
    return MapPage(title, rows, coordinates, names, columns, "label", coordinates[:, 0], "error", atlas, near)


def test_a_page_names_no_other_place_and_leaves_names_as_they_are():
    page = make_page().html()
    outside = re.findall(
        r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", re.sub(r"/\*.*?\*/", "", page, flags=re.S)
    )
    assert "default-src 'none'" in page and not [o for o in outside if "leaflet" not in o.lower()][1:]
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])
    assert data["names"][7] == NASTY and "<img" not in page and "&lt;b&gt;title" in page


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page; afterwards nothing was logged, and nothing asked for but that file."""
    path = tmp_path / "map.html"

    def show(page):
        path.write_text(page, encoding="utf-8")
        browser.get(path.as_uri())
        return browser

    yield show
    check_quiet(browser, "file:")


def test_the_page_colours_finds_lists_and_goes_on_to_neighbours(opened):
    browser = opened(make_page().html())
    assert browser.title == browser.find_element("tag name", "h1").text == "a <b>title</b>"
    legend = [e.text.split("\n")[0].strip() for e in browser.find_elements("css selector", ".legend button")]
    assert [name[:7] for name in legend] == ["group 0", "group 1", "group 2"]
    wait(browser, "document.querySelectorAll('.ground canvas').length > 3")
    browser.find_element("css selector", ".bar input").send_keys("onerror\n")
    assert wait(browser, "document.querySelector('.panel h2')?.textContent") == NASTY
    assert not browser.execute_script("return document.querySelector('.panel img, .hover img')")
    near = browser.execute_script("return [...document.querySelectorAll('.panel .entry b')].map((e) => e.textContent)")
    assert near == ["008.png", "009.png", "010.png"]
    browser.find_elements("css selector", ".panel .entry")[2].click()
    assert wait(browser, "document.querySelector('.panel h2').textContent === '010.png'")
    wait(browser, "imageMap.map.getZoom() >= 4 && !document.querySelector('.leaflet-zoom-anim')")
    before = browser.execute_script("return imageMap.map.getZoom()")
    browser.find_element("css selector", ".leaflet-control-zoom-in").click()
    wait(browser, "imageMap.map.getZoom() > arguments[0]", before)
    browser.find_elements("css selector", ".legend button")[0].click()
    assert browser.execute_script("return imageMap.isShown(3) === false && imageMap.isShown(4)")
    for choice in ("score", "split", "none"):
        browser.execute_script("const c = document.querySelector('.bar select'); c.value = arguments[0];"
                               "c.dispatchEvent(new Event('change'))", choice)  # fmt: skip
        wait(browser, "imageMap.isShown(3)")


SEEN = """
    const seen = [], pen = { fillRect() {},
      drawImage(image, sx, sy, sw, sh, x, y, w, h) { seen.push([x + w / 2, y + h / 2, w, h]); } };
    imageMap.drawTile(pen, { x: arguments[0], y: arguments[1], z: arguments[2] }, 256);
    return seen.map(([x, y, w, h]) => [x + 256 * arguments[0], y + 256 * arguments[1], w, h]);"""


@pytest.mark.parametrize("zoom", [1, 2, 3])
def test_an_image_on_the_border_of_two_tiles_is_drawn_in_both(opened, zoom):
    browser = opened(make_page(700).html())
    wait(browser, "imageMap.data.thumb(5) !== null && true")
    count = 2**zoom
    tiles = {
        (x, y): {tuple(np.round(one, 3)) for one in browser.execute_script(SEEN, x, y, zoom)}
        for x in range(count) for y in range(count)
    }  # fmt: skip
    whole, crossing = set().union(*tiles.values()), 0
    for (x, y), drawn in tiles.items():
        reaching = {
            one for one in whole
            if abs(one[0] - 256 * (x + 0.5)) < 128 + one[2] / 2 and abs(one[1] - 256 * (y + 0.5)) < 128 + one[3] / 2
        }  # fmt: skip
        assert reaching <= drawn, (x, y, reaching - drawn)
        crossing += len(reaching)
    assert len(whole) > 20 and crossing > len(whole)


def test_page_and_picture_colour_a_label_alike(opened):
    page = make_page()
    browser = opened(page.html())
    swatches = browser.execute_script(
        "return [...document.querySelectorAll('.legend button')].map((b) => "
        "[b.firstChild.nextSibling.textContent.trim(), b.querySelector('i').style.background])"
    )
    shown = {name: "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", rgb)) for name, rgb in swatches}
    display = MapDisplay(page.coordinates, page.columns["label"], page.names, "")
    assert shown == {name: colour for name, colour, _ in display.by_group() if name != "other"}
    drawn = browser.execute_script("return [imageMap.colours[0], imageMap.colours[1]]")
    assert drawn == [GREY, shown[page.columns["label"][1]]]


def test_the_lasso_lists_what_lies_in_it(opened):
    browser = opened(make_page().html())
    browser.find_element("xpath", "//button[text()='lasso']").click()
    box = browser.find_element("css selector", ".ground").rect
    middle, high, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, 120
    drag(browser, [(middle + r * np.cos(a), high + r * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 40)])
    wait(browser, "document.querySelector('.panel h2')?.textContent.endsWith('selected')")
    browser.execute_script("window.URL.createObjectURL = (blob) => { window.saved = blob.text(); return 'data:,' }")
    browser.find_element("xpath", "//button[text()='CSV']").click()
    table = list(csv.reader(browser.execute_script("return saved").splitlines()))
    count = int(browser.find_element("css selector", ".panel h2").text.split()[0])
    assert table[0] == ["row", "id", "label", "split", "error"] and len(table) == count + 1
    page = make_page()
    place = dict(zip(page.names, page.coordinates, strict=True))
    inside = np.array([place[row[1]] for row in table[1:]])
    scale = 2 ** browser.execute_script("return imageMap.map.getZoom()") * 256
    assert 20 < count < 400 and (np.hypot(*(inside - 0.5).T) * scale < r + 12).all()


@pytest.mark.parametrize("width", [360, 1200])
def test_it_is_usable_at_any_width(opened, browser, width):
    browser.set_window_size(width, 740)
    opened(make_page(40).html())
    browser.find_element("css selector", ".bar input").send_keys("011\n")
    wait(browser, "document.querySelector('.panel h2')?.textContent === '011.png'")
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    boxes = [browser.find_element("css selector", name).rect for name in (".ground", ".panel")]
    assert all(box["width"] >= 150 and box["height"] >= 150 for box in boxes)


def test_a_collection_s_map_shows_its_images(opened, tmp_path, digit_images):
    (tmp_path / "photos").mkdir()
    for number in range(40):
        Image.fromarray(digit_images[number]).save(tmp_path / f"photos/{number:02}.png")
    built = Collection.build(str(tmp_path / "photos"), tmp_path / "c", progress=False, epochs=1, latent_dim=8)
    built.map(method="pca")
    thumbnails = (built.folder / "thumbnails.h5").read_bytes()
    for number in range(40, 44):
        Image.fromarray(digit_images[number]).save(tmp_path / f"photos/{number:02}.png")
    (tmp_path / "photos/00.png").unlink()
    built.update()
    assert (built.folder / "thumbnails.h5").read_bytes() != thumbnails
    atlas = built._maps._atlas()
    for row in (0, 20, 42):
        number = int(built.ids[row][:2])
        assert np.abs(cut(atlas, row)[..., 0].astype(int) - digit_images[number]).mean() < 12
    browser = opened((built.folder / "map-pca.html").read_text(encoding="utf-8"))
    wait(browser, "imageMap.data.count === 43 && imageMap.data.thumb(42)?.width === 8")
