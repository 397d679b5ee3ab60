"""The figure of the ``layer_norms`` experiment: a metric of each layer against the step, as a colour."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from resnet_flax.figures import style
from resnet_flax.reporting import protocol, words
from resnet_flax.reporting.record import Figure
from resnet_flax.sweeps.cases import Outcome

_TITLES = {"gradient_norm": "norm of the gradient", "update_ratio": "update relative to the parameters"}
_CONVOLUTIONS = r"stem_conv|stage\d+\.\d+\.conv\d*"


def draw_into(axes: Axes, outcome: Outcome, metric: str, norm: LogNorm | None = None) -> QuadMesh:
    """Draws a metric of each convolution against steps as a colour. The input's convolution is at the bottom.

    Args:
      axes: The axes to draw into.
      outcome: The outcome of a run that measured the metric (``train.metrics``).
      metric: The metric, such as ``gradient_norm``.
      norm: The scale of colours, to share with other axes. The default is :func:`colour_scale` of the run.

    Returns:
      The drawn mesh, for a colour bar.
    """
    steps, values = _grid(outcome, metric)
    edges = np.concatenate([[0], steps])
    axes.grid(visible=False)
    axes.set_xlabel("training step")
    axes.set_ylabel("convolution, from the input")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if not np.isfinite(values).all():
        style.add_legend_entry(axes, "white: 0, or not finite", marker="s", markerfacecolor="w", linestyle="none")
    norm = norm or colour_scale([outcome], metric)
    return axes.pcolormesh(edges, np.arange(len(values) + 1) + 0.5, values, norm=norm, cmap="cividis", rasterized=True)


def colour_scale(outcomes: Sequence[Outcome], metric: str) -> LogNorm:
    """Returns a logarithmic scale of colours from the 1st to the 99th percentile of the positive values."""
    positive = np.concatenate([values[values > 0] for _, values in (_grid(o, metric) for o in outcomes)])
    low, high = np.percentile(positive, [1, 99]) if positive.size else (0.1, 1)
    return LogNorm(low, max(high, 1.01 * low))


def draw(outcomes: Sequence[Outcome], metrics: Sequence[str], path: Path, title: str) -> Figure:
    """Writes the figure with a panel of :func:`draw_into` for each network and metric.

    All networks share the scale of colours of a metric. Only the first seed is drawn.
    """
    first = outcomes[0].run.config.seed
    chosen = [o for o in outcomes if o.run.config.seed == first and o.lines]
    columns = min(2, len(chosen))
    rows = -(-len(chosen) // columns)
    with style.figure_style():
        figure, axes = style.panels(len(metrics) * rows, columns, height=2.9, sharex=True)
        for metric, block in zip(metrics, np.split(axes, len(metrics)), strict=True):
            norm = colour_scale(chosen, metric)
            for ax, outcome in zip(block.flat, chosen, strict=False):
                colours = draw_into(ax, outcome, metric, norm)
                ax.set_title(words.without_keys(outcome.run.label) + f" ({outcome.failure})" * bool(outcome.failure))
                ax.label_outer()
            for ax in block.flat[len(chosen) :]:
                ax.set_axis_off()
            figure.colorbar(colours, ax=list(block.flat), label=_TITLES.get(metric, metric), extend="both")
        style.finish(figure, path, title, protocol.summary(chosen))
    what = " and ".join(_TITLES.get(metric, metric) for metric in metrics)
    return Figure(
        path.name,
        f"{title}: {what} of each convolution, averaged over the steps between two lines of metrics, for one seed. "
        f"White marks values that are 0 or not finite.",
    )


def _grid(outcome: Outcome, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps [S] and the metric [layers, S] of the convolutions in layer order, NaN where it is not positive."""
    names = [key for key in outcome.lines[-1] if re.fullmatch(rf"{metric}/({_CONVOLUTIONS})", key)]
    values = np.array([[line.get(name) or np.nan for line in outcome.lines] for name in names], float)
    return np.array([line["step"] for line in outcome.lines]), np.where(values > 0, values, np.nan)
