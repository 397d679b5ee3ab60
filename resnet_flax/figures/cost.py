"""The picture of ``cost``: multiply-adds and the time of a step against depth."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

from resnet_flax.figures import style
from resnet_flax.reporting.record import Figure

if TYPE_CHECKING:  # it brings jax with it
    from resnet_flax.measurements.networks import Cost


def draw(costs: "Sequence[Cost]", path: Path, title: str) -> Figure:
    """Two panels, a line a unit; units of equal cost lie beside each other, not upon each other."""
    units = list(dict.fromkeys(c.unit for c in costs))
    depths = sorted({c.depth for c in costs})
    figure, (counted, measured) = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
    # Depths of different units are drawn a little apart, or equal counts would hide one another.
    apart = 0.03 * (depths[-1] - depths[0] or depths[0])
    handles = []
    for i, (unit, color) in enumerate(zip(units, style.colors(len(units)), strict=True)):
        line = sorted((c for c in costs if c.unit == unit), key=lambda c: c.depth)
        x = [c.depth + apart * (i - (len(units) - 1) / 2) for c in line]
        look = {
            "color": color, "marker": style.MARKERS[i % len(style.MARKERS)], "linewidth": 1.5, "markersize": 6,
            "linestyle": style.DASHES[i % len(style.DASHES)],
        }  # fmt: skip
        counted.plot(x, [c.multiply_adds / 1e6 for c in line], label=unit, **look)
        step = [1e3 * c.step.median for c in line]
        below = [1e3 * (c.step.median - c.step.least) for c in line]
        above = [1e3 * (c.step.most - c.step.median) for c in line]
        measured.errorbar(x, step, yerr=(below, above), capsize=3, label=unit, **look)
        handles.append(counted.get_lines()[-1])
    counted.set_title("counted")
    counted.set_ylabel("multiply-adds an image (millions)")
    measured.set_title("measured (median; bars: least to most)")
    measured.set_ylabel("time of a training step (ms)")
    for ax in (counted, measured):
        ax.set_xlabel("depth (layers with weights)")
        ax.set_xticks(depths)
        ax.set_ylim(bottom=0)
    style.legend(figure, handles)
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    return Figure(
        path.name,
        f"{title}. Left: multiply-adds of classifying one image. Right: time of a training step, the median of "
        f"{len(costs[0].step.rounds)} rounds, bars from the least to the most. Points of a depth are drawn side by "
        f"side.",
    )
