"""Draws errors against training steps, like Figs. 1 and 6 of the paper."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from resnet_flax import config as configs
from resnet_flax.figures import style
from resnet_flax.reporting import protocol
from resnet_flax.reporting.record import Figure
from resnet_flax.sweeps.cases import Outcome

ERRORS = {"train_error": "training error", "test_error": "test error"}
CAPTION = (
    "Training error (training stream, batch statistics, mean since the previous point) and test error in % against "
    "training steps"
)


def unit(outcome: Outcome) -> str:
    """Returns the name of a run's network without its depth, such as ``residual`` or ``residual-bottleneck``."""
    return configs.name_of(outcome.run.config.model).rpartition("-")[0]


def layers(outcome: Outcome) -> str:
    """Returns the depth of a run's network as a text."""
    return f"{outcome.run.config.model.depth} layers"


def draw_into(
    axes: Axes,
    outcomes: Sequence[Outcome],
    metric: str = "test_error",
    line: Callable[[Outcome], str] = layers,
    line_styles: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Draws an error in % against steps, with a labelled line for each name that ``line`` returns.

    A line is the mean over the seeds that did not fail, with a band of one standard deviation for several seeds. A seed
    that failed has a thin line of its own, which ends in a cross. Errors that are not finite leave a gap.

    Args:
      axes: The axes to draw into.
      outcomes: The outcomes of the runs.
      metric: The error, such as ``test_error``.
      line: Returns the name of a run's line.
      line_styles: The style of each line by its name, to share with other axes (:func:`~.style.line_styles`).

    Raises:
      UserError: There are no runs, or the metric is not an error of theirs.
    """
    style.check_metric(metric, outcomes)
    names = list(dict.fromkeys(line(o) for o in sorted(outcomes, key=lambda o: o.run.config.model.depth)))
    line_styles = line_styles or style.line_styles(names)
    last = []
    for i, name in enumerate(line_styles):
        members = [o for o in outcomes if line(o) == name]
        _draw_failed(axes, [o for o in members if o.failure], metric, line_styles[name])
        steps, values = _series([o for o in members if o.lines and not o.failure], metric)
        if not members:
            continue
        every = max(1, len(steps) // 6)
        marks: dict[str, Any] = {"markevery": (i * every // len(line_styles), every), "markersize": 4.5}
        mean: np.ndarray = values.mean(0) if steps else np.empty(0)
        axes.plot(steps, mean, label=name, linewidth=1.5, **line_styles[name], **marks)
        if len(values) > 1:
            deviation = values.std(0, ddof=1)
            axes.fill_between(
                steps, mean - deviation, mean + deviation, color=line_styles[name]["color"], alpha=0.15, linewidth=0
            )
        if np.isnan(mean).any():
            style.add_legend_entry(axes, "gap: not finite", linestyle="none")
        last += [v for v in mean[-1:] if np.isfinite(v)]
    drawn = np.concatenate([np.ravel(_series([o], metric)[1]) for o in outcomes] or [np.zeros(0)])
    most = max(drawn[np.isfinite(drawn)], default=0.0)
    chance = 100 * (1 - 1 / max([1, *(o.classes for o in outcomes)]))
    if most > chance / 2:
        axes.axhline(chance, color="0.4", linewidth=0.9, linestyle=":", label="chance")
    style.error_axis(axes, last, most)
    axes.set_xlim(left=0)
    axes.set_xlabel("training step")


def _draw_failed(axes: Axes, outcomes: Sequence[Outcome], metric: str, look: Mapping[str, Any]) -> None:
    """Draws each run up to its last finite error, which has a cross. A run without any has a cross in the corner."""
    for outcome in outcomes:
        steps, errors = _series([outcome], metric)
        finite = [(float(step), error) for step, error in zip(steps, errors[0], strict=True) if np.isfinite(error)]
        where = {} if finite else {"transform": axes.transAxes}
        ends = {**look, **where, "marker": "x", "markersize": 7, "markevery": [-1], "linewidth": 0.8}
        axes.plot(*zip(*(finite or [(0.03, 0.96)]), strict=True), **ends)
        style.explain_failures(axes, [outcome.failure], " (not in the mean)", marker="x")


def _series(outcomes: Sequence[Outcome], metric: str) -> tuple[list[int], np.ndarray]:
    """Returns the steps at which all runs have an error, and the errors in % [runs, steps], NaN where not finite."""
    found = [{line["step"]: line[metric] for line in o.lines if metric in line} for o in outcomes]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    return steps, 100 * np.array([[np.nan if s[step] is None else s[step] for step in steps] for s in found], float)


def draw(
    outcomes: Sequence[Outcome],
    path: Path,
    title: str,
    panel: Callable[[Outcome], str] = unit,
    line: Callable[[Outcome], str] = layers,
    beside: Callable[[Axes, str, Mapping[str, Mapping[str, Any]]], None] | None = None,
) -> Figure:
    """Writes the figure of the runs' errors, with training errors on the left and test errors on the right.

    Args:
      outcomes: The outcomes of the runs.
      path: The path of the PNG. An SVG is written beside it.
      title: The title, to which the protocol is added.
      panel: Returns the name of a run's row of panels.
      line: Returns the name of a run's line.
      beside: Draws additions to a panel of test errors, given its axes, the name of the row, and the styles of the
        lines by name.

    Returns:
      The figure's entry in the record.
    """
    rows = list(dict.fromkeys(map(panel, outcomes)))
    line_styles = style.line_styles(line(o) for o in sorted(outcomes, key=lambda o: o.run.config.model.depth))
    with style.figure_style():
        figure, axes = style.panels(len(rows), 2, sharex=True)
        for row, name in zip(axes, rows, strict=True):
            members = [o for o in outcomes if panel(o) == name]
            for ax, (metric, what) in zip(row, ERRORS.items(), strict=True):
                draw_into(ax, members, metric, line, line_styles)
                ax.set_title(textwrap.fill(f"{name}: {what}", 42))
        style.share_scales(axes)
        for row, name in zip(axes, rows, strict=True):
            if beside is not None:
                beside(row[1], name, line_styles)
        style.finish(figure, path, title, protocol.summary(outcomes))
    seeds = len({o.run.config.seed for o in outcomes})
    band = f"; bands: one standard deviation over {seeds} seeds" if seeds > 1 else "; one seed"
    return Figure(path.name, style.caption(title, CAPTION + band))
