"""Error against steps, in the manner of the paper's Figs. 1 and 6."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from resnet_flax.figures import style
from resnet_flax.reporting.record import Figure
from resnet_flax.sweeps.cases import Outcome

CAPTION = (
    "Training error (thin, dashed: training stream, batch statistics, mean since the point before) and test error "
    "(bold) in % against training steps"
)


def draw(
    outcomes: Sequence[Outcome],
    path: Path,
    title: str,
    panel: Callable[[Outcome], str] = lambda o: o.run.config.model.unit,
    line: Callable[[Outcome], str] = lambda o: f"{o.run.config.model.depth} layers",
    beside: Callable[[Axes, str, Mapping[str, str]], None] | None = None,
) -> Figure:
    """A panel for each unit: training error thin and dashed, test error bold, a colour a depth.

    With several seeds: their mean, and a band of one standard deviation either side. What a panel and a line stand
    for can be given.

    Args:
      beside: draws what else belongs to a panel, given its axes, its name, and the colour of each line by its name.

    Returns:
      What the report says of it.
    """
    panels = list(dict.fromkeys(panel(o) for o in outcomes))
    lines = list(dict.fromkeys(line(o) for o in sorted(outcomes, key=lambda o: o.run.config.model.depth)))
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.9 * columns, 3.8 * rows), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    colors = {text: color for text, color in zip(lines, style.colors(len(lines)), strict=True)}
    for ax, name in zip(axes.flat, panels, strict=False):
        for text in lines:
            chosen = [o for o in outcomes if (panel(o), line(o)) == (name, text) and o.lines]
            if chosen:
                _draw_line(ax, chosen, colors[text])
        if beside is not None:
            beside(ax, name, colors)
        failures = sorted({o.failure for o in outcomes if panel(o) == name and o.failure})
        if failures:
            ax.annotate(
                f"{' or '.join(failures)} in part", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4"
            )
        ax.set_title(name)
        ax.set_ylim(0, 100)
        ax.set_xlim(left=0)
        chance = 100 * (1 - 1 / max(max(o.classes for o in outcomes), 1))
        ax.axhline(chance, color="0.5", linewidth=0.8, linestyle=":")
        ax.annotate("chance", (0, chance), xytext=(4, 3), textcoords="offset points", fontsize=8, color="0.4")
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("error (%)")
    for i, ax in enumerate(axes.flat[: len(panels)]):
        if i + columns >= len(panels):
            ax.set_xlabel("training step")
            ax.tick_params(labelbottom=True)
    handles = [Line2D([], [], color=colors[text], linewidth=2, label=text) for text in lines[::-1]]
    handles += [
        Line2D([], [], color="0.3", linewidth=2.2, label="test"),
        Line2D([], [], color="0.3", linewidth=0.9, linestyle="--", label="training (training stream)"),
    ]
    style.legend(figure, handles)
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    seeds = len({o.run.config.seed for o in outcomes})
    band = f"; bands: one standard deviation over {seeds} seeds" if seeds > 1 else "; one seed"
    return Figure(path.name, f"{title}. {CAPTION}{band}.")


def _draw_line(ax: Axes, outcomes: Sequence[Outcome], color: str) -> None:
    draw_series(ax, outcomes, "train_error", color=color, linewidth=0.9, linestyle="--")
    draw_series(ax, outcomes, "test_error", color=color, linewidth=2.2)


def draw_series(ax: Axes, outcomes: Sequence[Outcome], key: str, color: str, **line: Any) -> None:
    """An error in % against steps: the mean of the seeds, and with several a band of one standard deviation."""
    series = [{line["step"]: 100 * line[key] for line in o.lines if line.get(key) is not None} for o in outcomes]
    steps = sorted(set.intersection(*(set(s) for s in series)))
    if not steps:
        return
    values = np.array([[s[step] for step in steps] for s in series])
    ax.plot(steps, values.mean(0), color=color, **line)
    if len(series) > 1:
        mean, deviation = values.mean(0), values.std(0, ddof=1)
        ax.fill_between(steps, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
