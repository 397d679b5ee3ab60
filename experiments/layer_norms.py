"""Draws gradient norms and relative updates of every layer during the training of plain and residual networks.

python -m experiments.layer_norms --config=configs/digits.py --depths=56 --units=plain,residual --workdir=runs/norms

Each run measures itself (train.metrics=gradient_norm,update_ratio): a line of metrics holds the mean over the steps
since the previous line. The command writes layer_norms.png, and table.md with the errors. It takes four minutes on 2
CPU cores.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from resnet_flax.errors import UserError
from resnet_flax.figures import layer_norms
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting

METRICS = ("gradient_norm", "update_ratio")


def cases(request: Request) -> list[Case]:
    """Returns a case for each depth and unit, with the metrics of every layer."""
    names = [f"{unit}-{depth}" for depth in request.settings.depths for unit in request.settings.units]
    return [Case(name, {"train.metrics": ",".join(METRICS)}, name) for name in names]


def findings(results: Results) -> Findings:
    """Draws the figure.

    Raises:
      UserError: A run was begun without these metrics, by another command.
    """
    for outcome in results.outcomes:
        lacking = _lacking(outcome.lines)
        if lacking and not outcome.failure:
            raise UserError(
                f"{outcome.run.workdir}: the run was trained without the metrics {' and '.join(lacking)}; choose "
                f"another --workdir"
            )
    measured = [o for o in results.outcomes if not _lacking(o.lines[-1:])]
    if not measured:
        return Findings(notes=["No run's last line has these metrics, so nothing is drawn."])
    title = f"{results.data}: every layer during training"
    others = [o.run.name for o in results.outcomes if o.lines and _lacking(o.lines[-1:])]
    notes = [f"Not drawn, because their last line lacks these metrics: {'; '.join(others)}."] * bool(others)
    return Findings([layer_norms.draw(measured, METRICS, results.folder / "layer_norms.png", title)], notes=notes)


def _lacking(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the metrics that no line has."""
    return [m for m in METRICS if not any(key.startswith(f"{m}/") for line in lines for key in line)]


EXPERIMENT = Experiment(
    title="Gradients and updates of every layer during training",
    question="Do the gradients of the first layers vanish during the training of deep plain networks, but not of "
    "residual ones? (arXiv:1512.03385, section 4.1)",
    settings={
        "depths": Setting((56,), "Depths of the networks."),
        "units": Setting(("plain", "residual"), "Units of the networks."),
    },
    cases=cases,
    findings=findings,
)

if __name__ == "__main__":
    EXPERIMENT.run()
