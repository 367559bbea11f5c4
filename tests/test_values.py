"""Images deeper than 8 bits, on transparency, of several pages: one scale and one paper for a collection."""

import io
import logging
import math
import struct
import zlib

import numpy as np
import pytest
from conftest import QUICK, gradient
from PIL import Image, TiffImagePlugin

from aesearch.collection.facade import Collection
from aesearch.images.decode import (
    Preprocessing,
    UnreadableImageError,
    choose_preprocessing,
    decode,
    decode_counting,
    describe,
    thumbnail,
)
from aesearch.images.sources.opening import open_source

ACROSS, DOWN = 20, 12


def tiff(array, **tags):
    """Bytes of a TIFF, with tags by number."""
    buffer, directory = io.BytesIO(), TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        directory[int(name[1:])] = value
    Image.fromarray(array).save(buffer, "TIFF", tiffinfo=directory)
    return buffer.getvalue()


def raw_tiff(array, photometric, *, planar=1, extra=(), order="<"):
    """Bytes of an uncompressed TIFF, put together by hand: (h, w), (h, w, c), or (c, h, w) in planes."""
    kind, bits = {"u": 1, "i": 2, "f": 3}[array.dtype.kind], 8 * array.dtype.itemsize
    planes, (height, width) = (array, array.shape[1:]) if planar == 2 else ([array], array.shape[:2])
    samples = array.size // (height * width)
    data = [np.asarray(plane).astype(array.dtype.newbyteorder(order)).tobytes() for plane in planes]
    ends = np.cumsum([8, *map(len, data)]).tolist()
    tags = [
        (256, [width]), (257, [height]), (258, [bits] * samples), (259, [1]), (262, [photometric]), (273, ends[:-1]),
        (277, [samples]), (278, [height]), (279, [len(d) for d in data]), (284, [planar]), (338, extra),
        (339, [kind] * samples),
    ]  # fmt: skip
    tags = [tag for tag in tags if tag[1]]
    place = ends[-1] + 2 + 12 * len(tags) + 4
    entries, outside = b"", b""
    for tag, values in tags:
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            outside, packed = outside + packed, struct.pack(f"{order}I", place + len(outside))
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", ends[-1])
    return head + b"".join(data) + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4 + outside


