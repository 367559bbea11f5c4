"""Plots: how training went, and maps."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.drawing.figures import ACCENT, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LONGEST_GROUP, TITLE_LINE = 32, 80  # letters of a group's name in a legend, and of a line of a map's title
# Of groups, in pictures and on pages alike; more groups than these, and what belongs to none, are grey.
PALETTE = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf", "#aec7e8",
    "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#dbdb8d", "#9edae5", "#393b79", "#637939",
)  # fmt: skip
GREY = "#9a9aa2"
DEEP_BUTTONS = ["orbitRotation", "pan3d", "zoom3d", "resetCameraDefault3d", "toImage"]  # none that asks a network


def draw_history(epochs: Sequence[int], train: Sequence[float], held_out: Sequence[float], loss: str) -> Figure:
    """Training and held-out loss over epochs; the axis ignores the first epochs' heights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(epochs, train, label="training", color="#4263eb")
    axes.plot(epochs, held_out, label="held out", color=ACCENT)
    if epochs:
        best = int(np.argmin(held_out))
        axes.plot(epochs[best], held_out[best], "o", color=ACCENT, label=f"kept: epoch {epochs[best]}")
        if max(held_out) > 0:
            axes.set_yscale("log")
    title = "How the autoencoder learned" if epochs else "Found in closed form: nothing was trained"
    axes.set(xlabel="epoch", ylabel=f"loss ({loss})", title=title)
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


def group_colours(groups: Sequence[str]) -> dict[str, str]:
    """The colour of each of the 20 largest groups, in natural order; the empty text is no group.

    The one place where colours are given, so that a label has the same one wherever it is drawn.
    """
    labels = np.array(groups, dtype=str)
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")][: len(PALETTE)].tolist()
    return dict(zip(sorted(largest, key=_natural), PALETTE, strict=False))


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
        """(group, colour, rows) in the order of `group_colours`; the rest before them, without groups in the first."""
        labels, colours = np.array(self.groups, dtype=str), group_colours(self.groups)
        rest = np.flatnonzero(~np.isin(labels, list(colours)))
        parts = [("other", GREY, rest) if colours else ("images", PALETTE[0], rest)] if len(rest) else []
        return parts + [(name, colour, np.flatnonzero(labels == name)) for name, colour in colours.items()]

    def draw(self) -> Figure:
        """Still picture, 2-D or 3-D."""
        from matplotlib import rc_context

        with rc_context({"text.parse_math": False}):  # names may have dollars
            return self._draw()

    def _draw(self) -> Figure:
        from matplotlib.figure import Figure

        flat = self.coordinates.shape[1] == 2
        figure = Figure(figsize=(9, 7.5), layout="constrained")
        axes: Any = figure.add_subplot() if flat else figure.add_subplot(projection="3d")
        size = float(np.clip(3e4 / max(len(self.coordinates), 1), 1.0, 18.0))
        for name, colour, rows in self.by_group():
            shown = shorten(name, lambda text: len(text) <= LONGEST_GROUP)
            label = f"\u200b{shown}"  # Matplotlib leaves out names that begin with an underscore
            axes.scatter(*self.coordinates[rows].T, s=size, c=colour, label=label, linewidths=0, alpha=0.75)
        axes.set_title(textwrap.fill(self.title, TITLE_LINE))
        if flat:
            axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        handles = axes.get_legend_handles_labels()[0]
        if len(handles) > 1:
            legend = figure.legend(loc="outside right upper", frameon=False)
            for handle in legend.legend_handles:
                handle.set_sizes([40.0])  # type: ignore[union-attr]
        return figure

    def page(self) -> str:
        """One self-contained HTML page of a 3-D map, to turn and zoom; it asks no network for anything."""
        import plotly.graph_objects as graph

        figure = graph.Figure()
        size = float(np.clip(3e4 / max(len(self.coordinates), 1), 3.0, 8.0))
        for name, colour, rows in self.by_group():
            axes = dict(zip("xyz", self.coordinates[rows].T, strict=True))
            figure.add_trace(
                graph.Scatter3d(
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
            scene={"xaxis": hidden, "yaxis": hidden, "zaxis": hidden},
            legend={"itemsizing": "constant"},
            margin={"l": 10, "r": 10, "t": 50, "b": 10},
        )
        config = {"scrollZoom": True, "displaylogo": False, "modeBarButtons": [DEEP_BUTTONS]}
        plot = figure.to_html(
            include_plotlyjs=True, include_mathjax=False, config=config, full_html=False, default_height="100%"
        )
        return PAGE.format(title=html.escape(self.title), plot=plot)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort 2 before 10, also within names, and numbers before words."""
    parts = [part.lstrip("0") if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]
    return [(1, 0, part) if n % 2 == 0 else (0, len(part), part) for n, part in enumerate(parts) if n % 2 or part]
