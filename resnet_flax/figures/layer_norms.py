"""The picture of ``layer_norms``: a number of each layer against the step, as a colour."""

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
    """Draws a number of each convolution, from the input (below) to the output, against steps as a colour.

    Args:
      axes: what is drawn into.
      outcome: of the run, which measured it (``train.metrics``).
      metric: such as ``gradient_norm``.
      norm: of the colours, to share it with other axes; by default :func:`colours_of` the run.

    Returns:
      What a colour bar is made for.
    """
    steps, values = _grid(outcome, metric)
    edges = np.concatenate([[0], steps])
    axes.grid(visible=False)
    axes.set_xlabel("training step")
    axes.set_ylabel("convolution, from the input")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if not np.isfinite(values).all():
        style.add_legend_entry(axes, "white: 0, or not finite", marker="s", markerfacecolor="w", linestyle="none")
    norm = norm or colours_of([outcome], metric)
    return axes.pcolormesh(edges, np.arange(len(values) + 1) + 0.5, values, norm=norm, cmap="cividis", rasterized=True)


def colours_of(outcomes: Sequence[Outcome], metric: str) -> LogNorm:
    """Returns a logarithmic scale of colours on which all but the least and the greatest hundredth differ."""
    positive = np.concatenate([values[values > 0] for _, values in (_grid(o, metric) for o in outcomes)])
    low, high = np.percentile(positive, [1, 99]) if positive.size else (0.1, 1)
    return LogNorm(low, max(high, 1.01 * low))


def draw(outcomes: Sequence[Outcome], metrics: Sequence[str], path: Path, title: str) -> Figure:
    """Writes the picture of :func:`draw_into`, a panel for each network and metric, whose networks share colours.

    Of several seeds, the first is drawn.
    """
    first = outcomes[0].run.config.seed
    chosen = [o for o in outcomes if o.run.config.seed == first and o.lines]
    columns = min(2, len(chosen))
    rows = -(-len(chosen) // columns)
    with style.figure_style():
        figure, axes = style.panels(len(metrics) * rows, columns, height=2.9, sharex=True)
        for metric, block in zip(metrics, np.split(axes, len(metrics)), strict=True):
            norm = colours_of(chosen, metric)
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
        f"{title}: {what} of each convolution, the mean over the steps between two lines of metrics; white where it "
        f"is 0 or not finite. One seed.",
    )


def _grid(outcome: Outcome, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps [S], and the metric [layers, S] of the convolutions in order; NaN where it has no logarithm."""
    names = [key for key in outcome.lines[-1] if re.fullmatch(rf"{metric}/({_CONVOLUTIONS})", key)]
    values = np.array([[line.get(name) or np.nan for line in outcome.lines] for name in names], float)
    return np.array([line["step"] for line in outcome.lines]), np.where(values > 0, values, np.nan)
