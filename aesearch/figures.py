"""Pictures and pages: contact sheets, curves, maps. Everything to be drawn is given."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.atomic import replacing
from aesearch.errors import AesearchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image, ImageFont

TILE = 112  # pixels of a picture's longer side on a sheet, at least
GAP, CAPTION, FONT_SIZE = 10, 34, 12
INK, PAPER, ACCENT = "#1d1d1f", "#ffffff", "#d6336c"
NAMED_GROUPS = 20  # more groups than this share the colour of "other"
GREY = "#b0b0b0"
FLAT_BUTTONS = ["pan2d", "zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]  # none that asks a network
DEEP_BUTTONS = ["orbitRotation", "pan3d", "zoom3d", "resetCameraDefault3d", "toImage"]


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


def difference_picture(original: NDArray[np.uint8], rebuilt: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
    """Where two (channels, height, width) images differ: dark is equal, bright is ``scale`` or more."""
    from matplotlib import colormaps

    difference = np.abs(original.astype(np.float32) / 255 - rebuilt).mean(axis=0)
    coloured = colormaps["inferno"](np.clip(difference / max(scale, 1e-6), 0, 1))
    return np.asarray(coloured[..., :3] * 255, dtype=np.uint8)


def heat_picture(error_map: NDArray[np.float32], scale: float) -> Image.Image:
    """An error map (height, width), dark where it is 0, bright where it is ``scale`` or more; enlarged to be seen."""
    from matplotlib import colormaps

    coloured = colormaps["inferno"](np.clip(error_map / max(scale, 1e-12), 0, 1))
    return _enlarge(Tile(np.asarray(coloured[..., :3] * 255, dtype=np.uint8)), 2 * TILE)


def draw_sheet(rows: Sequence[Sequence[Tile]], title: str) -> Image.Image:
    """Lay tiles out in rows under a title; small pictures are enlarged with their pixels kept square."""
    from PIL import Image, ImageDraw

    font, bold = _font(FONT_SIZE), _font(FONT_SIZE + 4)
    enlarged = [[_enlarge(tile) for tile in row] for row in rows]
    cell_width = max((i.width for row in enlarged for i in row), default=TILE)
    cell_width = max(cell_width, TILE)
    heights = [max((i.height for i in row), default=0) for row in enlarged]
    columns = max((len(row) for row in rows), default=0)
    width = max(GAP + columns * (cell_width + GAP), 360)
    sheet = Image.new("RGB", (width, 40 + sum(heights) + len(rows) * (CAPTION + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 10), _shorten(title, width - 2 * GAP, bold), fill=INK, font=bold)
    top = 40
    for row, pictures, height in zip(rows, enlarged, heights, strict=True):
        for column, (tile, picture) in enumerate(zip(row, pictures, strict=True)):
            left = GAP + column * (cell_width + GAP)
            corner = (left + (cell_width - picture.width) // 2, top + height - picture.height)
            sheet.paste(picture, corner)
            if tile.framed:
                box = (corner[0] - 3, corner[1] - 3, corner[0] + picture.width + 2, corner[1] + picture.height + 2)
                pen.rectangle(box, outline=ACCENT, width=3)
            for number, line in enumerate(tile.lines[:2]):
                place = (left, top + height + 2 + number * (FONT_SIZE + 3))
                pen.text(place, _shorten(line, cell_width, font), fill=INK, font=font)
        top += height + CAPTION + GAP
    return sheet


def in_rows(tiles: Sequence[Tile], columns: int = 10) -> list[list[Tile]]:
    """Cut a list of tiles into rows."""
    return [list(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]


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


def _enlarge(tile: Tile, least: int = TILE) -> Image.Image:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(tile.pixels)).convert("RGB")
    factor = max(1, math.ceil(least / max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: it has most alphabets."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _shorten(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Cut the front of a text that is too wide: the end of a path tells more."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def draw_history(epochs: Sequence[int], train: Sequence[float], held_out: Sequence[float], loss: str) -> Figure:
    """Training and held-out loss over epochs; the axis ignores the first epochs' heights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(epochs, train, label="training", color="#4263eb")
    axes.plot(epochs, held_out, label="held out", color=ACCENT)
    best = int(np.argmin(held_out))
    axes.plot(epochs[best], held_out[best], "o", color=ACCENT, label=f"kept: epoch {epochs[best]}")
    axes.set(xlabel="epoch", ylabel=f"loss ({loss})", title="How the autoencoder learned")
    axes.set_yscale("log")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>html, body {{ height: 100%; margin: 0; overflow: hidden; }}</style>
