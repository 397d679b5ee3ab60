"""Plain, highway and residual networks of the same depth and width, and how far the gates open.

python -m experiments.highway --workdir=runs/highway [--depths=20,32] [--seeds=0,1] [--published=False]

The twins differ in nothing but the unit. Beside them the 19- and 32-layer networks of the highway paper
(arXiv:1507.06228), whose widths differ, and the same pair at equal width, so that depth alone tells them apart. Those
four are run at --width times their width, which is said wherever they appear; 1 is the paper's own.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from resnet_flax import command
from resnet_flax.sweeps import options

_DEPTHS = flags.DEFINE_list("depths", ["20", "32"], "Depths of the twins.")
_UNITS = flags.DEFINE_list("units", ["plain", "highway", "residual"], "Units of the twins.")
_PUBLISHED = flags.DEFINE_bool("published", True, "Also the 19- and 32-layer networks of the highway paper.")
_WIDTH = flags.DEFINE_float("width", 0.5, "Of those, as a part of their published width.", lower_bound=0.01)

_TWINS, _PAPERS, _EQUAL = "twins", "the paper's widths", "equal width"


def main() -> None:
    """Runs the twins and the paper's networks; draws curves and the gates' openness."""
    from resnet_flax.figures import curves
    from resnet_flax.figures import final_errors as error_bars
    from resnet_flax.reporting import tables
    from resnet_flax.reporting.record import Record
    from resnet_flax.sweeps import sweep

    groups = _groups()
    outcomes = sweep.run([case for group in groups.values() for case in group])
    if outcomes is None:
        return
    twins = {case.label for case in groups[_TWINS]}
    folder, data = options.workdir(), outcomes[0].run.config.data.name
    figures = [
        curves.draw([o for o in outcomes if o.run.label in twins], folder / "curves.png", f"{data}: highway twins"),
        error_bars.side_by_side(outcomes, folder / "errors.png", f"{data}: plain, highway and residual networks"),
    ]
    gates = _gates(outcomes)
    table = tables.write_rows(
        folder / "gates.csv", *_gate_rows(gates), "Openness of the gates: the mean of T a network"
    )
    tables.write_rows(folder / "gate_layers.csv", *_layer_rows(gates))
    if gates:
        figures.append(_draw_gates(gates, folder / "gates.png", f"{data}: openness of the gates"))
    record = Record(
        experiment="highway",
        title="Highway networks between plain and residual ones",
        question="Do gated shortcuts (y = H T + x (1 - T), arXiv:1507.06228, eq. 3) cure plain networks as "
        "parameter-free ones do, and how far do the gates open?",
        notes=_notes(gates),
        published=("highway", "cifar10_table6"),
    )
    sweep.finish(outcomes, record, figures, [table])


def _groups() -> dict[str, list[Any]]:
    from resnet_flax.sweeps.runs import Case

    depths = options.whole_numbers(_DEPTHS)
    groups = {_TWINS: [Case(f"{unit}-{depth}") for depth in depths for unit in _UNITS.value]}
    if not _PUBLISHED.value:
        return groups
    part = "" if _WIDTH.value == 1 else f", {_WIDTH.value:g} of the width"

    def published(depth: int, widths: str, **more: Any) -> Any:
        overrides = {"model.family": "highway", "model.block": "single", "model.depth": depth} | more
        label = f"highway-{depth} of its paper, {widths}{part}"
        # The name's own depth is replaced: 19 is none of the twins' family.
        return Case("highway-20", overrides, label, scaled={"model.width": _WIDTH.value})

    groups[_PAPERS] = [published(depth, "its widths") for depth in (19, 32)]
    groups[_EQUAL] = [published(32, "the widths of 19 layers", **{"model.stage_filters": _FILTERS_OF_19})]
    return groups


# Of the 19-layer network's stages; the 32-layer one gets them, too, so that the pair differs in depth alone.
_FILTERS_OF_19 = (32, 48, 80, 128)


def _gates(outcomes: Sequence[Any]) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """For each highway network of the first seed: openness a layer, at initialisation and after training."""
    import jax

    from resnet_flax.analysis.gates import openness
    from resnet_flax.networks import on_one_device
    from resnet_flax.training import fine_tuning, trained

    first, found = outcomes[0].run.config.seed, {}
    for outcome in outcomes:
        config = outcome.run.config
        if outcome.failure or config.model.unit != "highway" or config.seed != first:
            continue
        run = trained.load(config, outcome.run.workdir)
        network, (images, _) = on_one_device(run.parts.network), run.parts.examples(128)
        moments = {
            "at initialisation": fine_tuning.variables_at_start(config, run.parts.network, run.parts.image_shape),
            "after training": jax.device_get(run.variables),
        }
        found[outcome.run.label] = {when: openness(network, v, images, train=True) for when, v in moments.items()}
    return found


def _gate_rows(gates: dict) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = ("network", "when", "gates", "mean T", "least", "most")
    rows = []
    for label, moments in gates.items():
        for when, layers in moments.items():
            values = [v for _, v in layers]
            numbers = (sum(values) / len(values), min(values), max(values))
            rows.append((label, when, str(len(values)), *(f"{n:.3f}" for n in numbers)))
    return header, rows


def _layer_rows(gates: dict) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows = [
        (label, when, name, f"{value:.6g}")
        for label, moments in gates.items()
        for when, layers in moments.items()
        for name, value in layers
    ]
    return ("network", "when", "layer", "mean T"), rows


def _draw_gates(gates: dict, path: Any, title: str) -> Any:
    from resnet_flax.figures import style
    from resnet_flax.figures.style import plt
    from resnet_flax.reporting.record import Figure

    figure, axes = plt.subplots(1, 2, figsize=(10.4, 3.9), sharey=True, layout="constrained")
    for ax, when in zip(axes, ("at initialisation", "after training"), strict=True):
        for (label, moments), color, marker, dashes in zip(
            gates.items(), style.colors(len(gates)), style.MARKERS, style.DASHES, strict=False
        ):
            values = [v for _, v in moments[when]]
            ax.plot(
                range(1, len(values) + 1),
                values,
                color=color,
                marker=marker,
                linestyle=dashes,
                markersize=4,
                label=label,
            )
        ax.set_title(when)
        ax.set_xlabel("gated layer, from the input to the output")
        ax.set_ylim(0, 1)
    axes[0].set_ylabel("mean of T (0 carries, 1 transforms)")
    style.legend_below(figure, axes[0].get_legend_handles_labels()[0], columns=2)
    figure.suptitle(title, fontsize=11)
    style.save(figure, path)
    return Figure(path.name, f"{title}. Mean of T over a batch, positions and channels, a point a gated layer.")


def _notes(gates: dict) -> list[str]:
    notes = []
    if _PUBLISHED.value:
        notes.append(
            "The source does not give the widths of its 32-layer network; resnet_flax/networks/families.py says what "
            "was chosen. The source has no batch normalisation; model.norm says whether these networks have."
        )
    for label, moments in gates.items():
        before, after = (sum(v for _, v in m) / len(m) for m in moments.values())
        notes.append(f"{label}: mean openness of the gates {before:.3f} at initialisation, {after:.3f} after training.")
    return notes


if __name__ == "__main__":
    command.run(main, uses_devices=True)
