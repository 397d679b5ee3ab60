"""Final errors: against depth, or beside one another, with error bars over seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from resnet_flax.figures import style
from resnet_flax.figures.style import plt
from resnet_flax.reporting.record import Figure
from resnet_flax.reporting.tables import by_label
from resnet_flax.sweeps.cases import Outcome

_KEYS = {"train_error": "training error (training stream)", "test_error": "test error"}


def against_depth(
    outcomes: Sequence[Outcome],
    path: Path,
    title: str,
    line: Callable[[Outcome], str] = lambda o: o.run.config.model.unit,
) -> Figure:
    """Final training and test error, a panel each, against depth; a line for each unit (or what ``line`` says)."""
    whole = [o for o in outcomes if not o.failure]
    names = list(dict.fromkeys(line(o) for o in outcomes))
    depths = sorted({o.run.config.model.depth for o in outcomes})
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.0), sharey=True, layout="constrained")
    handles = []
    for ax, (key, what) in zip(axes, _KEYS.items(), strict=True):
        handles = []
        for name, color, marker, dashes in zip(
            names, style.colors(len(names)), _cycle(style.MARKERS), _cycle(style.DASHES), strict=False
        ):
            points = [
                (d, _errors([o for o in whole if line(o) == name and o.run.config.model.depth == d], key))
                for d in depths
            ]
            points = [(d, values) for d, values in points if values]
            handles.append(
                ax.errorbar(
                    [d for d, _ in points],
                    [np.mean(v) for _, v in points],
                    yerr=[_deviation(v) for _, v in points],
                    label=name,
                    color=color,
                    marker=marker,
                    linestyle=dashes,
                    linewidth=1.6,
                    markersize=5,
                    capsize=3,
                )
            )
        ax.set_title(what)
        ax.set_xlabel("depth (layers with weights)")
        ax.set_xticks(depths)
        ax.set_ylim(bottom=0)
    axes[0].set_ylabel("error at the final step (%)")
    style.legend_below(figure, handles)
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    return Figure(
        path.name, f"{title}. Errors at the final step in % against depth{_seeds(outcomes)}{_failed(outcomes)}."
    )


def side_by_side(outcomes: Sequence[Outcome], path: Path, title: str) -> Figure:
    """Final training and test error of each label as points in a row, best read where names are long."""
    groups = by_label(outcomes)
    figure, ax = plt.subplots(figsize=(8.2, 1.5 + 0.36 * len(groups)), layout="constrained")
    rows = np.arange(len(groups))[::-1]
    for (key, what), color, marker, shift in zip(
        _KEYS.items(), ("#56b4e9", "#000000"), ("s", "o"), (0.13, -0.13), strict=True
    ):
        values = [_errors([o for o in members if not o.failure], key) for members in groups.values()]
        there = [i for i, v in enumerate(values) if v]
        ax.errorbar(
            [np.mean(values[i]) for i in there], rows[there] + shift, xerr=[_deviation(values[i]) for i in there],
            color=color, marker=marker, linestyle="none", capsize=3, markersize=5, label=what,
        )  # fmt: skip
    for row, members in zip(rows, groups.values(), strict=True):
        if all(o.failure for o in members):
            ax.annotate(members[0].failure, (0, row), xytext=(4, -3), textcoords="offset points", color="0.4")
    ax.set_yticks(rows, groups.keys())
    ax.set_ylim(-0.7, len(groups) - 0.3)
    ax.set_xlim(left=0)
    ax.set_xlabel("error at the final step (%)")
    style.legend_below(figure, ax.get_legend_handles_labels()[0])
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    return Figure(path.name, f"{title}. Errors at the final step in %{_seeds(outcomes)}{_failed(outcomes)}.")


def _cycle(values: Sequence) -> list:
    return [*values] * 4


def _errors(outcomes: Sequence[Outcome], key: str) -> list[float]:
    return [100 * o.final[key] for o in outcomes if key in o.final]


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _seeds(outcomes: Sequence[Outcome]) -> str:
    seeds = len({o.run.config.seed for o in outcomes})
    return f"; error bars: one standard deviation over {seeds} seeds" if seeds > 1 else "; one seed"


def _failed(outcomes: Sequence[Outcome]) -> str:
    failed = sum(bool(o.failure) for o in outcomes)
    return f"; {failed} of {len(outcomes)} runs did not end and are left out" if failed else ""