def deep_png(array, *, transparent=None):
    """Bytes of a 16-bit PNG, (h, w, 1 to 4), put together by hand."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = array.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    key = b"" if transparent is None else chunk(b"tRNS", np.asarray(transparent, ">u2").tobytes())
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def fits(array, **cards):
    """Bytes of a FITS file, put together by hand."""
    bits = (-8 if array.dtype.kind == "f" else 8) * array.dtype.itemsize
    axes = {f"NAXIS{n + 1}": length for n, length in enumerate(reversed(array.shape))}
    known = {"SIMPLE": "T", "BITPIX": bits, "NAXIS": array.ndim, **axes, **cards}
    lines = [f"{name:<8}= {value!s:>20}".ljust(80) for name, value in known.items()]
    head = "".join([*lines, "END".ljust(80)]).encode()
    data = array.astype(array.dtype.newbyteorder(">")).tobytes()
    return head.ljust(2880 * math.ceil(len(head) / 2880)) + data.ljust(2880 * math.ceil(len(data) / 2880), b"\0")


def random(dtype, shape=(DOWN, ACROSS)):
    generator = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return generator.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def as_written(array, black, white):
    """What an image of those values is to become."""
    return np.clip(np.rint((array.astype(np.float64) - black) * (255 / (white - black))), 0, 255).astype(np.uint8)


def write(root, files):
    root.mkdir()
    for number, data in enumerate(files):
        (root / f"{number:04}.tif").write_bytes(data)
    return open_source(str(root))


def decoded(source):
    chosen = choose_preprocessing(source.sample_facts())
    batch = source.read(np.arange(len(source)), chosen)
    assert not batch.skipped
    return batch.images, batch.tally, chosen


# ------------------------------------------------------------------ one scale


def test_a_hot_pixel_in_each_fiftieth_image_leaves_the_others_as_they_are(digit_images, tmp_path):
    deep = digit_images[:900].astype(np.uint16) * 8
    clean, nothing, chosen = decoded(write(tmp_path / "clean", [tiff(image) for image in deep]))
    assert nothing.clipped == 0 and chosen.black == 0 and chosen.white == 2040
    hot = deep.copy()
    hot[::50, 3, 4] = 65535
    found, tally, _ = decoded(write(tmp_path / "hot", [tiff(image) for image in hot]))
    others = np.arange(900) % 50 != 0
    assert np.array_equal(found[others], clean[others]) and np.array_equal(clean[:, 0], digit_images[:900])
    assert (tally.deep, tally.clipped, tally.outside, tally.values) == (900, 18, 18, 900 * 64)


def test_a_peak_of_104_hundredths_in_a_third_of_the_floats_changes_nothing(digit_images, tmp_path):
    floats = digit_images[:300].astype(np.float32) / 255
    clean, _, chosen = decoded(write(tmp_path / "clean", [tiff(image) for image in floats]))
    assert (chosen.float_black, chosen.float_white) == (0, 1)
    peaked = floats.copy()
    peaked[::3, 2, 2] = 1.04
    found, tally, _ = decoded(write(tmp_path / "peaked", [tiff(image) for image in peaked]))
    same = peaked == floats
    assert np.array_equal(found[:, 0][same], clean[:, 0][same]) and np.array_equal(clean[:, 0], digit_images[:300])
    assert tally.clipped == 100


@pytest.mark.parametrize("tags", [{}, {"t42113": "3.4e+38"}], ids=["no tag", "tag"])
def test_one_file_of_no_data_leaves_the_others_as_they_are(digit_images, tmp_path, tags):
    integers = [tiff(image.astype(np.uint16) * 257) for image in digit_images[:40]]
    floats = [tiff(image.astype(np.float32) * 10) for image in digit_images[40:80]]
    clean, _, _ = decoded(write(tmp_path / "clean", [*integers, *floats]))
    lost = digit_images[40].astype(np.float32) * 10
    lost[:4] = 3.4e38
    found, tally, chosen = decoded(write(tmp_path / "lost", [*integers, tiff(lost, **tags), *floats[1:]]))
    assert np.array_equal(found[np.arange(80) != 40], clean[np.arange(80) != 40])
    assert np.array_equal(found[40, 0, 4:], clean[40, 0, 4:]) and not found[40, 0, :4].any()
    assert tally.clipped == 0 and (chosen.white, chosen.float_white) == (65535, 2550)


def test_no_data_of_a_tag_is_black_and_has_no_say_in_the_scale():
    image = np.linspace(500, 900, DOWN * ACROSS, dtype=np.float32).reshape(DOWN, ACROSS)
    image[:, :5] = -9999
    tagged, facts = tiff(image, t42113="-9999"), describe(tiff(image, t42113="-9999"))
    assert facts.levels.low >= 500 and describe(tiff(image)).levels.low == -9999
    pixels = decode(tagged, choose_preprocessing([facts]))[0]
    assert not pixels[:, :5].any() and pixels[:, 5:].max() == 255 and pixels[0, 5] < 10


@pytest.mark.parametrize(
    ("low", "high", "dtype", "scale"),
    [
        (0, 4095, np.uint16, (0, 4095)),
        (100, 3000, np.uint16, (0, 3000)),
        (20_000, 30_000, np.uint16, (20_000, 30_000)),
        (-1000, 1000, np.int16, (-1000, 1000)),
        (0, 255, np.uint16, (0, 255)),
        (0, 1, np.float32, (0, 1)),
        (0.02, 0.7, np.float32, (0, 1)),
        (0, 240, np.float32, (0, 255)),
        (0, 0.02, np.float32, (0, 0.02)),
        (-3, 3, np.float32, (-3, 3)),
        (7, 7, np.float32, (0, 7)),
        (-7, -7, np.int16, (-7, 0)),
        (0, 0, np.float32, (0, 1)),
    ],
)
def test_the_scale_follows_the_values(low, high, dtype, scale):
    image = np.linspace(low, high, DOWN * ACROSS).reshape(DOWN, ACROSS).astype(dtype)
    chosen = choose_preprocessing([describe(tiff(image))])
    assert chosen.scale(image.dtype) == pytest.approx(scale, rel=1e-6)
    assert np.abs(decode(tiff(image), chosen)[0].astype(int) - as_written(image, *scale)).max() <= 1


def test_not_finite_is_black_and_counts_for_nothing():
    image = np.linspace(0, 1, DOWN * ACROSS, dtype=np.float32).reshape(DOWN, ACROSS)
    image[0, :3] = np.nan, np.inf, -np.inf
    chosen = choose_preprocessing([describe(tiff(image))])
    pixels, tally = decode_counting(tiff(image), chosen)
    assert pixels[0, 0, :3].tolist() == [0, 0, 0] and pixels.max() == 255
    assert (tally.outside, tally.values) == (0, DOWN * ACROSS - 3)


def test_all_missing_is_black():
    image = np.full((DOWN, ACROSS), np.nan, np.float32)
    assert describe(tiff(image)).levels is None
    assert not decode(tiff(image), choose_preprocessing([describe(tiff(image))])).any()


@pytest.mark.parametrize("write", [deep_png, lambda array: raw_tiff(array, 2 if array.shape[2] == 3 else 1)])
def test_colour_of_16_bits_is_scaled_as_grey_is(write):
    grey = np.linspace(0, 3000, DOWN * ACROSS).astype(np.uint16).reshape(DOWN, ACROSS)
    colour = np.repeat(grey[..., None], 3, axis=2)
    chosen = choose_preprocessing([describe(write(colour))])
    assert chosen.channels == 1 and chosen.white == 3000
    assert np.array_equal(decode(write(colour), chosen), decode(tiff(grey), chosen))
    assert np.array_equal(decode(write(colour), chosen)[0], as_written(grey, 0, 3000))


def test_an_encoder_of_an_earlier_version_sees_what_it_saw():
    earlier = Preprocessing(**{"height": DOWN, "width": ACROSS, "channels": 3, "white": 4095.0})
    grey, colour = random(np.uint16), random(np.uint16, (DOWN, ACROSS, 3))
    assert np.array_equal(decode(tiff(grey), earlier)[0], as_written(grey, 0, 4095))
    assert np.array_equal(decode(deep_png(colour), earlier), (colour >> 8).transpose(2, 0, 1))
    floats = np.array([[np.nan, 0.5], [np.inf, 1.0]], np.float32)
    assert decode(tiff(floats), Preprocessing(2, 2, 1, white=1.0)).tolist() == [[[0, 128], [255, 255]]]


def test_arrays_have_one_scale_too(digit_images, tmp_path):
    deep = digit_images[:200].astype(np.uint16) * 8
    deep[::50, 1, 1] = 65535
    np.save(tmp_path / "x.npy", deep)
    found, tally, _ = decoded(open_source(str(tmp_path / "x.npy")))
    usual = deep <= 2040
    assert np.array_equal(found[:, 0][usual], digit_images[:200][usual])
    assert (tally.deep, tally.clipped, tally.outside) == (200, 4, 4)


def test_alpha_of_a_deep_array_is_not_scaled_with_its_colours(tmp_path):
    array = np.full((30, 8, 8, 4), 1000, np.uint16)
    array[:, :4, :, :3], array[..., 3] = 500, 65535
    np.save(tmp_path / "x.npy", array)
    found, _, chosen = decoded(open_source(str(tmp_path / "x.npy")))
    assert (chosen.black, chosen.white) == (500, 1000) and set(np.unique(found).tolist()) == {0, 255}


def test_thumbnails_have_the_scale_of_the_collection():
    image = np.linspace(0, 3000, DOWN * ACROSS).astype(np.uint16).reshape(DOWN, ACROSS)
    chosen = choose_preprocessing([describe(tiff(image))])
    assert np.array_equal(thumbnail(tiff(image), 64, chosen), decode(tiff(image), chosen))


def test_the_scale_is_said_kept_and_used_for_queries(digit_images, tmp_path, caplog):
    caplog.set_level(logging.INFO, "aesearch")
    deep = digit_images[:120].astype(np.uint16) * 8
    deep[::50, 3, 4] = 60000
    write(tmp_path / "x", [tiff(image) for image in deep])
    collection = Collection.build(str(tmp_path / "x"), tmp_path / "c", progress=False, epochs=2, latent_dim=8)
    assert "120 of 120 images looked at are integers of more than 8 bits: 0 to 2,040 is black to white" in caplog.text
    assert "3 of 120 images deeper than 8 bits have values outside the collection's scale" in caplog.text
    assert collection.spec.preprocessing.white == 2040
    assert np.abs(collection.encode([tmp_path / "x/0007.tif"])[0] - collection.features()[7]).max() < 1e-4
    bright = tmp_path / "bright.tif"
    bright.write_bytes(tiff(deep[7] * 9))
    collection.query(bright)
    assert "bright.tif: " in caplog.text and "of its values lie outside the collection's scale" in caplog.text
    (tmp_path / "x/0200.tif").write_bytes(bright.read_bytes())
    caplog.clear()
    collection.update()
    assert "1 of 1 images deeper than 8 bits have values outside" in caplog.text


# ------------------------------------------------------------------ paper, and collections that are blank


def icon(number, colour, background=(0, 0, 0, 0)):
    image = Image.new("RGBA", (24, 24), background)
    for n in range(6):
        x, y = np.random.default_rng([number, n]).integers(2, 19, 2).tolist()
        image.paste((*colour, 255), (x, y, x + 4, y + 4))
    return image


@pytest.mark.parametrize(
    ("colour", "paper"), [((255, 255, 255), 0), ((0, 0, 0), 255), ((250, 240, 90), 0), ((20, 30, 90), 255)]
)
def test_paper_contrasts_with_what_is_visible(tmp_path, colour, paper):
    for number in range(36):
        icon(number, colour).save(tmp_path / f"{number}.png")
    images, _, chosen = decoded(open_source(str(tmp_path)))
    assert chosen.paper == paper and images.std(axis=(1, 2, 3)).min() > 40
    assert len(np.unique(images.reshape(36, -1), axis=0)) == 36
    one = tmp_path / "5.png"
    assert np.array_equal(decode(one.read_bytes(), chosen), images[open_source(str(tmp_path)).ids.index("5.png")])
    assert np.array_equal(thumbnail(one.read_bytes(), 24, chosen), decode(one.read_bytes(), chosen))


def test_glyphs_of_both_colours_lie_on_grey(tmp_path):
    for number in range(36):
        icon(number, (255, 255, 255) if number % 2 else (0, 0, 0)).save(tmp_path / f"{number}.png")
    images, _, chosen = decoded(open_source(str(tmp_path)))
    assert chosen.paper == 128 and images.std(axis=(1, 2, 3)).min() > 40


def test_grey_with_alpha_of_16_bits_lies_on_paper():
    level, alpha = np.full((8, 8), 65535), np.zeros((8, 8))
    alpha[2:5, 2:5] = 65535
    for data in (
        deep_png(np.stack([level, alpha], -1)),
        raw_tiff(np.stack([level, alpha], -1).astype("u2"), 1, extra=[2]),
    ):
        chosen = choose_preprocessing([describe(data)])
        assert chosen.paper == 0 and np.array_equal(decode(data, chosen)[0], (alpha / 257).astype(np.uint8))


def test_a_transparent_level_of_16_bits_lies_on_paper():
    level = np.full((8, 8, 1), 7)
    level[2:5, 2:5] = 65535
    assert decode(deep_png(level, transparent=[7]), Preprocessing(8, 8, 1, black=0, paper=128))[0, :3, :3].tolist() == [
        [128, 128, 128],
        [128, 128, 128],
        [128, 128, 255],
    ]


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (lambda n: icon(n, (128 + n % 2,) * 3, (128, 128, 128, 0)), ""),
        (lambda n: Image.new("L", (24, 24), 255), "the files themselves are blank"),
        (lambda n: gradient(24, 24), "the files themselves hardly differ"),
        (lambda n: gradient(24, 24).rotate(10 * n), ""),
    ],
    ids=["seen on paper", "blank", "same", "different"],
)
def test_where_most_images_are_alike_it_is_said_before_training(tmp_path, caplog, draw, reason):
    (tmp_path / "x").mkdir()
    for number in range(24):
        draw(number).save(tmp_path / f"x/{number}.png")
    Collection.build(str(tmp_path / "x"), tmp_path / "c", progress=False, epochs=1, latent_dim=8)
    said = [record.message for record in caplog.records if "alike once decoded" in record.message]
    assert len(said) == bool(reason) and (not reason or (reason in said[0] and "of 21 images" in said[0]))


# ------------------------------------------------------------------ the pixels of reference libraries


def by_type(dtype):
    """A preprocessing that shows every value, and its scale."""
    dtype = np.dtype(dtype)
    black, white = (-2.0, 2.0) if dtype.kind == "f" else (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    return Preprocessing(DOWN, ACROSS, 1, white, black, black, white), (black, white)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", "i1 u2 i2 u4 i4 u8 i8 f2 f4 f8".split())
def test_tiffs_of_any_depth_have_the_values_that_were_written(dtype, order):
    image, (preprocessing, scale) = random(dtype), by_type(dtype)
    assert np.array_equal(decode(raw_tiff(image, 1, order=order), preprocessing)[0], as_written(image, *scale))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("dtype", ["u2", "i4", "f4"])
def test_compressed_tiffs_have_the_values_that_were_written(compression, dtype):
    image, (preprocessing, scale) = random(dtype), by_type(dtype)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "TIFF", compression=compression)
    assert np.array_equal(decode(buffer.getvalue(), preprocessing)[0], as_written(image, *scale))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_where_0_is_white_larger_is_darker(dtype):
    image = random(dtype)
    preprocessing, scale = by_type(dtype)
    assert np.array_equal(decode(raw_tiff(image, 0), preprocessing)[0], 255 - as_written(image, *scale))


def test_planes_of_8_bits_are_put_together():
    planes = random(np.uint8, (3, DOWN, ACROSS))
    assert np.array_equal(decode(raw_tiff(planes, 2, planar=2), Preprocessing(DOWN, ACROSS, 3)), planes)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", "<>")
def test_colours_of_16_bits_have_all_their_bits(channels, order):
    image = random(np.uint16, (DOWN, ACROSS, channels))
    image[..., 3:] = 65535
    narrow = Preprocessing(DOWN, ACROSS, 3, white=25600, black=25345)  # a level for each of 256 neighbouring values
    for data in (raw_tiff(image, 2, extra=[2] * (channels - 3), order=order), deep_png(image)):
        assert np.array_equal(decode(data, narrow), as_written(image[..., :3], 25345, 25600).transpose(2, 0, 1))


def test_a_ppm_of_16_bits_has_all_its_bits():
    image = random(np.uint16, (DOWN, ACROSS, 3))
    data = f"P6\n{ACROSS} {DOWN}\n65535\n".encode() + image.astype(">u2").tobytes()
    narrow = Preprocessing(DOWN, ACROSS, 3, white=25600, black=25345)
    assert np.array_equal(decode(data, narrow), as_written(image, 25345, 25600).transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiffs_and_pngs_are_turned_upright(orientation):
    shallow = np.asarray(gradient(DOWN, ACROSS, 1))
    deep, sides = shallow.astype(np.uint16) * 257, (DOWN, ACROSS) if orientation < 5 else (ACROSS, DOWN)
    preprocessing = Preprocessing(*sides, 1, black=0)
    expected = decode(tiff(shallow, t274=orientation), preprocessing)
    assert np.array_equal(decode(tiff(deep, t274=orientation), preprocessing), expected)
    facts = describe(tiff(deep, t274=orientation))
    assert (facts.height, facts.width) == sides


@pytest.mark.parametrize("dtype", "u1 i2 i4 i8 f4 f8".split())
def test_fits_files_have_the_values_that_were_written(dtype):
    image, (preprocessing, scale) = random(dtype), by_type(dtype)
    assert np.array_equal(decode(fits(image), preprocessing)[0][::-1], as_written(image, *scale))


def test_fits_files_of_unsigned_integers():
    image, (preprocessing, scale) = random(np.uint16), by_type(np.uint16)
    data = fits((image.astype(np.int32) - 32768).astype(np.int16), BZERO=32768, BSCALE=1)
    assert np.array_equal(decode(data, preprocessing)[0][::-1], as_written(image, *scale))
    assert not describe(data).levels.floats


def test_fits_files_are_scaled_and_shifted_and_have_blanks():
    stored = random(np.int16)
    stored[0, :4] = -32768
    data = fits(stored, BSCALE="2.5D-1", BZERO=100.5, BLANK=-32768)
    values = stored * 0.25 + 100.5
    low, high = values[stored != -32768].min(), values.max()
    pixels = decode(data, Preprocessing(DOWN, ACROSS, 1, black=0, float_black=low, float_white=high))[0][::-1]
    expected = as_written(values, low, high)
    expected[0, :4] = 0
    assert np.abs(pixels.astype(int) - expected).max() <= 1 and not pixels[0, :4].any()


def test_tifffile_reads_the_same():
    tifffile = pytest.importorskip("tifffile")
    taken = 0
    for dtype in "u1 u2 i2 u4 i4 f4 f8".split():
        for order in "<>":
            for options in (
                {},
                {"compression": "zlib"},
                {"tile": (16, 16)},
                {"rowsperstrip": 5},
                {"bigtiff": order == "<"},
            ):
                buffer = io.BytesIO()
                tifffile.imwrite(buffer, random(dtype), byteorder=order, photometric="minisblack", **options)
                (preprocessing, scale), reference = by_type(dtype), tifffile.imread(io.BytesIO(buffer.getvalue()))
                expected = as_written(reference, *scale) if dtype != "u1" else reference
                assert np.array_equal(decode(buffer.getvalue(), preprocessing)[0], expected), (dtype, order, options)
                taken += 1
    assert taken == 70


def test_astropy_reads_the_same():
    files = pytest.importorskip("astropy.io.fits")
    for dtype in "u1 i2 u2 i4 u4 f4 f8".split():
        buffer = io.BytesIO()
        files.HDUList([files.PrimaryHDU(), files.ImageHDU(random(dtype))]).writeto(buffer)
        (preprocessing, scale), reference = by_type(dtype), files.getdata(io.BytesIO(buffer.getvalue()))
        expected = as_written(reference, *scale) if dtype != "u1" else reference
        assert np.array_equal(decode(buffer.getvalue(), preprocessing)[0][::-1], expected), dtype


# ------------------------------------------------------------------ what is refused, what is left out


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0" * 128 + b"DICM" + b"\0" * 99, "DICOM: export"),
        (b"\xff\x0a" + b"\0" * 99, "JPEG XL: convert it to PNG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 99, "HEIF"),
        (b"v/1\x01" + b"\0" * 99, "OpenEXR"),
        (b"PK\x03\x04" + b"\0" * 99, "ZIP archive: unpack it"),
        (b"\x1f\x8b" + b"\0" * 99, "gzip-compressed: unpack it"),
        (b"<?xml version='1.0'?><svg></svg>", "SVG"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "broken image"),
        (raw_tiff(random("f4"), 0), "32-bit floats of which 0 is white"),
        (raw_tiff(random("f4", (DOWN, ACROSS, 3)), 2), "3 x 32-bit floats"),
        (raw_tiff(random("u2", (3, DOWN, ACROSS)), 2, planar=2), "3 x 16-bit integers in separate planes"),
        (raw_tiff(random("u2", (DOWN, ACROSS, 5)), 1, extra=[0] * 4), "5 x 16-bit integers"),
        (fits(random("i2"))[:2900], "ends too early"),
        (fits(random("i2")[0]), "of one axis"),
        (fits(random("i2"), NAXIS=0), "without an image"),
    ],
)
def test_what_is_refused_is_named(data, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decode(data, Preprocessing(DOWN, ACROSS, 1))
    with pytest.raises(UnreadableImageError, match=reason):
        describe(data)


def test_files_of_which_one_picture_is_taken_are_counted_and_said(tmp_path, caplog, digit_images):
    pages = [Image.fromarray(image) for image in digit_images[:3]]
    (tmp_path / "x").mkdir()
    for number, image in enumerate(digit_images[:40]):
        Image.fromarray(image).save(tmp_path / f"x/{number:03}.png")
    pages[0].save(tmp_path / "x/pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "x/moves.gif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "x/moves.png", save_all=True, append_images=pages[1:])
    (tmp_path / "x/cube.fits").write_bytes(fits(random("i2", (3, 8, 8))))
    (tmp_path / "x/one.fits").write_bytes(fits(random("i2", (1, 8, 8))))
    collection = Collection.build(str(tmp_path / "x"), tmp_path / "c", progress=False, **QUICK)
    assert "4 files have several pages, planes or frames" in caplog.text
    assert collection.manifest.artifacts["features"]["figures"]["tally"]["several"] == 4
    assert np.array_equal(decode((tmp_path / "x/pages.tif").read_bytes(), Preprocessing(8, 8, 1))[0], digit_images[0])
