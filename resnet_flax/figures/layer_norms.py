"""The picture of ``layer_norms``: a number of each layer against the step, as a colour."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from resnet_flax.figures import style
from resnet_flax.reporting.record import Figure
from resnet_flax.sweeps.cases import Outcome

_TITLES = {"gradient_norm": "norm of the gradient", "update_ratio": "update relative to the parameters"}
_CONVOLUTIONS = r"stem_conv|stage\d+\.\d+\.conv\d*"


def draw(outcomes: Sequence[Outcome], metrics: Sequence[str], path: Path, title: str) -> Figure:
    """Convolutions from the input (below) to the output against steps, a panel for each network and metric.

    Networks share the colours of a metric. Of several seeds, the first is drawn.
    """
    first = outcomes[0].run.config.seed
    chosen = [o for o in outcomes if o.run.config.seed == first and o.lines]
    figure, axes = plt.subplots(
        len(metrics), len(chosen), figsize=(0.8 + 4.2 * len(chosen), 0.7 + 3.0 * len(metrics)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for row, metric in zip(axes, metrics, strict=True):
        grids = [_grid(outcome, metric) for outcome in chosen]
        positive = np.concatenate([values[values > 0] for _, values in grids] or [np.ones(1)])
        low, high = np.percentile(positive, [1, 99]) if positive.size else (0.1, 1)
        norm = LogNorm(low, max(high, 1.01 * low))
        for ax, outcome, (steps, values) in zip(row, chosen, grids, strict=True):
            edges = np.concatenate([[0], steps])
            colours = ax.pcolormesh(edges, np.arange(len(values) + 1) + 0.5, values, norm=norm, cmap="cividis")
            ax.grid(visible=False)
            ax.set_title(f"{outcome.run.label}{f' ({outcome.failure})' * bool(outcome.failure)}")
        figure.colorbar(colours, ax=list(row), label=_TITLES.get(metric, metric), extend="both")
        row[0].set_ylabel("convolution, from the input")
    for ax in axes[-1]:
        ax.set_xlabel("training step")
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    what = " and ".join(_TITLES.get(metric, metric) for metric in metrics)
    return Figure(
        path.name,
        f"{title}: {what} of each convolution, the mean over the steps between two lines of metrics; white where it "
        f"is 0 or not finite. One seed.",
    )


def _grid(outcome: Outcome, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [S], and the metric [layers, S] of the convolutions in their order; NaN where there is no logarithm."""
    names = [key for key in outcome.lines[-1] if re.fullmatch(rf"{metric}/({_CONVOLUTIONS})", key)]
    values = np.array([[line.get(name) or np.nan for line in outcome.lines] for name in names], float)
    return np.array([line["step"] for line in outcome.lines]), np.where(values > 0, values, np.nan)
