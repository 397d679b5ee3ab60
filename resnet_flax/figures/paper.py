"""The paper's Figs. 1, 6 and 7, from runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from resnet_flax import published
from resnet_flax.figures import curves, style
from resnet_flax.reporting.record import Figure
from resnet_flax.sweeps.cases import Outcome

# Whose final test errors stand beside a panel: a table of published numbers, and what its column is called.
_PUBLISHED = {
    "plain": ("cifar10_plain", "a public\nrerun"),
    "residual": ("cifar10_table6", "the paper,\nTable 6"),
}
_PANELS = ("plain", "residual", "residual, 110 layers and more")  # Fig. 6's
_GAP = 5.0  # between two numbers, in % of the axis


def figure_6(outcomes: Sequence[Outcome], path: Path, title: str) -> Figure:
    """Plain, residual, and 110 layers and more: a panel each; beside it the published test errors of its networks."""
    in_order = sorted(outcomes, key=lambda o: _PANELS.index(_panel(o)))
    figure = curves.draw(in_order, path, title, panel=_panel, beside=_draw_published)
    return Figure(
        figure.file,
        f"{figure.caption} Right of a panel: published test errors in % of the same networks after 64k steps on 32x32 "
        f"images (residual: the paper's Table 6; plain, which the paper only draws: a public rerun).",
    )


def _panel(outcome: Outcome) -> str:
    model = outcome.run.config.model
    return _PANELS[2] if model.depth >= 110 and model.unit == "residual" else model.unit


def _draw_published(ax: Axes, panel: str, colors: Mapping[str, str]) -> None:
    """A tick at the right edge for each published test error, and the number beside it, moved apart where they meet."""
    unit = panel.partition(",")[0]
    table, by = _PUBLISHED[unit]
    deepest = panel != unit
    found = {}
    for number in published.read(table).numbers:
        name, _, depth = number.network.rpartition("-")
        line = f"{depth} layers"
        shown = name == unit and number.metric == "test error %" and number.statistic != "best" and line in colors
        if shown and (int(depth) >= 110 and unit == "residual") == deepest:
            found[line] = number.value
    bottom = 0.0
    for line, value in sorted(found.items(), key=lambda item: item[1]):
        ax.plot([1, 1.025], [value, value], transform=ax.get_yaxis_transform(), clip_on=False, color=colors[line])
        place = max(value, bottom)
        ax.annotate(
            f"{value:.2f}", (1.04, place), xycoords=ax.get_yaxis_transform(), va="center", fontsize=8,
            color=colors[line], annotation_clip=False,
        )  # fmt: skip
        bottom = place + _GAP
    if found:
        ax.annotate(
            by, (1.04, bottom), xycoords=ax.get_yaxis_transform(), va="bottom", fontsize=8, color="0.3",
            annotation_clip=False,
        )  # fmt: skip


def figure_1(outcomes: Sequence[Outcome], path: Path, title: str) -> Figure:
    """Training error on the left, test error on the right, of the shallowest and the deepest network, a colour each."""
    depths = sorted({o.run.config.model.depth for o in outcomes})
    depths = depths if len(depths) < 2 else [depths[0], depths[-1]]
    figure, axes = plt.subplots(1, 2, figsize=(9.8, 3.9), sharex=True, sharey=True, layout="constrained")
    colors = dict(zip(depths, style.colors(len(depths)), strict=True))
    for ax, (key, what) in zip(
        axes, {"train_error": "training error (training stream)", "test_error": "test error"}.items(), strict=True
    ):
        for depth in depths:
            chosen = [o for o in outcomes if o.run.config.model.depth == depth and o.lines]
            if chosen:
                curves.draw_series(ax, chosen, key, color=colors[depth], linewidth=1.8)
        ax.set_title(what)
        ax.set_xlabel("training step")
        ax.set_xlim(left=0)
        ax.set_ylim(0, 100)
    axes[0].set_ylabel("error (%)")
    style.legend(figure, [Line2D([], [], color=colors[d], linewidth=2, label=f"{d} layers") for d in depths])
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    return Figure(path.name, f"{title}. Plain networks of {' and '.join(map(str, depths))} layers, error in % by step.")


def figure_7(
    outcomes: Sequence[Outcome], responses: Mapping[str, Sequence[float]], path: Path, title: str, images: int
) -> Figure:
    """Standard deviations of the 3x3 layers' responses, by a run's label: in order, and sorted."""
    finished = [o for o in outcomes if o.run.label in responses]
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 4), sharey=True, layout="constrained")
    colors = style.colors(len(finished))
    for ax, (order, arrange) in zip(
        axes, {"in layer order": list, "sorted by size": lambda v: sorted(v, reverse=True)}.items(), strict=True
    ):
        for i, (outcome, color) in enumerate(zip(finished, colors, strict=True)):
            values = arrange(responses[outcome.run.label])
            plain = outcome.run.config.model.unit == "plain"
            ax.plot(
                np.arange(1, len(values) + 1), values, color=color, linewidth=1.3, linestyle="--" if plain else "-",
                marker=style.MARKERS[i % len(style.MARKERS)], markersize=3.5, markevery=max(1, len(values) // 8),
                label=outcome.run.config.model.unit + f"-{outcome.run.config.model.depth}",
            )  # fmt: skip
        ax.set_title(order)
        ax.set_ylim(bottom=0)
    axes[0].set_xlabel("layer, from the input to the output")
    axes[1].set_xlabel("layer, by size")
    axes[0].set_ylabel("standard deviation")
    style.legend(figure, axes[0].get_legend_handles_labels()[0])
    figure.suptitle(f"{title}: the paper's Fig. 7", fontsize=11)
    style.save(figure, path)
    return Figure(
        path.name,
        f"{title}: the paper's Fig. 7. Standard deviation of each 3x3 layer's response, after BN and before the "
        f"nonlinearity or the addition, on {images} training images; plain networks dashed. Seed "
        f"{finished[0].run.config.seed}.",
    )
