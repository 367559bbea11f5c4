"""What is drawn: sizes, frames, groups; and a page that asks no network for anything."""

import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from aesearch.drawing.figures import (
    Tile,
    beside,
    draw_sheet,
    heat_over,
    in_rows,
    save_picture,
    short_names,
    shorten,
    to_picture,
)
from aesearch.drawing.plots import GREY, PALETTE, MapDisplay, draw_history, group_colours
from aesearch.errors import AesearchError


def tile(value, size=(8, 8), framed=False):
    return Tile(np.full(size, value, dtype=np.uint8), ("a caption", "that/is/very/long/" * 9), framed)


def test_a_sheet_shows_every_tile_enlarged_with_square_pixels():
    sheet = np.asarray(draw_sheet([[tile(10), tile(90)], [None, tile(170)]], "three"))
    for value in (10, 90, 170):
        assert (sheet == value).all(axis=-1).sum() == 224 * 224
    small = np.asarray(draw_sheet(in_rows([tile(10)] * 100), "many"))
    assert (small == 10).all(axis=-1).sum() == 100 * 112 * 112


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("short.png", 20, "short.png"),
        ("airplane · cluster 3", 14, "airpl…luster 3"),
        ("org.gnome.Settings-symbolic.symbolic.png", 16, "org.gn…bolic.png"),
        ("measurement_of_the_7th_000123.png", 16, "measu…000123.png"),
        ("measurement_of_the_7th_000123.png", 12, "m…000123.png"),
        ("a  b\nc", 5, "a b c"),
        ("xxxxxxxxxx", 1, "…"),
        ("horse → truck, 0.951", 16, "horse…uck, 0.951"),
    ],
)
def test_a_text_is_cut_in_the_middle_and_keeps_a_number_at_its_end(text, most, shown):
    found = shorten(text, lambda cut: len(cut) <= most)
    assert len(found) <= most and found[-4:] == shown[-4:] and found[:1] == shown[:1]
    assert found == shown


def test_names_keep_folders_only_where_they_repeat():
    ids = ["cats/1.png", "dogs/1.png", "dogs/2.png", "a/x/3.png", "b/x/3.png", "3.png", "cats/1.png"]
    assert short_names(ids) == ["cats/1.png", "dogs/1.png", "2.png", "a/x/3.png", "b/x/3.png", "3.png", "cats/1.png"]
    assert short_names([]) == [] and short_names(["a/b/c"] * 2) == ["c", "c"]


def test_a_caption_that_is_too_wide_ends_as_it_does():
    """Two captions that differ in the middle alone are drawn alike, those that differ at an end are not."""

    def drawn(caption):
        return np.asarray(draw_sheet([[Tile(np.full((8, 8), 9, np.uint8), (caption,))]], "x"))

    long = "first part of it {} and then much more, at last 00017.png"
    same = [drawn(long.format("x" * 60 + letter + "x" * 60)) for letter in "ab"]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], drawn(long.format("x" * 121).replace("00017", "00018")))
    assert not np.array_equal(same[0], drawn(long.format("x" * 121).replace("first", "other")))


def test_a_query_is_framed():
    plain, framed = (np.asarray(draw_sheet([[tile(10, framed=f)]], "x")) for f in (False, True))
    accent = np.array([0xD6, 0x33, 0x6C])
    assert not (plain == accent).all(axis=-1).any() and (framed == accent).all(axis=-1).sum() > 1000


@pytest.mark.parametrize("count", [0, 1, 500])
@pytest.mark.parametrize("size", [(1, 1), (8, 8, 3), (300, 40), (20, 160, 3)])
def test_any_number_of_any_size_is_drawn(count, size):
    sheet = draw_sheet(in_rows([tile(50, size)] * count), "many")
    assert sheet.width >= 360 and sheet.height >= 40


def test_arrays_become_pictures():
    grey, colour = np.full((1, 2, 3), 0.5), np.zeros((3, 2, 3), np.uint8)
    assert to_picture(grey).tolist() == [[128] * 3] * 2
    assert to_picture(colour).shape == (2, 3, 3)


def test_a_picture_keeps_its_shape():
    pixels = np.full((30, 300), 40, np.uint8)
    sheet = np.asarray(draw_sheet([[Tile(pixels)]], "wide"))
    assert (sheet == 40).all(axis=-1).sum() == 224 * 22


