"""Draws final errors against any config key, or side by side, with error bars for several seeds."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from resnet_flax import config as configs
from resnet_flax.figures import style
from resnet_flax.reporting import protocol, words
from resnet_flax.reporting.record import Figure
from resnet_flax.reporting.tables import by_label
from resnet_flax.sweeps.cases import Outcome

ERRORS = {"train_error": "training error (training stream)", "test_error": "test error"}


def unit(outcome: Outcome) -> str:
    """Returns the unit of a run's network."""
    return outcome.run.config.model.unit


def draw_against(
    axes: Axes,
    outcomes: Sequence[Outcome],
    x: str = "model.depth",
    metric: str = "test_error",
    line: Callable[[Outcome], str] = unit,
    log: bool = False,
) -> None:
    """Draws the error at the final step against a config key, with a labelled line for each name that ``line`` returns.

    A point is the mean over the finished seeds, with a bar of one standard deviation for several seeds. It is hollow if
    other seeds failed. If all failed, the line has a gap, and a cross at the top. Points of equal value lie side by
    side. Values that are not numbers are evenly spaced, and no line joins them.

    Args:
      axes: The axes to draw into.
      outcomes: The outcomes of the runs.
      x: The config key, such as ``optimizer.weight_decay``.
      metric: The error, such as ``test_error``.
      line: Returns the name of a run's line.
      log: If true, the horizontal axis is logarithmic, with 0 to the left of the least value.

    Raises:
      UserError: There are no runs, or the metric is not an error of theirs.
    """
    style.check_metric(metric, outcomes)
    label = words.name(x)
    values = [configs.flatten(o.run.config)[x] for o in outcomes]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    found = sorted(set(values)) if numbers else list(dict.fromkeys(values))
    places = dict(zip(found, found if numbers else range(len(found)), strict=True))
    _value_axis(axes, places, log and numbers)
    axes.set_xlabel(label)
    style.error_axis(axes, _lowest(outcomes, metric, line), max([0.0, *_errors(outcomes, metric)]))
    line_styles = style.line_styles(map(line, outcomes))
    for i, (name, look) in enumerate(line_styles.items()):
        there: dict[float, list[Outcome]] = {place: [] for place in places.values()}
        for outcome, value in zip(outcomes, values, strict=True):
            if line(outcome) == name:
                there[places[value]].append(outcome)
        there = {place: members for place, members in there.items() if members}
        mean, deviation = np.array([_mean_and_deviation(_errors(m, metric)) for m in there.values()]).T
        shifted = style.offset_transform(axes, i, len(line_styles), list(places.values()))
        look |= {"transform": shifted} | ({} if numbers else {"linestyle": "none"})
        axes.plot(list(there), mean, label=name, linewidth=1.6, markersize=5, **look)
        if np.isfinite(deviation).any():
            axes.errorbar(list(there), mean, deviation, fmt="none", capsize=3, ecolor=look["color"], transform=shifted)
        style.mark_failures(axes, there, mean, look)


def _value_axis(axes: Axes, places: dict, log: bool) -> None:
    """Scales the horizontal axis, with a tick for each value.

    Args:
      places: The position of each value.
      log: If true, the axis is logarithmic.
    """
    at = list(places.values())
    if log:
        least = min((v for v in at if v > 0), default=1)
        axes.set_xscale("symlog", linthresh=least, linscale=0.5) if min(at) <= 0 else axes.set_xscale("log")
    ticks = [words.value(v) for v in places]
    turned = sum(map(len, ticks)) > 26
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(at, ticks, rotation=40 if turned else 0, ha="right" if turned else "center")
    scale = axes.xaxis.get_transform()
    low, high = scale.transform([min(at), max(at)])
    margin = 0.08 * (high - low) or 0.5
    axes.set_xlim(*scale.inverted().transform([low - margin, high + margin]))


