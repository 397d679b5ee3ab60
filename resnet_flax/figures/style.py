"""The style of all figures, and functions to create, annotate and save them.

Lines of a panel differ in colour, marker and dashes, and their colours also differ in grey. matplotlib's own settings
and backend stay unchanged: a function that writes a file draws inside :func:`figure_style` and creates its figure
without pyplot. A function that draws into axes uses them as they are.
"""

import contextlib
import itertools
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
from resnet_flax.errors import UserError
from resnet_flax.reporting import words
from resnet_flax.runs.schemas import ERRORS
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
    "svg.hashsalt": "resnet_flax",  # makes the bytes of a figure reproducible
}
WIDTH = 6.6  # inches: the width of a printed page; text of 10 points is still legible on a phone

# From light to dark in steps of at least 24 of 255 in grey. Blues and oranges differ for the colour-blind.
_COLORS = ("#f2b82e", "#5bb5ea", "#e0662f", "#009e73", "#0069a8", "#5a1a70", "#000000")
_FEW = {1: (4,), 2: (2, 6), 3: (1, 3, 6), 4: (1, 2, 4, 6), 5: (1, 2, 3, 4, 6), 6: (1, 2, 3, 4, 5, 6)}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)))
_LOW = 5.0  # %; on a linear axis up to 100, several errors below it would lie on top of each other
_TICKS = (0, 1, 2, 5, 10, 20, 50, 100)
_SIGN: dict[str, Any] = {"color": "0.3", "markersize": 5}  # the look of legend entries that are not lines


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Applies the style inside the context, and restores matplotlib's settings at its end."""
    with matplotlib.style.context(["default", _SETTINGS]):
        yield


def colors(count: int) -> list[str]:
    """Returns a number of different colours, from light to dark; if there are many, in two rounds.

    Lines of one panel are mostly neighbours among the names, so they would get colours that are hardly different.
    """
    if count > len(_COLORS):
        many = [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["viridis"](np.linspace(0.8, 0, count))]
        return many[::2] + many[1::2]
    return [_COLORS[i] for i in _FEW.get(count, range(count))]


def line_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns the style of each line by its name: colour, marker and dashes, as arguments of ``Axes.plot``."""
    names = list(dict.fromkeys(names))
    return {
        name: {"color": color, "marker": MARKERS[i % len(MARKERS)], "linestyle": DASHES[i % len(DASHES)]}
        for i, (name, color) in enumerate(zip(names, colors(len(names)), strict=True))
    }


def panels(rows: int, columns: int, height: float = 2.6, **shared: Any) -> tuple[Figure, np.ndarray]:
    """Creates a figure as wide as a page, and returns it with its axes [rows, columns].

    Args:
      rows: The number of rows of panels.
      columns: The number of columns of panels. More than two are too small on a phone.
      height: The height of a panel, in inches.
      shared: Arguments of ``Figure.subplots``, such as ``sharey=True``.
    """
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    FigureCanvasAgg(figure)  # needed to measure texts
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def offset_transform(axes: Axes, place: int, places: int, values: Sequence[float]) -> Transform:
    """Returns ``axes.transData`` with a small horizontal offset, so that equal points of lines lie side by side.

    Args:
      axes: The axes, with their final horizontal scale and limits.
      place: The index of the line, from 0.
      places: The number of lines.
      values: All values of x. The offset is less than half of their least distance, which keeps points in order.
    """
    points = axes.transData.transform([(value, 1) for value in values])[:, 0] * 72 / axes.figure.dpi
    step = min([4.0, *(0.6 * np.diff(np.unique(points)) / max(places - 1, 1))])
    return axes.transData + ScaledTranslation(step * (place - (places - 1) / 2) / 72, 0, axes.figure.dpi_scale_trans)


def check_metric(metric: str, outcomes: Sequence[Outcome]) -> None:
    """Refuses a metric that is not an error of the runs, which a figure of errors in % would draw wrongly.

    Raises:
      UserError: There are no runs, or the metric is none of their errors, which the message lists.
    """
    if not outcomes:
        raise UserError("there are no runs to draw")
    lines = [line for outcome in outcomes for line in outcome.lines]
    errors = {
        "train_error",
        "test_error",
        *(key for line in lines for key in line if ERRORS.fullmatch(key) or key.endswith("_error")),
    }
    if metric not in errors and (lines or not ERRORS.fullmatch(metric)):
        raise UserError(f"metric={metric!r} is not an error of these runs; choose from {', '.join(sorted(errors))}")


def mark_failures(
    axes: Axes, there: Mapping[float, Sequence[Outcome]], mean: Sequence[float], look: Mapping[str, Any]
) -> None:
    """Marks points of a line whose seeds failed, and explains the marks and any gap in the legend.

    A point is hollow if some seeds failed. If all failed, there is a cross at the top.

    Args:
      axes: The axes that the line was drawn into.
      there: The outcomes at each x of the line.
      mean: The mean error at each x, or NaN.
      look: The style of the line, with its transform.
    """
    point = {"color": look["color"], "linestyle": "none", "markersize": 5, "zorder": 3}
    top = blended_transform_factory(look["transform"], axes.transAxes)
    for (place, members), error in zip(there.items(), mean, strict=True):
        failures = {o.failure for o in members if o.failure}
        if failures and all(o.failure for o in members):
            axes.plot([place], [0.97], **point, marker="x", transform=top)
            explain_failures(axes, failures, marker="x")
        elif failures:
            axes.plot(
                [place], [error], **point, marker=look["marker"], markerfacecolor="w", transform=look["transform"]
            )
            rest = " for some seeds: mean of the others"
            explain_failures(axes, failures, rest, marker="o", markerfacecolor="w")
        elif not np.isfinite(error):
            add_legend_entry(axes, "gap: not finite", linestyle="none")


def caption(title: str, rest: str) -> str:
    """Returns a caption that begins with the title. The title may be a question."""
    return f"{title}{'' if title.endswith('?') else '.'} {rest}."


def set_limit_from_0(axes: Axes) -> None:
    """Lets a linear vertical axis begin at 0 and end above the greatest value drawn, so that no marker is cut off."""
    values = [np.asarray(line.get_ydata(), float) for line in axes.lines if np.size(line.get_ydata())]
    most = max((float(np.nanmax(v)) for v in values if np.isfinite(v).any()), default=0.0)
    axes.set_ylim(0, 1.06 * most or 1)


def draw_layers(
    axes: Axes, values: Sequence[float], name: str, line_styles: Mapping[str, Any], log: bool = False
) -> None:
    """Draws a line of one value for each layer, with markers on some points.

    Args:
      axes: The axes to draw into.
      values: The values in layer order.
      name: The label of the line.
      line_styles: The styles of all lines (:func:`line_styles`). Their markers are on different layers.
      log: If true, the vertical axis is logarithmic. Values of 0 then leave a gap, which the legend explains.
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
    """Adds an entry to the axes' legend that is not one of their lines, unless it is already there.

    Args:
      text: The text of the entry.
      sign: The look of the entry's sign, as arguments of ``Axes.plot``.
    """
    if text not in axes.get_legend_handles_labels()[1]:
        axes.plot([], [], label=text, **_SIGN | sign)


