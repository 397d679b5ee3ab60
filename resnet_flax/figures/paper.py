"""Draws Figs. 1, 6 and 7 of the paper from runs."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from resnet_flax import config as configs
from resnet_flax import published
from resnet_flax.figures import curves, style
from resnet_flax.reporting import protocol
from resnet_flax.reporting.record import Figure
from resnet_flax.sweeps.cases import Outcome

_PANELS = ("plain", "residual", "residual, 110 layers and more")  # the panels of Fig. 6
_GAP = 0.08  # the least distance between two numbers, as a fraction of the axis


def figure_6(outcomes: Sequence[Outcome], path: Path, title: str) -> Figure:
    """Writes Fig. 6, with the test errors of the paper's Table 6 beside it.

    Its rows of panels are plain networks, residual networks, and residual networks of 110 layers and more.
    """
    ordered = sorted(outcomes, key=lambda o: _PANELS.index(_panel(o)) if _panel(o) in _PANELS else len(_PANELS))
    networks = {configs.name_of(o.run.config.model) for o in outcomes}
    figure = curves.draw(ordered, path, title, panel=_panel, beside=partial(_draw_published, networks))
    return Figure(
        figure.file,
        f"{figure.caption} Numbers to the right of a panel are the paper's test errors in % of the same networks after "
        f"64k steps on 32x32 images (arXiv:1512.03385, Table 6, which has no plain networks).",
    )


def _panel(outcome: Outcome) -> str:
    kind = curves.unit(outcome)
    return _PANELS[2] if outcome.run.config.model.depth >= 110 and kind == "residual" else kind


def _draw_published(
    networks: Collection[str], axes: Axes, panel: str, line_styles: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draws a marker at the right edge for each published test error, and its number. Numbers do not overlap.

    Args:
      networks: The names of the trained networks, such as ``residual-56``. Errors of others are not drawn.
      axes: The axes of the panel.
      panel: The name of the panel.
      line_styles: The style of each line by its name.
    """
    found = {}
    for number in published.read("cifar10_table6").numbers:
        name, _, depth = number.network.rpartition("-")
        line = f"{depth} layers"
        shown = (
            name == "residual"
            and number.metric == "test error %"
            and number.statistic != "best"
            and number.network in networks
        )
        if shown and panel == _PANELS[2 if int(depth) >= 110 else 1]:
            found[line] = number.value
    right: dict[str, Any] = {"xycoords": "axes fraction", "fontsize": 8, "color": "0.2", "annotation_clip": False}
    bottom = 0.0
    for line, value in sorted(found.items(), key=lambda item: item[1]):
        look = {"color": line_styles[line]["color"], "marker": line_styles[line]["marker"], "markersize": 4.5}
        _, height = (axes.transScale + axes.transLimits).transform((0, value))
        axes.plot([1.02], [value], transform=axes.get_yaxis_transform(), clip_on=False, **look)
        height = max(height, bottom)
        axes.annotate(f"{value:.2f}", (1.05, height), va="center", **right)
        bottom = height + _GAP
    if found:
        axes.annotate("the paper,\nTable 6,\n64k steps", (1.05, bottom - _GAP / 3), va="bottom", **right)


def figure_1(outcomes: Sequence[Outcome], path: Path, title: str) -> Figure:
    """Writes Fig. 1: training and test errors of the shallowest and the deepest networks."""
    depths = sorted({o.run.config.model.depth for o in outcomes})
    chosen = [o for o in outcomes if o.run.config.model.depth in (depths[0], depths[-1])]
    figure = curves.draw(chosen, path, title)
    depths = list(dict.fromkeys([depths[0], depths[-1]]))
    return Figure(
        figure.file,
        style.caption(title, f"Plain networks of {' and '.join(map(str, depths))} layers, error in % by step"),
    )


def draw_responses(
    axes: Axes, outcomes: Sequence[Outcome], responses: Mapping[str, Sequence[float]], by_size: bool = False
) -> None:
    """Draws the standard deviation of each layer's response, with a labelled line for each network.

    Args:
      axes: The axes to draw into.
      outcomes: The outcomes of the runs.
      responses: The deviations in layer order, by the run's label.
      by_size: If true, layers are sorted from the greatest deviation to the least.
    """
    finished = {configs.name_of(o.run.config.model): o for o in outcomes if o.run.label in responses}
    line_styles = style.line_styles(finished)
    for name, outcome in finished.items():
        values = responses[outcome.run.label]
        style.draw_layers(axes, sorted(values, reverse=True) if by_size else values, name, line_styles)
    style.set_limit_from_0(axes)
    axes.set_xlabel("layer, by size" if by_size else "layer, from the input to the output")
    axes.set_ylabel("standard deviation")


def figure_7(
    outcomes: Sequence[Outcome], responses: Mapping[str, Sequence[float]], path: Path, title: str, images: int
) -> Figure:
    """Writes Fig. 7: standard deviations of the 3x3 layers' responses, in layer order and sorted.

    Args:
      outcomes: The outcomes of the runs.
      responses: The deviations in layer order, by the run's label.
      path: The path of the PNG.
      images: The number of images behind the deviations, for the caption.
    """
    finished = [o for o in outcomes if o.run.label in responses]
    with style.figure_style():
        figure, [axes] = style.panels(1, 2, height=2.8, sharey=True)
        for ax, by_size in zip(axes, (False, True), strict=True):
            draw_responses(ax, finished, responses, by_size)
            ax.set_title("sorted by size" if by_size else "in layer order")
            ax.label_outer()
            ax.set_xlabel(ax.get_xlabel())
        style.finish(figure, path, f"{title}, as in the paper's Fig. 7", protocol.summary(finished))
    return Figure(
        path.name,
        f"{title}, as in the paper's Fig. 7. Standard deviation of each 3x3 layer's response, after BN and before the "
        f"nonlinearity or the addition, on {images} training images, for seed {finished[0].run.config.seed}.",
    )
