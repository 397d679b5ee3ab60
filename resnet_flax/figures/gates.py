"""The picture of the gates' openness, which ``resnet_flax/measurements/gates.py`` measures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from resnet_flax.figures import style
from resnet_flax.reporting.record import Figure


def draw(gates: Mapping[str, Mapping[str, Sequence[tuple[str, float]]]], path: Path, title: str) -> Figure:
    """Two panels, at initialisation and after training; a line a network, a point a gated layer."""
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 3.9), sharey=True, layout="constrained")
    for ax, when in zip(axes, ("at initialisation", "after training"), strict=True):
        for (label, moments), color, marker, dashes in zip(
            gates.items(), style.colors(len(gates)), style.MARKERS, style.DASHES, strict=False
        ):
            values = [v for _, v in moments[when]]
            ax.plot(
                range(1, len(values) + 1), values, color=color, marker=marker, linestyle=dashes, markersize=4,
                label=label,
            )  # fmt: skip
        ax.set_title(when)
        ax.set_xlabel("gated layer, from the input to the output")
        ax.set_ylim(0, 1)
    axes[0].set_ylabel("mean of T (0 carries, 1 transforms)")
    style.legend(figure, axes[0].get_legend_handles_labels()[0])
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    return Figure(path.name, f"{title}. Mean of T over a batch, positions and channels, a point a gated layer.")