class _FailureSign(Line2D):
    """The legend entry of a mark for failed runs. It names all kinds of failure that the mark stands for."""

    def __init__(self, rest: str, **sign: Any) -> None:
        super().__init__([], [], linestyle="none", **_SIGN | sign)
        self.key = (rest, self.get_marker())
        self.failures: set[str] = set()

    def add(self, failures: Iterable[str]) -> None:
        """Adds kinds of failure to the label."""
        self.failures |= set(failures)
        self.set_label(" or ".join(sorted(self.failures)) + self.key[0])


def explain_failures(axes: Axes, failures: Iterable[str], rest: str = "", **sign: Any) -> None:
    """Explains a mark for failed runs in the axes' legend. All kinds of failure with the same mark share one entry.

    Args:
      failures: The kinds of failure, such as ``diverged``.
      rest: The text after them.
      sign: The look of the mark, as arguments of ``Axes.plot``.
    """
    new = _FailureSign(rest, **sign)
    entry = next((line for line in axes.lines if isinstance(line, _FailureSign) and line.key == new.key), None)
    if entry is None:
        entry = new
        axes.add_line(new)
    entry.add(failures)


def _is_sign(handle: Artist) -> bool:
    return isinstance(handle, Line2D) and np.size(handle.get_xdata()) == 0


def error_axis(axes: Axes, lowest: Iterable[float], most: float, vertical: bool = True) -> None:
    """Scales and labels an axis of errors in %. It begins at 0, and is logarithmic above 1 if several lines go below 5.

    Args:
      axes: The axes to scale.
      lowest: The lowest error of each line, which decides on the scale.
      most: The greatest error that is drawn.
      vertical: If true, the vertical axis is scaled, else the horizontal one.
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
    """Gives panels of errors [rows, columns] the same vertical axis in each column, and in all if the scales agree.

    A column is logarithmic if one of its panels is. If all columns have the same scale, inner panels lose their labels.
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
    """Adds one legend below all panels, no wider than the figure, which grows by the legend's height.

    The legend has each label of any panel once, first lines and then signs.
    """
    failures = [line for ax in figure.axes for line in ax.lines if isinstance(line, _FailureSign)]
    for a, b in itertools.permutations(failures, 2):
        if a.key == b.key:
            a.add(b.failures)
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
    """Adds the legend and the title with the protocol below it, and saves the figure.

    Args:
      figure: The figure with its panels drawn.
      path: The path of the PNG.
      title: The title, which is wrapped if long.
      protocol: The line on data, batch, steps and seeds (:func:`~resnet_flax.reporting.protocol.summary`). A data set
        that the title names is left out.
    """
    legend(figure)
    data, _, rest = protocol.partition(", ")
    named = re.sub(r"\W", "", data).lower() in re.sub(r"\W", "", title).lower()
    lines = [*textwrap.wrap(title, 72), *textwrap.wrap(rest if named else protocol, 84)]
    figure.suptitle("\n".join(lines), fontsize=10)
    figure.set_figheight(figure.get_figheight() + 0.2 * len(lines))
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, and an SVG beside it, each atomically. Equal figures give equal bytes.

    Args:
      figure: The figure from :func:`panels`.
      path: The path of the PNG.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    forms: dict[str, dict[str, Any]] = {"png": {"dpi": 160}, "svg": {"metadata": {"Date": None}}}
    for form, more in forms.items():
        with replacing(path.with_suffix(f".{form}")) as temporary:
            figure.savefig(temporary, format=form, **more)
