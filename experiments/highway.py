"""Compares plain, highway and residual networks of the same depth and width, and measures how far the gates open.

python -m experiments.highway --workdir=runs/highway [--depths=20,32] [--seeds=0,1] [--published=False]

Twins are networks that differ only in the unit. The experiment also trains the 19- and 32-layer networks of the highway
paper (arXiv:1507.06228), whose widths differ, and a 32-layer network with the widths of the 19-layer one, so that only
depth differs. These networks have their published width times --width and --config.model.width; their labels say so.
"""

from typing import Any

from resnet_flax.figures import curves, final_errors
from resnet_flax.figures import gates as pictures
from resnet_flax.reporting import gates as texts
from resnet_flax.reporting import protocol
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting

FILTERS_OF_19 = (32, 48, 80, 128)  # the filters of the 19-layer network's stages


def cases(request: Request) -> dict[str, list[Case]]:
    """Returns the cases of the twins and of the highway paper's networks, in groups."""
    given = request.settings
    groups = {"twins": [Case(f"{unit}-{depth}") for depth in given.depths for unit in given.units]}
    if not given.published:
        return groups
    width = given.width * request.overrides.get("model.width", 1)
    part = "" if width == 1 else f", {width:g} of the width"

    def published(depth: int, widths: str, **more: Any) -> Case:
        overrides = {"model.family": "highway", "model.block": "single", "model.depth": depth} | more
        label = f"highway-{depth} of its paper, {widths}{part}"
        # The overrides replace the depth of the name, because the default family has no network of 19 layers.
        return Case("highway-20", overrides, label, scaled={"model.width": width})

    groups["the paper's widths"] = [published(depth, "its widths") for depth in (19, 32)]
    groups["equal width"] = [published(32, "the widths of 19 layers", **{"model.stage_filters": FILTERS_OF_19})]
    return groups


def findings(results: Results) -> Findings:
    """Draws curves, final errors, and the openness of the gates at initialisation and after training."""
    from resnet_flax.measurements import gates  # Lazy import: it imports jax, and --help must be quick.

    folder, data = results.folder, results.data
    opened = {} if results.stopped else gates.openness_of_runs(results.outcomes)
    figures = [
        curves.draw(results.of("twins"), folder / "curves.png", f"{data}: highway twins"),
        final_errors.side_by_side(
            results.outcomes, folder / "errors.png", f"{data}: plain, highway and residual networks"
        ),
    ]
    if opened:
        figures.append(
            pictures.draw(
                opened, folder / "gates.png", f"{data}: openness of the gates", protocol.summary(results.outcomes)
            )
        )
    notes = texts.notes(opened)
    if results.request.settings.published:
        notes.insert(
            0,
            "The highway paper does not give the widths of its 32-layer network; resnet_flax/networks/families.py "
            "explains the choice. The paper uses no batch normalisation; model.norm says whether these networks do.",
        )
    return Findings(figures, [texts.write(opened, folder)], notes)


EXPERIMENT = Experiment(
    title="Highway networks compared with plain and residual ones",
    question="Do gated shortcuts (y = H T + x (1 - T), arXiv:1507.06228, eq. 3) prevent degradation as parameter-free "
    "shortcuts do, and how far do the gates open?",
    settings={
        "depths": Setting((20, 32), "Depths of the twins."),
        "units": Setting(("plain", "highway", "residual"), "Units of the twins."),
        "published": Setting(True, "Also train the 19- and 32-layer networks of the highway paper."),
        "width": Setting(0.5, "Width of those networks, as a fraction of the published one.", least=0.01),
    },
    cases=cases,
    findings=findings,
    published=("highway", "cifar10_table6"),
)

if __name__ == "__main__":
    EXPERIMENT.run()
