"""One image file to one array: what each mode becomes, and what is refused."""

import io
import struct

import numpy as np
import pytest
from conftest import gradient, jpeg_bytes, png_claiming
from PIL import Image

from aesearch.errors import SourceError
from aesearch.images.decode import (
    ImageFacts,
    Preprocessing,
    UnreadableImageError,
    choose_preprocessing,
    decode,
    describe,
    fit,
    parse_image_size,
)

COLOUR, GREY = Preprocessing(24, 32, 3), Preprocessing(24, 32, 1)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def tiff(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "TIFF")
    return buffer.getvalue()


def test_a_plain_image_comes_through_unchanged():
    picture = gradient()
    assert np.array_equal(decode(png(picture), COLOUR), np.asarray(picture).transpose(2, 0, 1))


def test_grey_is_the_luminance():
    assert np.array_equal(decode(png(gradient()), GREY)[0], np.asarray(gradient().convert("L")))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_gives_both_channel_counts(mode):
    image = gradient().convert(mode)
    data = jpeg_bytes(image) if mode == "CMYK" else png(image)
    assert decode(data, COLOUR).shape == (3, 24, 32)
    assert decode(data, GREY).shape == (1, 24, 32)


def test_transparency_lies_on_white_paper():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (decode(png(clear), Preprocessing(8, 8, 3)) == 255).all()
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert decode(png(half), Preprocessing(8, 8, 1))[0, 0, 0] == pytest.approx(127, abs=1)


def test_a_palette_with_a_transparent_colour_lies_on_white_paper():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=1)
    assert (decode(buffer.getvalue(), Preprocessing(8, 8, 3)) == 255).all()


def test_cmyk_keeps_its_colours():
    red = Image.new("RGB", (16, 16), (220, 30, 30))
    decoded = decode(jpeg_bytes(red.convert("CMYK")), Preprocessing(16, 16, 3))
    assert np.abs(decoded.mean(axis=(1, 2)) - [220, 30, 30]).max() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(orientation):
    upright = gradient()
    # Store the picture the way a camera held differently would, so that the tag turns it back.
    undo = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}.get(orientation, [])
    stored = upright
    for operation in undo:
        stored = stored.transpose(Image.Transpose(operation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(jpeg_bytes(stored, exif=exif), COLOUR)
    assert np.abs(decoded.astype(int) - np.asarray(upright).transpose(2, 0, 1)).mean() < 4
    facts = describe(jpeg_bytes(stored, exif=exif))
    assert (facts.height, facts.width) == (24, 32)


def test_sixteen_bit_uses_the_white_level():
    ramp = np.linspace(0, 4095, 24 * 32).reshape(24, 32).astype(np.uint16)
    chosen = choose_preprocessing([describe(tiff(ramp))])
    assert chosen.white == 4095 and chosen.channels == 1
    decoded = decode(tiff(ramp), chosen)[0]
    assert np.array_equal(decoded, np.rint(ramp * (255 / 4095)).astype(np.uint8))


def test_float_images_in_the_unit_range_fill_the_grey_scale():
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    chosen = choose_preprocessing([describe(tiff(ramp))])
    assert chosen.float_white == 1.0
    assert np.array_equal(decode(tiff(ramp), chosen)[0], np.rint(ramp * 255).astype(np.uint8))


def test_not_a_number_becomes_black_and_infinity_white():
    values = np.array([[np.nan, 0.5], [np.inf, 1.0]], dtype=np.float32)
    decoded = decode(tiff(values), Preprocessing(2, 2, 1, white=1.0))
    assert decoded.tolist() == [[[0, 128], [255, 255]]]


def test_an_animation_gives_its_first_frame():
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert decode(buffer.getvalue(), Preprocessing(8, 8, 3))[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}], ids=str)
@pytest.mark.parametrize("size", [(32, 32), (45, 60), (333, 501), (900, 1200)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_quick_way_of_jpegs_gives_pillow_s_pixels(size, channels, options):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    picture = picture.resize(size[::-1], Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 1  # upright already, but not of the common kind
    preprocessing = Preprocessing(32, 32, channels)
    quick = decode(jpeg_bytes(picture, **options), preprocessing).astype(int)
    slow = decode(jpeg_bytes(picture, exif=exif, **options), preprocessing)
    full = fit(Image.open(io.BytesIO(jpeg_bytes(picture, **options))), preprocessing)
    assert np.abs(quick - slow).max() <= (0 if channels == 3 else 2)  # luminance, before or after rounding
    assert np.abs(quick - full).mean() < 1.5


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (5, 7), (3, 9)], ids=str)
def test_tiny_jpegs_are_whole(size):
    picture = Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint8).reshape(size) * 3)
    found = decode(jpeg_bytes(picture), Preprocessing(16, 16, 1))
    assert np.array_equal(found, fit(Image.open(io.BytesIO(jpeg_bytes(picture))), Preprocessing(16, 16, 1)))


