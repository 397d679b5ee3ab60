"""The figure of the ``cost`` experiment: multiply-adds and the time of a training step against depth."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from resnet_flax.figures import style
from resnet_flax.reporting.record import Figure

if TYPE_CHECKING:  # It imports jax, which a figure does not need.
    from resnet_flax.measurements.network_cost import Cost


def draw_into(axes: Axes, costs: "Sequence[Cost]", measured: bool = False) -> None:
    """Draws multiply-adds or the time of a step against depth, with a labelled line for each unit.

    Points of equal depth lie side by side.

    Args:
      axes: The axes to draw into.
      costs: The costs of the networks.
      measured: If true, draws the median time of a step with bars from the least to the most, else multiply-adds.
    """
    depths = sorted({c.depth for c in costs})
    margin = 0.15 * (depths[-1] - depths[0] or depths[0])
    axes.set_xlim(depths[0] - margin, depths[-1] + margin)
    line_styles = style.line_styles(c.unit for c in costs)
    for i, (unit, look) in enumerate(line_styles.items()):
        line = sorted((c for c in costs if c.unit == unit), key=lambda c: c.depth)
        x = [c.depth for c in line]
        y = np.array([1e3 * c.step.median if measured else c.multiply_adds / 1e6 for c in line])
        shifted = style.offset_transform(axes, i, len(line_styles), depths)
        axes.plot(x, y, label=unit, linewidth=1.5, markersize=5, transform=shifted, **look)
        if measured:
            bars = (y - [1e3 * c.step.least for c in line], [1e3 * c.step.most for c in line] - y)
            axes.errorbar(x, y, bars, fmt="none", capsize=3, ecolor=look["color"], transform=shifted)
    axes.set_xticks(depths)
    most = max(1e3 * c.step.most if measured else c.multiply_adds / 1e6 for c in costs)
    axes.set_ylim(0, 1.08 * most)
    axes.set_xlabel("depth (layers with weights)")
    axes.set_ylabel("time of a training step (ms)" if measured else "multiply-adds an image (millions)")


def draw(costs: "Sequence[Cost]", path: Path, title: str) -> Figure:
    """Writes the figure with two panels of :func:`draw_into`: counted multiply-adds, and measured times."""
    rounds = len(costs[0].step.rounds)
    with style.figure_style():
        figure, [axes] = style.panels(1, 2, height=3.0)
        for ax, what in zip(axes, ("counted", "measured"), strict=True):
            draw_into(ax, costs, what == "measured")
            ax.set_title(what)
        style.finish(figure, path, title, f"median of {rounds} rounds, bars from the least to the most")
    return Figure(
        path.name,
        f"{title}. Left: multiply-adds to classify one image. Right: time of a training step, as the median of "
        f"{rounds} rounds with bars from the least to the most. Points of equal depth lie side by side.",
    )
