"""What is drawn: sizes, frames, groups; and a page that asks no network for anything."""

import re

import numpy as np
import pytest
from PIL import Image

from aesearch.errors import AesearchError
from aesearch.figures import (
    GREY,
    NAMED_GROUPS,
    MapDisplay,
    Tile,
    difference_picture,
    draw_history,
    draw_sheet,
    in_rows,
    save_picture,
    to_picture,
)


def tile(value, size=(8, 8), framed=False):
    return Tile(np.full(size, value, dtype=np.uint8), ("a caption", "that/is/very/long/" * 9), framed)


def test_a_sheet_shows_every_tile_enlarged_with_square_pixels():
    sheet = np.asarray(draw_sheet([[tile(10), tile(90)], [tile(170)]], "three"))
    for value in (10, 90, 170):
        assert (sheet == value).all(axis=-1).sum() == 112 * 112


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


def test_the_difference_is_dark_where_images_agree():
    original = np.zeros((1, 4, 4), np.uint8)
    rebuilt = np.zeros((1, 4, 4), np.float32)
    rebuilt[0, 2, 1] = 0.5
    drawn = difference_picture(original, rebuilt, 0.5).sum(axis=-1)
    assert drawn.argmax() == 9 and drawn[2, 1] > 500 > 20 > drawn[0, 0]


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
    many = make_map([str(i) for i in range(NAMED_GROUPS + 5)]).by_group()
    assert len(many) == NAMED_GROUPS + 1 and sum(len(rows) for _, _, rows in many) == NAMED_GROUPS + 5


@pytest.mark.parametrize("dims", [2, 3])
def test_the_page_is_whole_and_asks_no_network(dims):
    page = make_map(["a", "b", "a"], dims).page()
    assert "image 1" in page and "a title" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page)
    assert ("scattergl" if dims == 2 else "scatter3d") in page
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