def test_orientation_in_xmp_turns_the_image_too():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    xmp += b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    data = jpeg_bytes(gradient(24, 32), xmp=xmp)
    assert (describe(data).height, describe(data).width) == (32, 24)
    upright = decode(data, Preprocessing(32, 24, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(upright, decode(jpeg_bytes(gradient(24, 32), exif=exif), Preprocessing(32, 24, 3)))


def test_a_large_jpeg_decodes_close_to_full_decoding():
    noise = np.random.default_rng(0).integers(40, 215, (24, 32, 1)) + np.array([20, 0, -20])
    photo = Image.fromarray(noise.astype(np.uint8)).resize((1000, 750), Image.Resampling.BICUBIC)
    data = jpeg_bytes(photo)
    full = Image.open(io.BytesIO(data)).resize((64, 48), Image.Resampling.BILINEAR)
    decoded = decode(data, Preprocessing(48, 64, 3)).transpose(1, 2, 0)
    assert np.abs(decoded.astype(int) - np.asarray(full)).mean() < 1.5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (png_claiming(50_000, 50_000), "pixels"),
        (png_claiming(12_000, 15_000), "pixels"),
        (png_claiming(64, 64), "broken"),
        (jpeg_bytes(gradient(200, 200))[:700], "broken"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(data, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decode(data, COLOUR)


@pytest.mark.parametrize("jpegs_of", ["JPEG", "TIFF"])
def test_a_jpeg_of_thousands_of_scans_is_refused_at_once(jpegs_of):
    buffer = io.BytesIO()
    options = {"progressive": True} if jpegs_of == "JPEG" else {"compression": "jpeg"}
    Image.new("L", (640, 640), 128).save(buffer, jpegs_of, **options)
    data = buffer.getvalue()
    last = data.rfind(b"\xff\xda")
    many = data[:-2] + data[last:-2] * 3000 + data[-2:]  # each goes over all pixels again
    with pytest.raises(UnreadableImageError, match="scans"):
        decode(many, Preprocessing(28, 28, 1))
    with pytest.raises(UnreadableImageError, match="scans"):
        describe(many)
    assert decode(data, Preprocessing(28, 28, 1)).shape == (1, 28, 28)


def test_formats_that_decode_slowly_are_taken_up_to_fewer_pixels():
    header = struct.pack(">4sIIBB", b"qoif", 5000, 4000, 3, 0)
    run = b"\xfd" * (5000 * 4000 // 62 + 1)  # of 62 equal pixels each: minutes in Python from some hundred kilobytes
    with pytest.raises(UnreadableImageError, match="5000 x 4000 pixels, more than 16,777,216"):
        decode(header + run + b"\0" * 7 + b"\1", Preprocessing(28, 28, 1))


def test_size_and_channels_come_from_the_median_of_the_sample():
    facts = [ImageFacts(20, 30, True), ImageFacts(22, 33, True), ImageFacts(900, 10, True)]
    assert choose_preprocessing(facts).shape == (1, 22, 30)
    assert choose_preprocessing([*facts, ImageFacts(20, 30, False)]).channels == 3
    assert choose_preprocessing(facts, channels=3).channels == 3


def test_large_images_are_capped_and_keep_their_shape():
    photo = [ImageFacts(768, 1024, False)]
    assert choose_preprocessing(photo).shape == (3, 48, 64)
    assert choose_preprocessing(photo, image_size=(128,)).shape == (3, 96, 128)
    assert choose_preprocessing(photo, image_size=(40, 50)).shape == (3, 40, 50)


def test_a_grey_photograph_saved_in_colour_counts_as_grey():
    assert describe(png(gradient().convert("L").convert("RGB"))).grey
    assert not describe(png(gradient())).grey


@pytest.mark.parametrize("text", ["", "0", "-3", "a", "3x", "3x4x5", "9999"])
def test_a_wrong_image_size_is_refused(text):
    with pytest.raises(SourceError, match="image size"):
        parse_image_size(text)


def test_image_sizes_are_read_height_first():
    assert parse_image_size("64") == (64,)
    assert parse_image_size("48x64") == (48, 64)
