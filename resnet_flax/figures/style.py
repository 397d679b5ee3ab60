"""The look of every figure, and how one is begun and written.

Lines of a panel differ in colour, marker and dashes, and their colours also in grey. matplotlib's own settings and
backend stay as they are: a function that writes a file is decorated with :func:`figure_style`, and makes its figure without
pyplot. A function that draws into axes takes them as they come.
"""

import contextlib
import re
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
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform, blended_transform_factory

from resnet_flax.atomic import replacing
from resnet_flax.reporting import words
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
def figure_style() -> Iterator[None]:
    """Applies the look to what is drawn inside; matplotlib's settings are as before at its end."""
    with matplotlib.style.context(["default", _SETTINGS]):
        yield


def colors(count: int) -> list[str]:
    """Returns that many colours, light to dark, no two of them equal."""
    if count > len(_COLORS):
        return [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["viridis"](np.linspace(0.8, 0, count))]
    return [_COLORS[i] for i in _FEW.get(count, range(count))]


def line_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
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


def offset_transform(axes: Axes, place: int, places: int, values: Sequence[float]) -> Transform:
    """Returns ``axes.transData`` moved aside, so that equal points of several lines lie beside each other.

    Args:
      axes: with their horizontal scale and limits.
      place: of the line among those that are drawn, from 0.
      places: how many lines there are.
      values: all that x takes; a line is moved by less than half of their least distance, so their order stays.
    """
    points = axes.transData.transform([(value, 1) for value in values])[:, 0] * 72 / axes.figure.dpi
    step = min([4.0, *(0.6 * np.diff(np.unique(points)) / max(places - 1, 1))])
    return axes.transData + ScaledTranslation(step * (place - (places - 1) / 2) / 72, 0, axes.figure.dpi_scale_trans)


def mark_failures(
    axes: Axes, there: Mapping[float, Sequence[Outcome]], mean: Sequence[float], look: Mapping[str, Any]
) -> None:
    """Marks where seeds failed: a hollow point where some did, a cross at the top where all did; explains any gap.

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
            add_legend_entry(axes, failures, marker="x", linestyle="none")
        elif failures:
            axes.plot(
                [place], [error], **point, marker=look["marker"], markerfacecolor="w", transform=look["transform"]
            )
            add_legend_entry(
                axes, f"{failures} in part: mean of the other seeds", marker="o", markerfacecolor="w", linestyle="none"
            )
        elif not np.isfinite(error):
            add_legend_entry(axes, "gap: not finite", linestyle="none")


def caption(title: str, rest: str) -> str:
    """Returns a caption that begins with a title, which may be a question."""
    return f"{title}{'' if title.endswith('?') else '.'} {rest}."


def draw_layers(
    axes: Axes, values: Sequence[float], name: str, line_styles: Mapping[str, Any], log: bool = False
) -> None:
    """Draws a number of each layer against the layer, with some of its points marked.

    Args:
      axes: what is drawn into.
      values: of the layers, in order.
      name: the line's label.
      line_styles: of all lines (:func:`line_styles`); each is marked at other points.
      log: whether the vertical axis is logarithmic; 0, as of a layer that has died, is a gap then, and explained.
    """
    all_values, every = np.asarray(values, float), max(1, len(values) // 7)
    shown = np.where(all_values > 0, all_values, np.nan) if log else all_values
    marks: dict[str, Any] = {
        "markevery": (list(line_styles).index(name) * every // len(line_styles), every),
        "markersize": 4,
    }
    axes.plot(range(1, len(values) + 1), shown, label=name, linewidth=1.4, **line_styles[name], **marks)
    if log:
        axes.set_yscale("log")
    if not np.isfinite(shown).all():
        add_legend_entry(axes, "gap: 0, or not finite", linestyle="none")


def add_legend_entry(axes: Axes, text: str, **sign: Any) -> None:
    """Gives the axes' legend an entry that is no line of theirs, once."""
    if text not in axes.get_legend_handles_labels()[1]:
        look: dict[str, Any] = {"color": "0.3", "markersize": 5} | sign
        axes.plot([], [], label=text, **look)


def _is_sign(handle: Artist) -> bool:
    return isinstance(handle, Line2D) and np.size(handle.get_xdata()) == 0


def error_axis(axes: Axes, lowest: Iterable[float], most: float, vertical: bool = True) -> None:
    """Scales and names an axis of errors in %: from 0, and logarithmic above 1 where several lines get below 5.

    Args:
      axes: to be scaled.
      lowest: an error of each line, which decides.
      most: the greatest error that is drawn.
      vertical: whether errors go up, or to the right.
    """
    if sum(value < _LOW for value in lowest) > 1 and most > 5 * _LOW:
        _logarithmic(axes, vertical)
    else:
        (axes.yaxis if vertical else axes.xaxis).set_label_text("error (%)")
    (axes.set_ylim if vertical else axes.set_xlim)(0, 100 if most > 50 else 1.1 * most or 1)


def _logarithmic(axes: Axes, vertical: bool = True) -> None:
    axis, set_scale = (axes.yaxis, axes.set_yscale) if vertical else (axes.xaxis, axes.set_xscale)
    set_scale("symlog", linthresh=1, linscale=0.4)
    axis.set_major_locator(FixedLocator(_TICKS))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_label_text("error (%), log above 1")


def share_scales(axes: np.ndarray) -> None:
    """Gives panels of errors [rows, columns] axes that can be compared: within a column, and where they fit, in all.

    A column is logarithmic where one of its panels is. Where no column is, or each, inner panels lose their labels.
    """
    for column in axes.T:
        if any(ax.get_yscale() == "symlog" for ax in column):
            for ax in column:
                _logarithmic(ax)
    equal = len({ax.get_yscale() for ax in axes.flat}) == 1
    for panels in [axes] if equal else axes.T:
        most = max(ax.get_ylim()[1] for ax in panels.flat)
        for ax in panels.flat:
            ax.set_ylim(0, most)
    for (row, column), ax in np.ndenumerate(axes):
        if row < len(axes) - 1:
            ax.set_xlabel("")
        if equal and column:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)


def legend(figure: Figure) -> None:
    """Writes one legend below all panels, as wide as the figure and no wider; the figure grows by its height.

    It explains whatever has a label in any panel, each label once: first lines, then signs.
    """
    labelled = {h.get_label(): h for ax in figure.axes for h in ax.get_legend_handles_labels()[0]}
    handles = sorted(labelled.values(), key=_is_sign)
    labels = [textwrap.fill(words.without_keys(str(handle.get_label())), 58) for handle in handles]
    width, height = figure.get_size_inches()
    for columns in range(len(handles), 0, -1):
        found = figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=3.2)
        box = found.get_window_extent()
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
      protocol: by which data, batch, steps and seeds; data that the title names are not named again.
    """
    legend(figure)
    data, _, rest = protocol.partition(", ")
    named = re.sub(r"\W", "", data).lower() in re.sub(r"\W", "", title).lower()
    lines = [*textwrap.wrap(title, 72), *textwrap.wrap(rest if named else protocol, 84)]
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
    forms: dict[str, dict[str, Any]] = {"png": {"dpi": 160}, "svg": {"metadata": {"Date": None}}}
    for form, more in forms.items():
        with replacing(path.with_suffix(f".{form}")) as temporary:
            figure.savefig(temporary, format=form, **more)
