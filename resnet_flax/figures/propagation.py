"""The figures of the ``propagation`` experiment: gradient norms and responses against the layer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from resnet_flax.figures import style
from resnet_flax.reporting import protocol
from resnet_flax.reporting.record import Figure

_GRADIENTS: dict[str, Callable[[Any], Sequence[tuple[str, float]]]] = {
    "gradient of weights": lambda propagation: propagation.weights,
    "gradient of responses": lambda propagation: propagation.activations,
}
_RESPONSES: dict[str, Callable[[Any], Sequence[tuple[str, float]]]] = {
    "in layer order": lambda propagation: propagation.responses,
    "sorted by size": lambda propagation: sorted(propagation.responses, key=lambda layer: -layer[1]),
}


def draw(measured: Sequence[Any], folder: Path, data: str) -> list[Figure]:
    """Writes the figures of gradients and responses.

    There is a figure of gradients for each moment and initialisation, and a figure of responses for each moment with
    the first initialisation.

    Args:
      measured: The measurements (:class:`~resnet_flax.reporting.propagation.Measured`).
      folder: The folder for the figures.
      data: The name of the data set, for the titles.

    Returns:
      The figures' entries in the record.
    """
    figures = []
    for when in dict.fromkeys(m.when for m in measured):
        initializations = list(dict.fromkeys(m.config.model.initialization for m in measured if m.when == when))
        for how in initializations:
            chosen = [m for m in measured if (m.when, m.config.model.initialization) == (when, how)]
            if not any(m.propagation for m in chosen):
                continue
            path = folder / f"gradients-{when.replace(' ', '-')}-{how}.png"
            title = f"{data}: gradient norms {when}, {how} initialisation"
            _write(chosen, path, title, _GRADIENTS, "L2 norm")
            caption = f"{title}. L2 norms over a batch against the layer, on a logarithmic axis."
            figures.append(Figure(path.name, caption))
            if how == initializations[0]:
                path = folder / f"responses-{when.replace(' ', '-')}.png"
                title = f"{data}: layer responses {when}"
                _write(chosen, path, title, _RESPONSES, "standard deviation")
                figures.append(
                    Figure(
                        path.name,
                        f"{title} (the paper's Fig. 7). Standard deviation of each 3x3 layer's response after BN and "
                        f"before the nonlinearity or the addition; in pre-activation units, of the convolution's "
                        f"output. Gaps on a logarithmic axis are layers whose response is 0.",
                    )
                )
    return figures


def draw_into(
    axes: Axes,
    measured: Sequence[Any],
    layers: Callable[[Any], Sequence[tuple[str, float]]],
    log: bool = False,
    line_styles: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Draws a quantity of each layer against the layer, with a labelled line for each unit.

    Args:
      axes: The axes to draw into.
      measured: The measurements (:class:`~resnet_flax.reporting.propagation.Measured`) of one network for each unit.
      layers: Returns the names and values of the layers from a network's measurements.
      log: If true, the vertical axis is logarithmic.
      line_styles: The style of each unit, to share with other axes (:func:`~.style.line_styles`).
    """
    line_styles = line_styles or style.line_styles(m.config.model.unit for m in measured)
    for m in measured:
        unit = m.config.model.unit
        if m.propagation:
            style.draw_layers(axes, [v for _, v in layers(m.propagation)], unit, line_styles, log)
        else:
            name = f"{m.name[0]} {m.norm}: {m.failure}"
            style.add_legend_entry(axes, name, marker=line_styles[unit]["marker"], linestyle="none")
    if not log:
        style.set_limit_from_0(axes)
    axes.set_xlabel("layer, from the input to the output")


def _write(measured: Sequence[Any], path: Path, title: str, quantities: dict[str, Callable], unit: str) -> None:
    """Writes a figure with a row of panels for each depth and normalisation, and a column for each quantity."""
    rows = list(dict.fromkeys((m.norm, m.config.model.depth) for m in measured))
    line_styles = style.line_styles(m.config.model.unit for m in measured)
    with style.figure_style():
        figure, axes = style.panels(len(rows), len(quantities), height=2.3)
        for row, (norm, depth) in zip(axes, rows, strict=True):
            members = [m for m in measured if m.norm == norm]
            deviations = [v for m in members if m.propagation for _, v in m.propagation.responses if v > 0]
            log = quantities is _GRADIENTS or max(deviations, default=0) > 50 * float(np.median(deviations or [0]))
            for ax, (what, layers) in zip(row, quantities.items(), strict=True):
                draw_into(ax, [m for m in members if m.config.model.depth == depth], layers, log, line_styles)
                ax.set_title(f"{what}\n{depth} layers, {norm}", fontsize=9)
                ax.set_xlabel("layer, by size" if what == "sorted by size" else ax.get_xlabel())
            row[0].set_ylabel(unit)
        trained = measured[0].when == "after training"
        style.finish(figure, path, title, protocol.summary_of([m.config for m in measured], trained=trained))
