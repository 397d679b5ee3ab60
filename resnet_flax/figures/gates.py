"""The figure of the openness of gates, which ``resnet_flax/measurements/gates.py`` measures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from resnet_flax.figures import style
from resnet_flax.reporting.record import Figure


def draw_into(axes: Axes, gates: Mapping[str, Sequence[tuple[str, float]]]) -> None:
    """Draws the mean of T in each gated layer against the layer, with a labelled line for each network."""
    line_styles = style.line_styles(gates)
    for label, layers in gates.items():
        style.draw_layers(axes, [value for _, value in layers], label, line_styles)
    axes.set_xlabel("gated layer, from the input")
    axes.set_ylabel("mean of T (0 carries, 1 transforms)")


def draw(
    gates: Mapping[str, Mapping[str, Sequence[tuple[str, float]]]], path: Path, title: str, protocol: str = ""
) -> Figure:
    """Writes the figure with two panels of :func:`draw_into`: at initialisation and after training."""
    most = max(value for moments in gates.values() for layers in moments.values() for _, value in layers)
    with style.figure_style():
        figure, [axes] = style.panels(1, 2, height=2.8, sharey=True)
        for ax, when in zip(axes, ("at initialisation", "after training"), strict=True):
            draw_into(ax, {label: moments[when] for label, moments in gates.items()})
            ax.set_title(when)
            ax.set_ylim(0, min(1, 1.3 * most))
            ax.label_outer()
        style.finish(figure, path, title, protocol)
    return Figure(path.name, f"{title}. Each point is a gated layer's mean of T over a batch, positions and channels.")