def against(
    outcomes: Sequence[Outcome],
    path: Path,
    title: str,
    x: str,
    line: Callable[[Outcome], str],
    log: bool = False,
) -> Figure:
    """Writes the figure of the final training and test errors against a config key, in a panel each.

    Args:
      outcomes: The outcomes of the runs.
      path: The path of the PNG. An SVG is written beside it.
      title: The title, to which the protocol is added.
      x: The config key, such as ``optimizer.weight_decay``.
      line: Returns the name of a run's line.
      log: If true, the horizontal axis is logarithmic.

    Returns:
      The figure's entry in the record.
    """
    with style.figure_style():
        figure, [axes] = style.panels(1, 2, height=3.0)
        for ax, (metric, what) in zip(axes, ERRORS.items(), strict=True):
            draw_against(ax, outcomes, x, metric, line, log)
            ax.set_title(f"final {what}")
        style.share_scales(axes[None])
        style.finish(figure, path, title, protocol.summary(outcomes))
    what = f"Errors at the final step in % against {words.name(x)}{_seeds(outcomes)}{_failed(outcomes)}"
    return Figure(path.name, style.caption(title, what))


def against_depth(outcomes: Sequence[Outcome], path: Path, title: str, line: Callable[[Outcome], str] = unit) -> Figure:
    """Writes the figure of :func:`against` for the depth, by default with a line for each unit."""
    return against(outcomes, path, title, "model.depth", line)


def draw_side_by_side(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Draws the final training and test errors of each label in a row of its own, which leaves room for long labels.

    A label says how many of its seeds failed.

    Raises:
      UserError: There are no runs.
    """
    style.check_metric("test_error", outcomes)
    groups = by_label(outcomes)
    rows = np.arange(len(groups))[::-1]
    lowest = _lowest(outcomes, "test_error", lambda o: o.run.label)
    style.error_axis(axes, lowest, max([0.0, *(e for key in ERRORS for e in _errors(outcomes, key))]), vertical=False)
    for (key, what), look, shift in zip(ERRORS.items(), style.line_styles(ERRORS).values(), (0.14, -0.14), strict=True):
        mean, deviation = np.array([_mean_and_deviation(_errors(members, key)) for members in groups.values()]).T
        axes.plot(mean, rows + shift, label=what, markersize=5, **look | {"linestyle": "none"})
        if np.isfinite(deviation).any():
            axes.errorbar(mean, rows + shift, xerr=deviation, fmt="none", capsize=3, ecolor=look["color"])
    axes.set_xlabel(f"final {axes.get_xlabel()}")
    axes.set_yticks(rows, _texts(groups))
    axes.set_ylim(-0.6, len(groups) - 0.4)


def _texts(groups: dict[str, list[Outcome]]) -> list[str]:
    """Returns the labels in words, with the number of failed seeds. Long labels are wrapped."""
    ends = {label: words.ending(members) for label, members in groups.items()}
    texts = [words.without_keys(label) + f" ({end})" * bool(end) for label, end in ends.items()]
    return [textwrap.fill(text, 38) for text in texts]


def side_by_side(outcomes: Sequence[Outcome], path: Path, title: str) -> Figure:
    """Writes the figure of :func:`draw_side_by_side`, and returns its entry in the record."""
    texts = _texts(by_label(outcomes))
    row = max(0.3, *(0.17 * (1 + text.count("\n")) for text in texts))
    with style.figure_style():
        figure, [[axes]] = style.panels(1, 1, height=0.6 + row * len(texts))
        draw_side_by_side(axes, outcomes)
        style.finish(figure, path, title, protocol.summary(outcomes))
    what = f"Errors at the final step in %{_seeds(outcomes)}{_failed(outcomes)}"
    return Figure(path.name, style.caption(title, what))


def _errors(outcomes: Sequence[Outcome], key: str) -> list[float]:
    return [100 * o.final[key] for o in outcomes if not o.failure and o.final.get(key) is not None]


def _lowest(outcomes: Sequence[Outcome], key: str, line: Callable[[Outcome], str]) -> list[float]:
    found = [_errors([o for o in outcomes if line(o) == name], key) for name in set(map(line, outcomes))]
    return [min(errors) for errors in found if errors]


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the standard deviation (ddof 1), or NaN if there are too few values."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    return (float(np.mean(values)) if values else np.nan), deviation


def _seeds(outcomes: Sequence[Outcome]) -> str:
    seeds = len({o.run.config.seed for o in outcomes})
    return f"; error bars: one standard deviation over {seeds} seeds" if seeds > 1 else "; one seed"


def _failed(outcomes: Sequence[Outcome]) -> str:
    failed = sum(bool(o.failure) for o in outcomes)
    return f"; {failed} of {len(outcomes)} runs did not finish and are left out" if failed else ""
