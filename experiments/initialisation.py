"""Compares He initialisation with others, and the last BN scale of a unit at zero with one.

python -m experiments.initialisation --workdir=runs/initialisation [--depths=20] [--seeds=0,1]

The paper uses He initialisation (arXiv:1502.01852). Zero-initialised last scales are a later practice. They are
compared with option B shortcuts: with option A, the channels that a stage adds would be 0 at the start and, because of
the ReLU, stay 0.
"""

from resnet_flax import config as configs
from resnet_flax.figures import curves, final_errors
from resnet_flax.sweeps.cases import Case, Outcome, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting


def cases(request: Request) -> list[Case]:
    """Returns plain and residual networks with each initialisation, and residual ones with the last scale at zero."""
    found = []
    for depth in request.settings.depths:
        for unit in ("plain", "residual"):
            for how in request.settings.initializations:
                found.append(Case(f"{unit}-{depth}", {"model.initialization": how}, f"{unit}-{depth} {how}"))
        for how, zero in (("he", False), ("he", True), ("lecun", True)):
            overrides = {"model.initialization": how, "model.zero_init_last": zero, "model.shortcut": "B"}
            label = f"residual-{depth} B {how}" + (", last scale 0" if zero else "")
            found.append(Case(f"residual-{depth}", overrides, label))
    return found


def initialisation(outcome: Outcome) -> str:
    """Returns the name of a run's line."""
    model = outcome.run.config.model
    option = "B " if model.unit == "residual" and model.shortcut == "B" else ""
    return option + model.initialization + (", last scale 0" if model.zero_init_last else "")


def network(outcome: Outcome) -> str:
    """Returns the name of a run's panel."""
    return configs.name_of(outcome.run.config.model)


def findings(results: Results) -> Findings:
    """Draws the final errors and the curves, with a panel for each network and a line for each initialisation."""
    title = f"{results.data}: initialisation"
    return Findings([
        final_errors.side_by_side(results.outcomes, results.folder / "errors.png", title),
        curves.draw(results.outcomes, results.folder / "curves.png", title, network, initialisation),
    ])  # fmt: skip


EXPERIMENT = Experiment(
    title="Initialisation",
    question="How much do He initialisation, with BN, and the initial last scale of a unit matter in plain and "
    "residual networks? (arXiv:1502.01852; arXiv:1512.03385, section 3.4)",
    settings={
        "depths": Setting((20,), "Depths of the networks."),
        "initializations": Setting(
            ("he", "he_fan_out", "lecun", "glorot", "orthogonal"), "Values of model.initialization."
        ),
    },
    cases=cases,
    findings=findings,
)

if __name__ == "__main__":
    EXPERIMENT.run()
