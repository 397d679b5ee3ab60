"""The look of every figure, and how one is begun and written.

Lines of a panel differ in colour, marker and dashes, and their colours also in grey. matplotlib's own settings and
backend stay as they are: a function that writes a file is decorated with :func:`look`, and makes its figure without
pyplot. A function that draws into axes takes them as they come.
"""

import contextlib
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.colors
import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform, blended_transform_factory

from resnet_flax.atomic import replacing
from resnet_flax.sweeps.cases import Outcome

_SETTINGS = {
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "resnet_flax",  # the same figure is the same bytes
}
WIDTH = 6.6  # inches: a page of print; on a telephone, text of 10 points is still read

# From light to dark in steps of at least 24 of 255 in grey; blue to orange tells them apart for the colour-blind.
_COLORS = ("#f2b82e", "#5bb5ea", "#e0662f", "#009e73", "#0069a8", "#5a1a70", "#000000")
_FEW = {1: (4,), 2: (2, 6), 3: (1, 3, 6), 4: (1, 2, 4, 6), 5: (1, 2, 3, 4, 6), 6: (1, 2, 3, 4, 5, 6)}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)))
_LOW = 5.0  # %: where several errors end below it, a linear axis up to 100 would lay them upon each other
_TICKS = (0, 1, 2, 5, 10, 20, 50, 100)


@contextlib.contextmanager
def look() -> Iterator[None]:
    """Applies the look to what is drawn inside; matplotlib's settings are as before at its end."""
    with matplotlib.style.context(["default", _SETTINGS]):
        yield


def colors(count: int) -> list[str]:
    """Returns that many colours, light to dark, no two of them equal."""
    if count > len(_COLORS):
        return [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["viridis"](np.linspace(0.9, 0, count))]
    return [_COLORS[i] for i in _FEW.get(count, range(count))]


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns the colour, marker and dashes of each line by its name, as arguments of ``Axes.plot``."""
    names = list(dict.fromkeys(names))
    return {
        name: {"color": color, "marker": MARKERS[i % len(MARKERS)], "linestyle": DASHES[i % len(DASHES)]}
        for i, (name, color) in enumerate(zip(names, colors(len(names)), strict=True))
    }


def panels(rows: int, columns: int, height: float = 2.6, **shared: Any) -> tuple[Figure, np.ndarray]:
    """Begins a figure of one page's width; returns it and its axes [rows, columns].

    Args:
      rows: of panels.
      columns: of panels; more than two are too small on a telephone.
      height: of a panel, in inches.
      shared: arguments of ``Figure.subplots``, such as ``sharey=True``.
    """
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    FigureCanvasAgg(figure)  # measures texts
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def aside(axes: Axes, place: int, places: int, values: Sequence[float], x: bool = True) -> Transform:
    """Returns ``axes.transData`` moved aside, so that equal points of several lines lie beside each other.

    Args:
      axes: with their scale and limits.
      place: of the line among those that are drawn, from 0.
      places: how many lines there are.
      values: all that are drawn; a line is moved by less than half of their least distance, so their order stays.
      x: whether the values are those of the horizontal axis.
    """
    axis = int(not x)
    points = np.zeros((len(values), 2))
    points[:, axis] = values
    gaps = np.diff(np.unique(axes.transData.transform(points)[:, axis])) * 72 / axes.figure.dpi
    step = min([4.0, *(0.6 * gaps / max(places - 1, 1))])
    shift = [0.0, 0.0]
    shift[axis] = step * (place - (places - 1) / 2) / 72
    return axes.transData + ScaledTranslation(*shift, axes.figure.dpi_scale_trans)


def mark_failures(
    axes: Axes, there: Mapping[float, Sequence[Outcome]], mean: Sequence[float], look: Mapping[str, Any]
) -> None:
    """Marks where seeds failed: a hollow point where some did, a cross at the top where all did; the legend says so.

    Args:
      axes: what the line was drawn into.
      there: the outcomes of the line at each of its places.
      mean: the error at each of them, NaN for none.
      look: of the line, with its transform.
    """
    point = {"color": look["color"], "linestyle": "none", "markersize": 5, "zorder": 3}
    top = blended_transform_factory(look["transform"], axes.transAxes)
    for (place, members), error in zip(there.items(), mean, strict=True):
        failures = " or ".join(sorted({o.failure for o in members if o.failure}))
        if failures and all(o.failure for o in members):
            axes.plot([place], [0.97], **point, marker="x", transform=top)
            explain(axes, failures, marker="x", linestyle="none")
        elif failures:
            axes.plot(
                [place], [error], **point, marker=look["marker"], markerfacecolor="w", transform=look["transform"]
            )
            explain(
                axes, f"{failures} in part: mean of the other seeds", marker="o", markerfacecolor="w", linestyle="none"
            )


def caption(title: str, rest: str) -> str:
    """Returns a caption that begins with a title, which may be a question."""
    return f"{title}{'' if title.endswith('?') else '.'} {rest}."


def explain(axes: Axes, text: str, **sign: Any) -> None:
    """Gives the axes' legend an entry that is no line of theirs, once."""
    if text not in axes.get_legend_handles_labels()[1]:
        axes.plot([], [], label=text, **{"color": "0.3", "markersize": 5} | sign)


