"""Plain, highway and residual networks of the same depth and width, and how far the gates open.

python -m experiments.highway --workdir=runs/highway [--depths=20,32] [--seeds=0,1] [--published=False]

The twins differ in nothing but the unit. Beside them the 19- and 32-layer networks of the highway paper
(arXiv:1507.06228), whose widths differ, and the same pair at equal width, so that depth alone tells them apart. Those
four are run at --width times their width, which is said wherever they appear; 1 is the paper's own.
"""

from typing import Any

from resnet_flax.figures import curves, final_errors
from resnet_flax.figures import gates as pictures
from resnet_flax.reporting import gates as texts
from resnet_flax.reporting import protocol
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting

# Of the 19-layer network's stages; the 32-layer one gets them, too, so that the pair differs in depth alone.
FILTERS_OF_19 = (32, 48, 80, 128)


def cases(request: Request) -> dict[str, list[Case]]:
    """The twins, and the paper's networks."""
    given = request.settings
    groups = {"twins": [Case(f"{unit}-{depth}") for depth in given.depths for unit in given.units]}
    if not given.published:
        return groups
    part = "" if given.width == 1 else f", {given.width:g} of the width"

    def published(depth: int, widths: str, **more: Any) -> Case:
        overrides = {"model.family": "highway", "model.block": "single", "model.depth": depth} | more
        label = f"highway-{depth} of its paper, {widths}{part}"
        # The name's own depth is replaced: 19 is none of the twins' family.
        return Case("highway-20", overrides, label, scaled={"model.width": given.width})

    groups["the paper's widths"] = [published(depth, "its widths") for depth in (19, 32)]
    groups["equal width"] = [published(32, "the widths of 19 layers", **{"model.stage_filters": FILTERS_OF_19})]
    return groups


def findings(results: Results) -> Findings:
    """Curves, final errors, and the openness of the gates at the start and after training."""
    from resnet_flax.measurements import gates  # with jax, for which --help does not wait

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
            "The source does not give the widths of its 32-layer network; resnet_flax/networks/families.py says what "
            "was chosen. The source has no batch normalisation; model.norm says whether these networks have.",
        )
    return Findings(figures, [texts.write(opened, folder)], notes)


EXPERIMENT = Experiment(
    title="Highway networks between plain and residual ones",
    question="Do gated shortcuts (y = H T + x (1 - T), arXiv:1507.06228, eq. 3) cure plain networks as parameter-free "
    "ones do, and how far do the gates open?",
    settings={
        "depths": Setting((20, 32), "Depths of the twins."),
        "units": Setting(("plain", "highway", "residual"), "Units of the twins."),
        "published": Setting(True, "Also the 19- and 32-layer networks of the highway paper."),
        "width": Setting(0.5, "Of those, as a part of their published width.", least=0.01),
    },
    cases=cases,
    findings=findings,
    published=("highway", "cifar10_table6"),
)

if __name__ == "__main__":
    EXPERIMENT.run()
