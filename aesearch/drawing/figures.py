"""Images side by side on a sheet, with captions and heat."""

from __future__ import annotations

import base64
import bisect
import functools
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError
from aesearch.files.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image, ImageDraw, ImageFont


SIDES = ((12, 224), (60, 144))  # of so many tiles at most, pixels of a picture's longer side; of more, LEAST_SIDE
LEAST_SIDE = 112
LOSSLESS_SIDE = 128  # pixels
HEAT_SIDE = 224  # pixels of a heat-map's longer side in a file of its own, at least
GAP, APART, FONT_SIZE, LINE = 10, 26, 12, 15
HEAD, CAPTION = 46, 2 * LINE + 6
LEAST_WIDTH, WIDE = 420, 2400
INK, FAINT, RULE, PAPER, ACCENT = "#1d1d1f", "#6e6e73", "#e4e4e7", "#ffffff", "#d6336c"
END_SHARE, MOST_OF_END = 0.6, 12  # of what is kept of a text that is cut; letters of a number at its end, at most
WIDER = 1.6  # than high: what a sheet of many pictures is about
HEAT = "inferno"


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture (height, width) or (height, width, 3) uint8 with up to two lines under it."""

    pixels: NDArray[np.uint8]
    lines: tuple[str, ...] = ()
    framed: bool = False


def to_picture(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(channels, height, width), uint8 or float in [0, 1], to what a `Tile` takes."""
    if image.dtype != np.uint8:
        image = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)


def webp(picture: NDArray[np.uint8]) -> bytes:
    """A picture (height, width) or (height, width, 3) as a file; small ones as they are, pixel for pixel."""
    from PIL import Image

    buffer = io.BytesIO()
    small = max(picture.shape[:2]) <= LOSSLESS_SIDE
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "WEBP", lossless=small, quality=85)
    return buffer.getvalue()


def data_url(data: bytes, kind: str) -> str:
    """A picture within a page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def heat_over(picture: NDArray[np.uint8], heat_map: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture, paler and grey, with a heat-map (height, width) of any size laid over it.

    The hotter, the brighter and the less transparent: 1 or more covers the picture, 0 and less leave it.
    """
    from PIL import Image

    size = picture.shape[1::-1]
    heat = Image.fromarray(np.clip(_peaks(heat_map, picture.shape), 0, 1).astype(np.float32))
    share = np.asarray(heat.resize(size, Image.Resampling.BILINEAR))[..., None]
    grey = np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float32)[..., None]
    weight = np.sqrt(share)  # small errors are seen too
    mixed = (1 - weight) * (grey * 0.75 + 32) + weight * _heat_colours(share[..., 0])
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def _peaks(heat_map: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A map made smaller by the largest of some pixels each, so that no small spot is lost."""
    for axis in (0, 1):
        step = heat_map.shape[axis] // shape[axis]
        if step > 1:
            heat_map = np.maximum.reduceat(heat_map, np.arange(0, heat_map.shape[axis], step), axis=axis)
    return heat_map


def in_frame(picture: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """A picture with a frame around a box of it, left, top, right and bottom in shares: (height, width, 3)."""
    from PIL import Image, ImageDraw

    shown = Image.fromarray(picture).convert("RGB")
    left, top, right, bottom = box
    corners = [left * shown.width, top * shown.height, right * shown.width - 1, bottom * shown.height - 1]
    corners[2:] = [max(corners[2], corners[0] + 3), max(corners[3], corners[1] + 3)]
    ImageDraw.Draw(shown).rectangle(corners, outline=ACCENT, width=2)
    return np.asarray(shown)


def stacked(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two pictures one over the other, the lower one as wide as the upper: (height, width, 3)."""
    from PIL import Image

    above, below = (Image.fromarray(one).convert("RGB") for one in (upper, lower))
    below = below.resize((above.width, max(1, round(below.height * above.width / below.width))))
    gap = max(1, above.height // 24)
    both = Image.new("RGB", (above.width, above.height + gap + below.height), "white")
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height + gap))
    return np.asarray(both)


