"""Gradient norms and relative updates of every layer while plain and residual networks are trained, in a picture.

python -m experiments.layer_norms --config=configs/digits.py --depths=56 --units=plain,residual --workdir=runs/norms

Each run measures itself at every line of metrics (train.metrics=gradient_norm,update_ratio): the mean over the steps
since the line before. Writes layer_norms.png, and table.md with the errors. On 2 CPU cores four minutes.
"""

from resnet_flax.errors import UserError
from resnet_flax.figures import layer_norms
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting

METRICS = ("gradient_norm", "update_ratio")


def cases(request: Request) -> list[Case]:
    """Each depth with each unit, measured while it is trained."""
    names = [f"{unit}-{depth}" for depth in request.settings.depths for unit in request.settings.units]
    return [Case(name, {"train.metrics": ",".join(METRICS)}, name) for name in names]


def findings(results: Results) -> Findings:
    """The picture; runs that were begun, by another command, without these metrics are refused."""
    for outcome in results.outcomes:
        lacking = [m for m in METRICS if not any(key.startswith(f"{m}/") for line in outcome.lines for key in line)]
        if lacking and not outcome.failure:
            raise UserError(
                f"{outcome.run.workdir}: the run has not measured {' and '.join(lacking)}; choose another folder"
            )
    title = f"{results.data}: every layer during training"
    return Findings([layer_norms.draw(results.outcomes, METRICS, results.folder / "layer_norms.png", title)])


EXPERIMENT = Experiment(
    title="Gradients and updates of every layer during training",
    question="Do the gradients of the first layers of deep plain networks vanish while they are trained, and do those "
    "of residual networks not? (arXiv:1512.03385, section 4.1)",
    settings={
        "depths": Setting((56,), "Depths of the networks."),
        "units": Setting(("plain", "residual"), "Units of the networks."),
    },
    cases=cases,
    findings=findings,
)

if __name__ == "__main__":
    EXPERIMENT.run()
