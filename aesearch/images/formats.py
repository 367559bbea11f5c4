"""Values of image files as they were written, where Pillow has fewer bits or others; names of what is not read."""

from __future__ import annotations

import contextlib
import io
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

LARGEST = 1e30  # floats beyond stand for no data where no tag says so: 3.4e38, 9.97e36, 1e30 itself
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, EXTRA, FORMAT = 256, 258, 259, 262, 277, 284, 338, 339
SUBFILE, SUBIFDS, NO_DATA, ORIENTATION = 254, 330, 42113, 274
KINDS = {1: "u", 2: "i", 3: "f"}  # TIFF's sample formats
WORDS = {"u": "integers", "i": "signed integers", "f": "floats", "c": "complex numbers"}
ASSOCIATED, UNASSOCIATED = 1, 2  # TIFF's extra samples that are alpha
# By bytes a pixel: a mode of Pillow's that holds them, and raw modes that give which of each two bytes.
CARRIERS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("L", ("L",)),
    2: ("I;16", ("I;16N",)),
    4: ("RGBA", ("RGBA",)),
    6: ("RGB", ("RGB;16B", "RGB;16L")),
    8: ("RGBA", ("RGBA;16B", "RGBA;16L")),
}
# By raw mode of a PNG of which Pillow keeps the upper halves: raw modes that give all bytes.
DEEP_PNGS = {"RGB;16B": ("RGB;16B", "RGB;16L"), "LA;16B": ("RGBA",), "RGBA;16B": ("RGBA;16B", "RGBA;16L")}
CONVERT = "convert it to a 16-bit or 32-bit float TIFF, or to PNG"
PICTURE = "convert it to PNG or JPEG"
UNREAD = (  # where, what stands there, what that is, what to do
    (128, b"DICM", "DICOM", "export it as 16-bit PNG or TIFF"),
    (0, b"\xff\x0a", "JPEG XL", PICTURE),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", PICTURE),
    (4, b"ftyphe", "HEIF (HEIC)", PICTURE),
    (4, b"ftypmif1", "HEIF", PICTURE),
    (4, b"ftypmsf1", "HEIF", PICTURE),
    (4, b"ftyp", "a video (MP4)", "extract its frames as PNG"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska)", "extract its frames as PNG"),
    (8, b"AVI ", "a video (AVI)", "extract its frames as PNG"),
    (0, b"v/1\x01", "OpenEXR", "convert it to a 32-bit float TIFF"),
    (0, b"#?R", "Radiance HDR", "convert it to a 32-bit float TIFF"),
    (344, b"n+1\0", "NIfTI", "export its slices as 16-bit PNG or TIFF"),
    (344, b"ni1\0", "NIfTI", "export its slices as 16-bit PNG or TIFF"),
    (208, b"MAP ", "MRC", "convert it to a 32-bit float TIFF"),
    (0, b"\x89HDF", "HDF5", "give it as the source itself"),
    (0, b"\x93NUMPY", "a NumPy array", "give it as the source itself"),
    (0, b"ZISRAWFILE", "Zeiss CZI", CONVERT),
    (0, b"\xda\xce\xbe\x0a", "Nikon ND2", CONVERT),
    (0, b"II\xbc", "JPEG XR", PICTURE),
    (0, b"IIRO", "a camera's raw file (ORF)", PICTURE),
    (0, b"IIU\0", "a camera's raw file (RW2)", PICTURE),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)", PICTURE),
    (0, b"gimp xcf", "GIMP's XCF", PICTURE),
    (0, b"8BPS", "a Photoshop document of a kind that is not read", PICTURE),
    (0, b"%PDF", "PDF", "export its pages as PNG"),
    (0, b"%!PS", "PostScript", PICTURE),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript", PICTURE),
    (0, b"\xd7\xcd\xc6\x9a", "Windows Metafile", PICTURE),
    (0, b"<svg", "SVG", PICTURE),
    (0, b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (0, b"\x1f\x8b", "gzip-compressed", "unpack it"),
    (0, b"BZh", "bzip2-compressed", "unpack it"),
    (0, b"\xfd7zXZ\0", "xz-compressed", "unpack it"),
    (0, b"(\xb5/\xfd", "zstd-compressed", "unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (0, b"Rar!", "a RAR archive", "unpack it"),
)
CUT_OFF = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")  # of what is read otherwise
BLOCK, CARD = 2880, 80  # bytes of FITS


class UnreadableImageError(Exception):
    """Why one file gives no image; becomes a line of ``skipped.csv``."""


@dataclass(frozen=True, eq=False)
class Values:
    """An image deeper than 8 bits, as it was written.

    Attributes
    ----------
    pixels : (h, w) or (h, w, 3), integers or floats
    missing : (h, w) bool, optional
        Where there is no value: not finite, or what the file's own tags call no data.
    alpha : (h, w) uint8, optional
    """

    pixels: NDArray[Any]
    missing: NDArray[np.bool_] | None = None
    alpha: NDArray[np.uint8] | None = None

    @property
    def whole(self) -> NDArray[Any]:
        """The values that are neither missing nor transparent, (n,) or (n, 3)."""
        seen = np.ones(self.pixels.shape[:2], dtype=bool) if self.missing is None else ~self.missing
        return self.pixels[seen if self.alpha is None else seen & (self.alpha > 0)]


def values_of(pixels: NDArray[Any], no_data: object = None) -> Values:
    """Values with what is missing among them found: not finite, beyond ``LARGEST``, or equal to ``no_data``."""
    missing = np.zeros(pixels.shape[:2], dtype=bool)
    if pixels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            lost = ~(np.abs(pixels) < LARGEST)
        missing |= lost if lost.ndim == 2 else lost.any(axis=2)
    if isinstance(no_data, int | float) and _can_hold(pixels.dtype, no_data):
        same = pixels == pixels.dtype.type(no_data)
        missing |= same if same.ndim == 2 else same.all(axis=2)
    return Values(pixels, missing if missing.any() else None)


def _can_hold(dtype: np.dtype[Any], number: float) -> bool:
    if dtype.kind == "f":
        return abs(number) <= np.finfo(dtype).max
    return float(number).is_integer() and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


def name_format(data: bytes) -> str:
    """Why a file that no reader knows gives no image: what it is, and what to do."""
    if data.startswith(CUT_OFF) or data[4:11] == b"ftypavi":
        return "broken image: its header cannot be read"
    for begin, sign, name, remedy in UNREAD:
        if data[begin : begin + len(sign)] == sign:
            return f"not an image of a supported format but {name}: {remedy}"
    if b"<svg" in data[:1024]:
        return f"not an image of a supported format but SVG: {PICTURE}"
    if data[:4] == TIFFS[-1]:
        return f"a big-endian BigTIFF, which is not supported: {CONVERT}"
    if data[:4] in TIFFS:
        return f"a TIFF of a kind that is not read, or broken: {CONVERT}"
    return "not an image that can be read"


# ------------------------------------------------------------------ PNG, PPM


def deep_png(data: bytes, image: Any) -> Values | None:
    """Values of an opened PNG of 16-bit colour, or grey with alpha, of which Pillow has the upper halves; else None."""
    from PIL import Image

    own = image.tile[0].args if image.format == "PNG" and image.tile else None
    if own not in DEEP_PNGS:
        return None
    halves = []
    for raw in DEEP_PNGS[own]:
        again = Image.open(io.BytesIO(data), formats=["PNG"])
        again.tile = [tile._replace(args=raw) for tile in again.tile]
        again.load()
        halves.append(np.asarray(again))
    samples = _joined(halves).view(">u2")
    return _png_key(samples, image.info.get("transparency")) if own == "RGB;16B" else _with_alpha(samples, UNASSOCIATED)


def _png_key(samples: NDArray[Any], transparent: object) -> Values:
    if transparent is None:
        return Values(samples)
    return Values(samples, alpha=np.where((samples == transparent).all(axis=2), 0, 255).astype(np.uint8))


def deep_ppm(data: bytes, image: Any) -> Values | None:
    """Values of an opened binary PPM of more than 8 bits, scaled to 16 as Pillow scales PGM; else None."""
    tile = image.tile[0] if image.format == "PPM" and image.mode == "RGB" and image.tile else None
    if tile is None or tile.codec_name != "ppm" or not isinstance(tile.args, tuple):
        return None
    count, most = 3 * image.width * image.height, int(tile.args[1])
    if most < 256:
        return None
    if len(data) < tile.offset + 2 * count:
        raise UnreadableImageError("broken image: the file ends too early")
    samples = np.frombuffer(data, ">u2", count, tile.offset).reshape(image.height, image.width, 3)
    return Values(samples if most == 65535 else np.rint(samples * (65535 / most)).clip(0, 65535).astype(np.uint16))


def _joined(halves: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Bytes of each pixel, (h, w, bytes): of 16-bit samples Pillow gives one byte at a time."""
    if len(halves) == 1:
        return np.ascontiguousarray(halves[0])
    return np.stack(halves, axis=-1).reshape(*halves[0].shape[:2], -1)


def _with_alpha(samples: NDArray[Any], kind: int) -> Values:
    """Colours or grey, and the last of 16-bit samples as alpha."""
    alpha = samples[..., -1].astype(np.float32)
    pixels = samples[..., :-1]
    if kind == ASSOCIATED:  # colours are multiplied by it
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = np.nan_to_num(pixels * (np.float32(65535) / alpha[..., None]), posinf=0).clip(0, 65535)
        pixels = np.rint(pixels).astype(np.uint16)
    return Values(pixels[..., 0] if pixels.shape[2] == 1 else pixels, alpha=(samples[..., -1] >> 8).astype(np.uint8))


# ------------------------------------------------------------------ TIFF


def open_tiff(file: BinaryIO) -> Any:
    """A TIFF, opened by Pillow, that `deep_tiff` may find deep; whatever Pillow raises where it is broken."""
    return _reader()(file)


@cache
def _reader() -> Any:
    """Pillow's reader, which takes deep samples of any kind as nothing but bytes."""
    from PIL import ImageFile
    from PIL.TiffImagePlugin import TiffImageFile

    class Reader(TiffImageFile):
        def _setup(self) -> None:
            self.samples = _samples(self.tag_v2)
            if self.samples is None:
                super()._setup()
                return
            self._mode, raws = CARRIERS[self.samples[1]]
            width, height = self.tag_v2[WIDTH], self.tag_v2[WIDTH + 1]
            self._tile_size = width, height
            self._size = (height, width) if self.tag_v2.get(ORIENTATION) in (5, 6, 7, 8) else (width, height)
            self.use_load_libtiff = True
            self._compression = self.info["compression"] = "any"
            self._planar_configuration = 1
            self.tile = [ImageFile._Tile("libtiff", (0, 0, width, height), 0, (raws[0], False, self.tag_v2.offset))]

    return Reader


def _samples(tags: Any) -> tuple[Any, int] | None:
    """Type of the samples and bytes a pixel, where Pillow's own way would lose or mistake some; else None.

    Raises
    ------
    UnreadableImageError
        The file is of a kind that is not read.
    """
    if SUBIFDS in tags and tags.get(SUBFILE, 0) & 1:
        raise UnreadableImageError(f"a camera's raw file, of which only a preview could be read: {PICTURE}")
    count, photometric, planes = int(tags.get(SAMPLES, 1)), tags.get(PHOTOMETRIC, 0), tags.get(PLANAR, 1) == 2
    bits, formats = set(tags.get(BITS, (1,))), set(tags.get(FORMAT, (1,)))
    wide = max(bits)
    if (wide <= 8 and formats <= {1, 4}) or (bits == {12} and formats == {1}) or photometric in (3, 5, 6, 8):
        if planes and count > 1 and photometric in (0, 1):
            raise UnreadableImageError(f"a TIFF of {count} separate planes, which is not read: {CONVERT}")
        return None  # bits, bytes, palettes; CMYK, YCbCr, Lab
    kind = KINDS.get(min(formats), "u" if formats == {4} else "c")
    if tags.get(COMPRESSION, 1) == 1 and (photometric, count, f"{kind}{wide}") in ((1, 1, "u16"), (1, 1, "f32")):
        return None  # the commonest, which Pillow has right, and quicker
    what = f"a TIFF of {f'{count} x ' if count > 1 else ''}{wide}-bit {WORDS[kind]}"
    if why := _why_not(kind, wide, count, photometric, len(bits) > 1 or len(formats) > 1, planes):
        raise UnreadableImageError(what + why)
    return np.dtype(f"={kind}{wide // 8}"), count * wide // 8


def _why_not(kind: str, wide: int, count: int, photometric: int, mixed: bool, planes: bool) -> str:
    """Why samples of that kind are not read and what to do; empty if they are."""
    colours = {0: 1, 1: 1, 2: 3}.get(photometric, 0)
    if mixed or wide not in (8, 16, 32, 64) or kind == "c" or (kind == "f" and wide == 8):
        return f", which is not read: {CONVERT}"
    if count > 1 and planes:
        return " in separate planes, which is not read: write its planes interleaved"
    if not colours <= count <= colours + 1 or (count > 1 and (wide, kind) != (16, "u")):
        return f", which is not read: {CONVERT}, of one band or three of 16-bit integers"
    if photometric == 0 and kind != "u":
        return " of which 0 is white, which is not read: write it with 0 as black"
    return ""


def deep_tiff(data: bytes, image: Any) -> Values | None:
    """Values of a TIFF opened by `open_tiff` of which Pillow would lose or mistake some; else None."""
    tags = image.tag_v2
    if image.samples is None:
        return None
    dtype, size = image.samples
    no_data = tiffs_no_data(tags)
    inverted, count = tags.get(PHOTOMETRIC, 0) == 0, size // dtype.itemsize
    alpha = next((extra for extra in tags.get(EXTRA, ()) if extra in (ASSOCIATED, UNASSOCIATED)), 0)
    halves = []
    for raw in CARRIERS[size][1]:
        again = open_tiff(io.BytesIO(data))
        again.tile = [tile._replace(args=(raw, *tile.args[1:])) for tile in again.tile]
        again.load()
        halves.append(np.asarray(again))
    samples = _joined(halves).view(dtype) if size not in (1, 2) else halves[0].astype(f"=u{size}").view(dtype)
    samples = samples.reshape(*samples.shape[:2], count)
    samples = samples.astype(np.float32) if dtype == np.float16 else samples
    if inverted:
        samples = np.iinfo(dtype).max - samples
    if count in (2, 4) and alpha:
        return _with_alpha(samples, alpha)
    if no_data is not None and inverted:
        no_data = np.iinfo(dtype).max - no_data
    return values_of(samples[..., :3] if count > 2 else samples[..., 0], no_data)


def tiffs_no_data(tags: Any) -> float | int | None:
    """GDAL's tag, an integer or a float as text."""
    text = str(tags.get(NO_DATA, "")).strip("\0 ")
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return None


# ------------------------------------------------------------------ FITS


@dataclass(frozen=True)
class _Unit:
    """A header of FITS and where its data lie."""

    cards: dict[str, Any]
    begin: int

    @property
    def shape(self) -> list[int]:
        """As in the file: the fastest axis first."""
        return [max(0, int(self.cards[f"NAXIS{n + 1}"])) for n in range(int(self.cards["NAXIS"]))]

    @property
    def end(self) -> int:
        shape = self.shape
        numbers = math.prod(shape) + int(self.cards.get("PCOUNT", 0)) if shape else 0
        size = abs(int(self.cards["BITPIX"])) // 8 * int(self.cards.get("GCOUNT", 1)) * numbers
        return self.begin + -(-size // BLOCK) * BLOCK

    @property
    def is_image(self) -> bool:
        kind, shape = self.cards.get("XTENSION", "IMAGE"), self.shape
        return kind == "IMAGE" and not self.cards.get("GROUPS") and bool(shape) and math.prod(shape) > 0


def read_fits(data: bytes, most: int) -> tuple[Values, bool]:
    """Values of the first image of a FITS file, upright, and whether it has others; `UnreadableImageError` if none.

    Parameters
    ----------
    most : int
        Pixels that may be read.
    """
    try:
        units = _units(data)
        found = [unit for unit in units if unit.is_image]
        packed = next((u.cards for u in units if u.cards.get("ZIMAGE") is True), None)
    except (KeyError, ValueError, TypeError, OverflowError):
        raise UnreadableImageError("broken image: its header cannot be read") from None
    if packed is not None and not found:
        kind = packed.get("ZCMPTYPE", "")
        raise UnreadableImageError(f"a compressed FITS ({kind}), which is not read: unpack it with funpack")
    if not found:
        raise UnreadableImageError("a FITS file without an image")
    unit = found[0]
    if len(unit.shape) < 2:
        raise UnreadableImageError("a FITS file of one axis, which is no image")
    width, height = unit.shape[:2]
    if width * height > most:
        raise UnreadableImageError(f"{width} x {height} pixels, more than {most:,}")
    several = len(found) > 1 or packed is not None or math.prod(unit.shape[2:]) > 1
    return _fits_values(data, unit, width, height), several


def _units(data: bytes) -> list[_Unit]:
    units: list[_Unit] = []
    place = 0
    while data[place : place + CARD].strip(b"\0 ") and (place == 0 or data[place : place + 8] == b"XTENSION"):
        cards: dict[str, Any] = {}
        while (card := data[place : place + CARD])[:8] != b"END     ":
            if len(card) < CARD:
                raise ValueError
            if card[8:10] == b"= ":
                cards.setdefault(card[:8].decode("ascii").strip(), _card_value(card[10:].decode("latin-1")))
            place += CARD
        unit = _Unit(cards, -(-(place + CARD) // BLOCK) * BLOCK)
        units.append(unit)
        place = max(unit.end, unit.begin)
    return units


def _card_value(text: str) -> Any:
    """A string, truth, integer or float of a card; its text if it is none of these."""
    if quoted := re.match(r"\s*'((?:[^']|'')*)'", text):
        return quoted[1].replace("''", "'").strip()
    plain = text.split("/")[0].strip()
    if plain in ("T", "F"):
        return plain == "T"
    for kind in (int, lambda number: float(number.upper().replace("D", "E"))):
        with contextlib.suppress(ValueError):
            return kind(plain)
    return plain


def _fits_values(data: bytes, unit: _Unit, width: int, height: int) -> Values:
    bits = int(unit.cards["BITPIX"])
    if bits not in (8, 16, 32, 64, -32, -64):
        raise UnreadableImageError(f"a FITS file of {bits} bits a pixel, which there is not")
    dtype = np.dtype(f">{'f' if bits < 0 else 'u' if bits == 8 else 'i'}{abs(bits) // 8}")
    if len(data) < unit.begin + width * height * dtype.itemsize:
        raise UnreadableImageError("broken image: the file ends too early")
    stored = np.frombuffer(data, dtype, width * height, unit.begin).reshape(height, width)[::-1]
    scale, zero = unit.cards.get("BSCALE", 1), unit.cards.get("BZERO", 0)
    found = values_of(stored, unit.cards.get("BLANK") if bits > 0 else None)
    if scale == 1 and zero == 0:
        return found
    if bits > 8 and scale == 1 and zero == 2 ** (bits - 1):  # how FITS writes unsigned integers
        pixels: NDArray[Any] = stored.astype(f"=i{bits // 8}").view(f"=u{bits // 8}") ^ np.array(zero, f"=u{bits // 8}")
    else:
        pixels = stored.astype(np.float32 if abs(bits) <= 16 or bits == -32 else np.float64) * scale + zero
    return Values(pixels, values_of(pixels).missing if bits < 0 else found.missing, None)