def heat_picture(heat_map: NDArray[np.float32]) -> Image.Image:
    """A heat-map (height, width), dark where it is 0 or less, bright where it is 1 or more; enlarged to be seen."""
    coloured = _heat_colours(np.clip(heat_map, 0, 1))
    return _fit_tile(Tile(np.asarray(np.rint(coloured), dtype=np.uint8)), HEAT_SIDE, least=True)


def _heat_colours(shares: NDArray[Any]) -> NDArray[np.float32]:
    """Colours (…, 3) from 0 to 255 of shares in [0, 1]."""
    from matplotlib import colormaps

    return np.asarray(colormaps[HEAT](shares)[..., :3] * 255, dtype=np.float32)


def draw_sheet(
    rows: Sequence[Sequence[Tile | None]],
    title: str,
    *,
    apart: bool = False,
    together: int = 0,
    scale: tuple[str, float] | None = None,
) -> Image.Image:
    """Lay tiles out in rows under a title; small pictures are enlarged with their pixels kept square.

    Parameters
    ----------
    rows : sequence of sequence of Tile or None
        None leaves a place free.
    apart : bool
        The first tile of a row is not one of the others: it stands a little off, and a line parts it from the row
        before, unless its place is free.
    together : int
        So many tiles belong together, and stand a little off from the next ones.
    scale : (name, value), optional
        What the brightest colour of a heat-map stands for; drawn beside the title.
    """
    from PIL import Image, ImageDraw

    count = sum(tile is not None for row in rows for tile in row)
    side = next((side for most, side in SIDES if count <= most), LEAST_SIDE)
    pictures = [[None if tile is None else _fit_tile(tile, side) for tile in row] for row in rows]
    cell = max((p.width for row in pictures for p in row if p), default=side)
    cell = max(cell, side)
    heights = [max((p.height for p in row if p), default=0) for row in pictures]
    captions = [CAPTION if any(tile and tile.lines for tile in row) else 0 for row in rows]
    columns = max((len(row) for row in rows), default=0)
    lefts = [GAP + c * (cell + GAP) + (APART if apart and c else 0) for c in range(columns + 1)]
    lefts = [left + (c // together * GAP if together else 0) for c, left in enumerate(lefts)]
    width = max(lefts[-1], LEAST_WIDTH)
    sheet = Image.new("RGB", (width, HEAD + sum(heights) + sum(captions) + len(rows) * GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    _draw_head(sheet, pen, title, scale)
    top = HEAD
    for row, drawn, height, caption in zip(rows, pictures, heights, captions, strict=True):
        if apart and row and row[0] and top > HEAD:
            pen.line((GAP, top - GAP // 2, width - GAP, top - GAP // 2), fill=RULE)
        for column, (tile, picture) in enumerate(zip(row, drawn, strict=True)):
            if tile and picture:
                _draw_tile(sheet, pen, tile, picture, (lefts[column], top, cell, height))
        top += height + caption + GAP
    return sheet


def _draw_head(sheet: Image.Image, pen: ImageDraw.ImageDraw, title: str, scale: tuple[str, float] | None) -> None:
    """The title and, on the right, what the colours stand for."""
    from PIL import Image

    font, bold = _font(FONT_SIZE), _font(FONT_SIZE + (4 if sheet.width < WIDE else 12))
    room = sheet.width - 2 * GAP
    if scale:
        low, high = f"{scale[0]} 0", f"{scale[1]:.2g} or more"
        bar = Image.fromarray(np.rint(_heat_colours(np.linspace(0, 1, 96)[None])).astype(np.uint8)).resize((96, 10))
        right = sheet.width - GAP - int(font.getlength(high))
        pen.text((right, 14), high, fill=FAINT, font=font)
        sheet.paste(bar, (right - 6 - bar.width, 17))
        left = right - 12 - bar.width - int(font.getlength(low))
        pen.text((left, 14), low, fill=FAINT, font=font)
        room = left - 2 * GAP
    pen.text((GAP, 11), _shorten(title, room, bold), fill=INK, font=bold)


def _draw_tile(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, tile: Tile, picture: Image.Image, cell: tuple[int, int, int, int]
) -> None:
    """A picture at the bottom of its cell (left, top, width, height), its lines under it."""
    left, top, width, height = cell
    corner = (left, top + height - picture.height)
    sheet.paste(picture, corner)
    box = (corner[0] - 1, corner[1] - 1, corner[0] + picture.width, corner[1] + picture.height)
    pen.rectangle(box, outline=RULE)  # white pictures end somewhere too
    if tile.framed:
        pen.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), outline=ACCENT, width=3)
    font = _font(FONT_SIZE)
    for number, line in enumerate(tile.lines[:2]):
        place = (left, top + height + 4 + number * LINE)
        pen.text(place, _shorten(line, width, font), fill=(INK, FAINT)[number], font=font)


def in_rows(tiles: Sequence[Tile], columns: int | None = None) -> list[list[Tile]]:
    """Cut a list of tiles into rows, by default into as many as make a handsome sheet."""
    columns = columns or columns_for(len(tiles))
    return [list(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]


def columns_for(count: int) -> int:
    """How many of so many tiles to lay side by side."""
    return max(5, math.ceil(math.sqrt(WIDER * count)))


def beside(lead: Tile, tiles: Sequence[Tile], columns: int) -> list[list[Tile | None]]:
    """Rows of tiles with what they belong to at the left of the first."""
    parts = in_rows(tiles, columns) or [[]]
    return [[None if number else lead, *part] for number, part in enumerate(parts)]


def save_picture(picture: Image.Image | Figure, path: Path) -> None:
    """Write as PNG, JPEG, … by the file's ending; ``AesearchError`` for an ending nobody knows."""
    from matplotlib.figure import Figure
    from PIL import Image

    if Image.registered_extensions().get(path.suffix.lower()) not in ("PNG", "JPEG", "WEBP"):
        raise AesearchError(f"cannot save a picture as {path.name!r}: end its name in .png, .jpg or .webp")
    with replacing(path) as temporary:
        if isinstance(picture, Figure):
            picture.savefig(temporary, dpi=120, facecolor=PAPER)
        else:
            picture.save(temporary)


def _fit_tile(tile: Tile, side: int, *, least: bool = False) -> Image.Image:
    """A picture whose longer side has about so many pixels: enlarged by a whole number, or reduced.

    That is at most ``side``, or with ``least`` that at least.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(tile.pixels)).convert("RGB")
    longest = max(picture.size)
    factor = max(1, math.ceil(side / longest) if least else side // longest)
    if longest * factor > side and not least:
        size = (max(1, round(length * side / longest)) for length in picture.size)
        return picture.resize((next(size), next(size)), Image.Resampling.LANCZOS)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: it has most alphabets."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _shorten(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """A text that is no wider than so many pixels; see `shorten`."""
    return shorten(text, lambda shown: font.getlength(shown) <= width)


def shorten(text: str, fits: Callable[[str], bool]) -> str:
    """Cut a text that is too long in the middle: what it begins with, its end, and a number there, tell most."""
    text = " ".join(text.split())
    if fits(text):
        return text
    number = re.search(r"[0-9]*(\.\w{1,5})?$", text)
    least = min(len(number[0]) if number else 0, MOST_OF_END)

    def cut(kept: int) -> str:
        end = min(kept, max(least, round(END_SHARE * kept)))
        return f"{text[: kept - end].rstrip()}…{text[len(text) - end :].lstrip()}"

    kept = bisect.bisect_left(range(1, len(text)), True, key=lambda kept: not fits(cut(kept)))
    return cut(kept)


def short_names(ids: Sequence[str]) -> list[str]:
    """The file of each id, with as many of its folders as tell it from those of other ids among them."""
    parts, deep = [id.split("/") for id in ids], [1] * len(ids)
    depth = 1
    while True:
        shown: dict[tuple[str, ...], set[str]] = {}
        for id, names, kept in zip(ids, parts, deep, strict=True):
            shown.setdefault(tuple(names[-kept:]), set()).add(id)
        more = [n for n, (names, kept) in enumerate(zip(parts, deep, strict=True))
                if kept == depth < len(names) and len(shown[tuple(names[-kept:])]) > 1]  # fmt: skip
        if not more:
            return ["/".join(names[-kept:]) for names, kept in zip(parts, deep, strict=True)]
        depth += 1
        for n in more:
            deep[n] = depth
