"""Copies are told from other images by their pixels, whatever JPEG, another size or a small shift has done to them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from aesearch.images.same_pixels import most_different, pixel_distances

SIDE = 64


@pytest.fixture(scope="module")
def photos():
    """Parts of two photographs, 160 pixels a side."""
    whole = [Image.fromarray(image) for image in load_sample_images().images]
    return [
        photo.crop((left, top, left + 160, top + 160))
        for photo in whole
        for left in range(0, 480, 160)
        for top in (0, 160)
    ]


def gauge(angle):
    """A dial with its needle at that angle."""
    picture = Image.new("RGB", (240, 240), (225, 225, 220))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((20, 20, 220, 220), outline=(20, 20, 20), width=6, fill=(250, 250, 245))
    for turn in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        way = np.array([np.cos(turn), np.sin(turn)])
        draw.line((*(120 + 85 * way), *(120 + 97 * way)), fill=(20, 20, 20), width=3)
    way = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    draw.line((120, 120, *(120 + 75 * way)), fill=(190, 20, 20), width=4)
    return picture


def seen(pictures, side=SIDE):
    """(n, 3, side, side) uint8."""
    resized = [np.asarray(p.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)) for p in pictures]
    return np.stack(resized).transpose(0, 3, 1, 2)


def as_jpeg(picture, quality, scale=1.0):
    buffer = io.BytesIO()
    size = tuple(round(scale * length) for length in picture.size)
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize(("quality", "scale"), [(95, 1), (60, 1), (30, 1), (90, 0.7), (90, 0.5), (90, 2)])
def test_copies_in_other_qualities_and_sizes_are_the_same(photos, quality, scale):
    pictures = [*photos, gauge(20)]
    again = seen([as_jpeg(picture, quality, scale) for picture in pictures])
    far = pixel_distances(seen(pictures), again)
    assert (far <= most_different(again.shape)).all(), far
    assert pixel_distances(again, again).max() == 0


def test_a_little_shifted_or_cut_is_the_same(photos):
    cut = seen([picture.crop((2, 1, 160, 160)) for picture in photos])
    far = pixel_distances(seen(photos), cut)
    assert (far <= most_different(cut.shape)).mean() > 0.9


def test_other_needles_and_other_pictures_are_not(photos):
    needles = seen([gauge(angle) for angle in range(0, 360, 10)])
    assert pixel_distances(needles, np.roll(needles, 1, axis=0)).min() > most_different(needles.shape)
    pictures = seen(photos)
    assert pixel_distances(pictures, np.roll(pictures, 1, axis=0)).min() > most_different(pictures.shape)


def test_small_planes_on_one_sky_are_not(photos):
    sky = photos[0].resize((64, 64)).convert("RGB")
    pictures = []
    for points in ([(20, 30), (40, 33), (30, 38)], [(22, 36), (44, 28), (30, 30)]):
        pictures.append(Image.new("RGB", sky.size, (120, 170, 225)))
        ImageDraw.Draw(pictures[-1]).polygon(points, fill=(60, 60, 70))
    first, second = seen(pictures)
    assert pixel_distances(first[None], second[None])[0] > most_different(first.shape)


def test_digits_of_one_kind_by_other_writers_are_not(digit_images, digit_labels):
    rows = [row for row, label in enumerate(digit_labels) if label == "3"][:100]
    images = digit_images[rows][:, None]
    far = pixel_distances(images, np.roll(images, 1, axis=0))
    assert (far > most_different(images.shape)).mean() > 0.9


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 9), (1, 1, 9, 1), (0, 3, 8, 8)])
def test_images_of_any_shape_can_be_compared(shape):
    flat = np.full(shape, 7, np.uint8)
    assert pixel_distances(flat, flat).tolist() == [0.0] * shape[0]
