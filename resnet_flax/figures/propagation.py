"""The pictures of ``propagation``: gradient norms and responses against the layer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from resnet_flax.figures import style
from resnet_flax.reporting.record import Figure

_QUANTITIES = {"weights": "gradient of the layer's weights", "activations": "gradient of the layer's response"}


def draw(measured: Sequence[Any], folder: Path, data: str) -> list[Figure]:
    """Gradients at each moment and initialisation, and responses after training (at the start, if untrained)."""
    figures = []
    for when in dict.fromkeys(m.when for m in measured):
        for how in dict.fromkeys(m.config.model.initialization for m in measured if m.when == when):
            chosen = [m for m in measured if (m.when, m.config.model.initialization) == (when, how) and m.propagation]
            if not chosen:
                continue
            name = f"gradients-{when.replace(' ', '-')}-{how}.png"
            title = f"{data}: gradient norms {when}, {how} initialisation"
            figures.append(_gradients(chosen, folder / name, title))
            if how == measured[0].config.model.initialization:
                name = f"responses-{when.replace(' ', '-')}.png"
                figures.append(_responses(chosen, folder / name, f"{data}: layer responses {when}"))
    return figures


def _gradients(measured: Sequence[Any], path: Path, title: str) -> Figure:
    norms = list(dict.fromkeys(m.norm for m in measured))
    figure, axes = plt.subplots(
        len(norms), 2, figsize=(10.4, 0.9 + 3.1 * len(norms)), squeeze=False, layout="constrained"
    )
    for row, norm in zip(axes, norms, strict=True):
        for ax, (quantity, what) in zip(row, _QUANTITIES.items(), strict=True):
            _lines(
                ax, [m for m in measured if m.norm == norm], measured, lambda m, q=quantity: getattr(m.propagation, q)
            )
            _logarithmic(ax)
            ax.set_title(f"{what}, {norm}")
    for ax in axes[-1]:
        ax.set_xlabel("layer, from the input to the output")
    for row in axes:
        row[0].set_ylabel("L2 norm")
    _legend(figure, measured)
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    return Figure(path.name, f"{title}. L2 norms over a batch, against the layer; logarithmic, gaps are 0.")


def _responses(measured: Sequence[Any], path: Path, title: str) -> Figure:
    norms = list(dict.fromkeys(m.norm for m in measured))
    figure, axes = plt.subplots(
        len(norms), 2, figsize=(10.4, 0.9 + 3.1 * len(norms)), squeeze=False, layout="constrained"
    )
    orders: dict[str, Callable[[Any], list[tuple[str, float]]]] = {
        "in layer order": lambda m: m.propagation.responses,
        "sorted by size": lambda m: sorted(m.propagation.responses, key=lambda layer: -layer[1]),
    }
    for row, norm in zip(axes, norms, strict=True):
        chosen = [m for m in measured if m.norm == norm]
        for ax, (order, values) in zip(row, orders.items(), strict=True):
            _lines(ax, chosen, measured, values)
            ax.set_title(f"{order}, {norm}")
            deviations = [v for m in chosen for _, v in m.propagation.responses if v > 0]
            if deviations and max(deviations) > 50 * float(np.median(deviations)):
                _logarithmic(ax)
            else:
                ax.set_ylim(bottom=0)
        row[0].set_ylabel("standard deviation")
    for ax, what in zip(axes[-1], ("layer, from the input to the output", "layer, by size"), strict=True):
        ax.set_xlabel(what)
    _legend(figure, measured)
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    return Figure(
        path.name,
        f"{title} (the paper's Fig. 7). Standard deviation of each 3x3 layer's response: after BN, before the "
        f"nonlinearity or the addition; in pre-activation units the convolution's output. On a logarithmic axis, gaps "
        f"are 0: layers that have died.",
    )


def _logarithmic(ax: Any) -> None:
    """What is exactly 0, as in a layer that has died, becomes a gap, not a line to the bottom."""
    for line in ax.lines:
        values = np.asarray(line.get_ydata(), float)
        line.set_ydata(np.where(values > 0, values, np.nan))
    ax.set_yscale("log")


def _lines(ax: Any, chosen: Sequence[Any], everyone: Sequence[Any], values: Callable[[Any], Any]) -> None:
    units, depths = _units(everyone), _depths(everyone)
    colors = style.colors(len(units))
    for m in chosen:
        numbers = [v for _, v in values(m)]
        ax.plot(
            range(1, len(numbers) + 1), numbers, color=colors[units.index(m.config.model.unit)], linewidth=1.4,
            linestyle=style.DASHES[depths.index(m.config.model.depth) % len(style.DASHES)],
            marker=style.MARKERS[units.index(m.config.model.unit) % len(style.MARKERS)], markersize=3.5,
            markevery=max(1, len(numbers) // 9),
        )  # fmt: skip


def _legend(figure: Any, measured: Sequence[Any]) -> None:
    units, depths = _units(measured), _depths(measured)
    handles = [
        Line2D([], [], color=color, marker=marker, linewidth=2, label=unit)
        for unit, color, marker in zip(units, style.colors(len(units)), style.MARKERS, strict=False)
    ]
    handles += [
        Line2D([], [], color="0.3", linestyle=dashes, label=f"{depth} layers")
        for depth, dashes in zip(depths, style.DASHES, strict=False)
    ]
    style.legend(figure, handles)


def _units(measured: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(m.config.model.unit for m in measured))


def _depths(measured: Sequence[Any]) -> list[int]:
    return sorted({m.config.model.depth for m in measured})
