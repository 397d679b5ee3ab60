"""Error against steps, in the manner of the paper's Figs. 1 and 6."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: no window, no display

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.runs import Outcome

# From light to dark, so that depths differ in grey, too; blue to orange-red tells them apart for the colour-blind.
_COLORS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#5b2a86", "#000000")


def draw(outcomes: Sequence[Outcome], path: Path, title: str) -> None:
    """A panel for each unit: training error thin and dashed, test error bold, a colour a depth.

    With several seeds: their mean, and a band of one standard deviation either side.
    """
    units = list(dict.fromkeys(o.run.config.model.unit for o in outcomes))
    depths = sorted({o.run.config.model.depth for o in outcomes})
    figure, axes = plt.subplots(
        1, len(units), figsize=(5.2 * len(units), 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, unit in zip(axes[0], units, strict=True):
        for depth in depths:
            model = [o.run.config.model for o in outcomes]
            chosen = [o for o, m in zip(outcomes, model, strict=True) if (m.unit, m.depth) == (unit, depth) and o.lines]
            if chosen:
                _draw_depth(ax, chosen, _color(depths, depth))
        ax.set_title(unit)
        ax.set_xlabel("training step")
        ax.set_ylim(0, 100)
        ax.set_xlim(left=0)
        ax.grid(True, color="0.9", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        chance = 100 * (1 - 1 / outcomes[0].classes)
        ax.axhline(chance, color="0.5", linewidth=0.8, linestyle=":")
        ax.annotate("chance", (0, chance), xytext=(4, 3), textcoords="offset points", fontsize=8, color="0.4")
    axes[0, 0].set_ylabel("error (%)")
    handles = [Line2D([], [], color=_color(depths, d), linewidth=2, label=f"{d} layers") for d in depths[::-1]]
    handles += [
        Line2D([], [], color="0.3", linewidth=2.2, label="test"),
        Line2D([], [], color="0.3", linewidth=0.9, linestyle="--", label="training (augmented stream)"),
    ]
    figure.legend(
        handles=handles, frameon=False, fontsize=9, loc="outside lower center", ncols=min(len(handles), 3 * len(units))
    )
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _color(depths: Sequence[int], depth: int) -> str:
    place = depths.index(depth)
    spread = (len(_COLORS) - 1) / max(len(depths) - 1, 1)
    return _COLORS[round(place * spread)] if len(depths) > 1 else _COLORS[-3]


def _draw_depth(ax: Axes, outcomes: Sequence[Outcome], color: str) -> None:
    styles = {"train_error": (0.9, "--"), "test_error": (2.2, "-")}
    for key, (width, style) in styles.items():
        series = [{line["step"]: 100 * line[key] for line in o.lines if key in line} for o in outcomes]
        steps = sorted(set.intersection(*(set(s) for s in series)))
        if not steps:
            continue
        values = np.array([[s[step] for step in steps] for s in series])
        mean, deviation = values.mean(0), values.std(0)
        ax.plot(steps, mean, color=color, linewidth=width, linestyle=style)
        if len(series) > 1:
            ax.fill_between(steps, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