def test_heat_lies_where_images_differ_and_the_picture_shows_elsewhere():
    errors = np.zeros((4, 4), np.float32)
    errors[2, 1] = 0.5
    picture = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    over = heat_over(picture, errors / np.float32(0.5)).astype(int)
    assert over.shape == picture.shape and np.ptp(over[25, 30]) > 50  # coloured
    assert np.ptp(over[:8], axis=-1).max() == 0 and over[:8].std() > 10  # grey, and still there


def test_the_scale_of_heat_is_told():
    plain, told = (np.asarray(draw_sheet([[tile(9)] * 5], "x", scale=s)) for s in (None, ("error", 0.5)))
    assert np.ptp(plain[:40].astype(int), axis=-1).max() < 10 < 100 < np.ptp(told[:40].astype(int), axis=-1).max()


def test_what_belongs_together_lies_beside_what_it_belongs_to():
    lead, others = tile(10), [tile(90)] * 7
    rows = beside(lead, others, 3)
    assert [[t is lead for t in row] for row in rows] == [[True] + [False] * 3, [False] * 4, [False] * 2]
    assert rows[1][0] is None and draw_sheet(rows, "x", apart=True).width > draw_sheet(rows, "x").width


def test_the_curve_marks_the_kept_epoch():
    axes = draw_history([1, 2, 3], [3.0, 2.0, 1.0], [3.0, 1.5, 2.0], "mse").axes[0]
    assert [line.get_label() for line in axes.lines] == ["training", "held out", "kept: epoch 2"]


def make_map(groups, dims=2):
    n = len(groups)
    coordinates = np.random.default_rng(0).normal(size=(n, dims)).astype(np.float32)
    return MapDisplay(coordinates, groups, [f"image {i}" for i in range(n)], "a title")


def test_groups_are_ordered_naturally_and_the_rest_is_grey():
    parts = make_map(["10", "2", "", "a", "2"]).by_group()
    assert [(name, rows.tolist()) for name, _, rows in parts] == [
        ("other", [2]),
        ("2", [1, 4]),
        ("10", [0]),
        ("a", [3]),
    ]
    assert parts[0][1] == GREY and len({colour for _, colour, _ in parts}) == 4
    many = make_map([str(i) for i in range(len(PALETTE) + 5)]).by_group()
    assert len(many) == len(PALETTE) + 1 and sum(len(rows) for _, _, rows in many) == len(PALETTE) + 5


def test_a_label_has_one_colour_wherever_it_is_drawn():
    groups = [*["2"] * 5, *["10"] * 9, "a", "", *["b 10", "b 9"]]
    colours = group_colours(groups)
    assert list(colours) == ["2", "10", "a", "b 9", "b 10"] and len(set(colours.values())) == 5
    picture = {name: colour for name, colour, _ in make_map(groups).by_group() if name != "other"}
    assert picture == colours
    drawn = make_map(groups).draw().axes[0].collections
    assert [to_hex(points.get_facecolor()[0]) for points in drawn] == [GREY, *colours.values()]
    many = group_colours([str(n % 30) for n in range(300)] + ["7"] * 3)
    assert len(many) == len(PALETTE) == len(set(many.values())) and "7" in many


def test_long_titles_and_groups_stay_within_the_picture():
    title = "a collection with a long name " * 4
    figure = MapDisplay(np.zeros((4, 2), np.float32), ["a" * 200, "b"] * 2, ["x"] * 4, title).draw()
    figure.canvas.draw()
    width = figure.bbox.width
    for text in (figure.axes[0].title, *figure.legends[0].get_texts()):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width
    assert figure.axes[0].bbox.width > 0.5 * width


def test_the_page_in_three_dimensions_is_whole_and_asks_no_network():
    page = make_map(["a", "b", "a"], 3).page()
    assert "image 1" in page and "a title" in page and "scatter3d" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page)
    assert "sendDataToCloud" not in re.search(r'"modeBarButtons":\s*\[\[.*?\]\]', page).group()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_picture_has_a_point_for_each_image(dims):
    figure = make_map(["a", "b", "", "a"], dims).draw()
    points = sum(len(c.get_offsets()) for c in figure.axes[0].collections)
    assert points == 4


def test_pictures_are_saved_by_their_ending(tmp_path):
    save_picture(Image.new("RGB", (5, 5)), tmp_path / "x.jpg")
    assert Image.open(tmp_path / "x.jpg").format == "JPEG"
    with pytest.raises(AesearchError, match="end its name"):
        save_picture(Image.new("RGB", (5, 5)), tmp_path / "x.doc")
    assert [p.name for p in tmp_path.iterdir()] == ["x.jpg"]