</head>
<body>
{plot}
</body>
</html>
"""


@dataclass(frozen=True, eq=False)
class MapDisplay:
    """A map to draw.

    Attributes
    ----------
    coordinates : (n, 2 or 3) float32
    groups : list of n str
        What colours the points; empty strings are drawn grey.
    names : list of n str
        What hovering shows.
    title : str
    """

    coordinates: NDArray[np.float32]
    groups: list[str]
    names: list[str]
    title: str

    def by_group(self) -> list[tuple[str, str, NDArray[np.int64]]]:
        """(group, colour, rows), the largest first; the rest before them in grey."""
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        labels = np.array(self.groups, dtype=str)
        names, counts = np.unique(labels[labels != ""], return_counts=True)
        chosen = names[np.argsort(-counts, kind="stable")][:NAMED_GROUPS]
        palette = colormaps["tab10" if len(chosen) <= 10 else "tab20"]
        rest = np.flatnonzero(~np.isin(labels, chosen))
        parts = [("other" if len(names) else "images", GREY, rest)] if len(rest) else []
        for name in sorted(chosen, key=_natural):
            place = len(parts) - bool(len(rest))
            parts.append((str(name), to_hex(palette(place % palette.N)), np.flatnonzero(labels == name)))
        return parts

    def draw(self) -> Figure:
        """Still picture, 2-D or 3-D."""
        from matplotlib.figure import Figure

        flat = self.coordinates.shape[1] == 2
        figure = Figure(figsize=(9, 7.5), layout="constrained")
        axes: Any = figure.add_subplot() if flat else figure.add_subplot(projection="3d")
        size = float(np.clip(3e4 / max(len(self.coordinates), 1), 1.0, 18.0))
        for name, colour, rows in self.by_group():
            axes.scatter(*self.coordinates[rows].T, s=size, c=colour, label=name, linewidths=0, alpha=0.75)
        axes.set_title(self.title)
        if flat:
            axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        handles = axes.get_legend_handles_labels()[0]
        if len(handles) > 1:
            legend = figure.legend(loc="outside right upper", frameon=False)
            for handle in legend.legend_handles:
                handle.set_sizes([40.0])  # type: ignore[union-attr]
        return figure

    def page(self) -> str:
        """One self-contained HTML page: pan, zoom, hover; it asks no network for anything."""
        import plotly.graph_objects as graph

        flat = self.coordinates.shape[1] == 2
        trace = graph.Scattergl if flat else graph.Scatter3d
        figure = graph.Figure()
        size = float(np.clip(3e4 / max(len(self.coordinates), 1), 3.0, 8.0))
        for name, colour, rows in self.by_group():
            axes = dict(zip("xyz", self.coordinates[rows].T, strict=False))
            figure.add_trace(
                trace(
                    **axes,
                    mode="markers",
                    name=html.escape(name),
                    marker={"size": size, "color": colour, "opacity": 0.8},
                    text=[html.escape(self.names[r]) for r in rows],
                    hovertemplate="%{text}<extra>%{fullData.name}</extra>",
                )
            )
        hidden = {"visible": False}
        figure.update_layout(
            title=html.escape(self.title),
            template="plotly_white",
            dragmode="pan",
            xaxis=hidden,
            yaxis=hidden,
            scene={"xaxis": hidden, "yaxis": hidden, "zaxis": hidden},
            legend={"itemsizing": "constant"},
            margin={"l": 10, "r": 10, "t": 50, "b": 10},
        )
        if flat:
            figure.update_yaxes(scaleanchor="x")
        buttons = FLAT_BUTTONS if flat else DEEP_BUTTONS
        config = {"scrollZoom": True, "displaylogo": False, "modeBarButtons": [buttons]}
        plot = figure.to_html(
            include_plotlyjs=True, include_mathjax=False, config=config, full_html=False, default_height="100%"
        )
        return PAGE.format(title=html.escape(self.title), plot=plot)


def _natural(name: str) -> tuple[int, float, str]:
    """Sort 2 before 10, and numbers before words."""
    return (0, float(name), "") if name.isdecimal() else (1, 0.0, name)
