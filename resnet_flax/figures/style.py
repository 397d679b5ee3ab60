"""How every figure looks: colours that differ in grey and to the colour-blind, one legend below, no clutter."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: no window, no display

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from resnet_flax.atomic import replacing

plt.rcParams.update(
    {
        "axes.grid": True,
        "grid.color": "0.9",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.labelsize": 10,
        "legend.fontsize": 9,
        "legend.frameon": False,
    }
)

# From light to dark, so that lines differ in grey, too; blue to orange-red tells them apart for the colour-blind.
_COLORS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#5b2a86", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))


def colors(count: int) -> list[str]:
    """That many colours, light to dark; beyond seven they repeat."""
    if count == 1:
        return [_COLORS[-3]]
    if count > len(_COLORS):
        return [_COLORS[i % len(_COLORS)] for i in range(count)]
    spread = (len(_COLORS) - 1) / (count - 1)
    return [_COLORS[round(i * spread)] for i in range(count)]


def legend_below(figure: Figure, handles: Sequence[Artist], columns: int = 0) -> None:
    """One legend for all panels, under them, in as many rows as its width asks for."""
    columns = columns or min(len(handles), max(2, int(figure.get_figwidth() // 1.7)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all, and closes the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    plt.close(figure)