def error_axis(axes: Axes, final: Sequence[float], most: float, vertical: bool = True) -> None:
    """Scales an axis for errors in %: from 0, and logarithmic above 1 where several end below 5.

    Args:
      axes: to be scaled.
      final: the last error of each line.
      most: the greatest error that is drawn.
      vertical: whether errors go up, or to the right.
    """
    axis, scale, limits = ("yaxis", "yscale", "ylim") if vertical else ("xaxis", "xscale", "xlim")
    top = 100 if most > 50 else 1.08 * most or 1
    if sum(value < _LOW for value in final) > 1 and most > 5 * _LOW:
        getattr(axes, f"set_{scale}")("symlog", linthresh=1, linscale=0.4)
        getattr(axes, axis).set_major_locator(FixedLocator(_TICKS))
        getattr(axes, axis).set_minor_locator(NullLocator())
        getattr(axes, axis).set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    getattr(axes, f"set_{limits}")(0, top)


def legend(figure: Figure, handles: Iterable[Artist] = ()) -> None:
    """Writes one legend for all panels below them, as wide as the figure and no wider; the figure grows by its height.

    Args:
      figure: with its panels.
      handles: what it explains; by default whatever has a label in any panel, each label once.
    """
    labelled = {h.get_label(): h for ax in figure.axes for h in ax.get_legend_handles_labels()[0]}
    handles = list(handles) or sorted(labelled.values(), key=lambda h: len(h.get_xdata()) == 0)  # signs behind lines
    labels = [textwrap.fill(str(handle.get_label()), 60) for handle in handles]
    width, height = figure.get_size_inches()
    for columns in range(len(handles), 0, -1):
        found = figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=3.2)
        box = found.get_window_extent(figure.canvas.get_renderer())
        if box.width <= 0.98 * width * figure.dpi or columns == 1:
            figure.set_figheight(height + box.height / figure.dpi)
            return
        found.remove()


def finish(figure: Figure, path: Path, title: str, protocol: str = "") -> None:
    """Writes the legend, the title with the protocol below it, and the files.

    Args:
      figure: with its panels drawn.
      path: of the PNG.
      title: what the figure shows; a long one is broken.
      protocol: by which data, batch, steps and seeds.
    """
    legend(figure)
    lines = [*textwrap.wrap(title, 72), *textwrap.wrap(protocol, 84)]
    figure.suptitle("\n".join(lines), fontsize=10)
    figure.set_figheight(figure.get_figheight() + 0.2 * len(lines))
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, and an SVG beside it, each whole or not at all; the same figure gives the same bytes.

    Args:
      figure: as :func:`panels` began it.
      path: of the PNG.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for form, more in {"png": {"dpi": 200}, "svg": {"metadata": {"Date": None}}}.items():
        with replacing(path.with_suffix(f".{form}")) as temporary:
            figure.savefig(temporary, format=form, **more)
