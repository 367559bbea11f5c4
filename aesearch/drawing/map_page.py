"""The page of a map: one file with every image in it, that asks no network for anything."""

from __future__ import annotations

import base64
import html
import importlib.metadata
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.drawing.figures import data_url
from aesearch.drawing.plots import GREY, PALETTE, group_colours
from aesearch.drawing.thumbnails import Atlas

LEAFLET = "XStatic-Leaflet"
SCRIPTS = ("tools.js", "map.js", "mapview.js", "page.js")


@dataclass(frozen=True, eq=False)
class MapPage:
    """A map in the plane with all that its page shows.

    Attributes
    ----------
    title : str
    rows : (n,) int64
        Of the collection.
    coordinates : (n, 2) float32
    names : list of n str
    columns : dict of list of n str
        What may colour the points, by name; empty strings are drawn grey.
    colour_by : str
        One of them at first, or empty.
    scores : (n,) float32
        What may colour them too.
    score_name : str
    atlas : Atlas or None
        None where the images cannot be read any more.
    neighbours : (n, k) int32, optional
        Nearest points of each, nearest first, -1 where there are no more.
    told : str, optional
        What the places are, beside the title.
    """

    title: str
    rows: NDArray[np.int64]
    coordinates: NDArray[np.float32]
    names: list[str]
    columns: dict[str, list[str]]
    colour_by: str
    scores: NDArray[np.float32]
    score_name: str
    atlas: Atlas | None
    neighbours: NDArray[np.int32] | None = None
    told: str = ""

    def html(self) -> str:
        """One self-contained page."""
        parts = {
            "title": html.escape(self.title),
            "styles": leaflet("leaflet.css") + "".join(map(asset, ("base.css", "mapview.css", "page.css"))),
            "data": json.dumps(self.document(self._sheets()), ensure_ascii=False).replace("<", "\\u003c"),
            "script": leaflet("leaflet.js") + "".join(map(asset, SCRIPTS)),
        }
        return filled("page.html", parts)

    def _sheets(self) -> list[str]:
        sheets = self.atlas.sheets if self.atlas else []
        return [data_url(sheet, "webp") for sheet in sheets]

    def document(self, sheets: list[str]) -> dict[str, Any]:
        """All of it for a script; ``sheets`` are the addresses of the atlas's, arrays are base64 of little endian."""
        atlas = self.atlas and {
            "side": self.atlas.side,
            "across": self.atlas.across,
            "places": _packed(self.atlas.places, "<i4"),
            "sizes": _packed(self.atlas.sizes, "u1"),
            "sheets": sheets,
        }
        return {
            "rows": _packed(self.rows, "<i4"),
            "names": self.names,
            "x": _packed(self.coordinates[:, 0], "<f4"),
            "y": _packed(self.coordinates[:, 1], "<f4"),
            "columns": {name: _coded(values) for name, values in self.columns.items()},
            "colourBy": self.colour_by,
            "plain": PALETTE[0],
            "other": GREY,
            "told": self.told,
            "scores": _packed(self.scores, "<f4"),
            "scoreName": self.score_name,
            "neighbours": None if self.neighbours is None else _packed(self.neighbours, "<i4"),
            "atlas": atlas,
        }


def _packed(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode()


def _coded(values: Sequence[str]) -> dict[str, Any]:
    """Each text once, a number for each image, and the legend; of more than 65,535 texts the rarest are left empty."""
    names, codes, counts = np.unique(np.array(values, dtype=str), return_inverse=True, return_counts=True)
    if len(names) >= 2**16:
        kept = np.argsort(-counts, kind="stable")[: 2**16 - 1]
        again = np.zeros(len(names), np.int64)
        again[kept] = np.arange(1, 2**16)
        names, codes = np.concatenate([[""], names[kept]]), again[codes]
    listed = names.tolist()
    legend = [[listed.index(name), colour] for name, colour in group_colours(values).items()]
    return {"names": listed, "codes": _packed(codes, "<u2"), "legend": legend}


def asset(name: str) -> str:
    """One of the files in ``aesearch/web``."""
    return (importlib.resources.files("aesearch") / "web" / name).read_text(encoding="utf-8")


def filled(name: str, parts: Mapping[str, str]) -> str:
    """Such a file with parts in the places that name them."""
    pieces = re.split(r"\{\{(\w+)\}\}", asset(name))  # text, name, text, name, …, text
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def leaflet(name: str) -> str:
    """One of Leaflet's files."""
    path = importlib.metadata.distribution(LEAFLET).locate_file(f"xstatic/pkg/leaflet/data/{name}")
    return Path(str(path)).read_text(encoding="utf-8") + "\n"
