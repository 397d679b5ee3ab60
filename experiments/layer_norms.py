"""Gradient norms and relative updates of every layer while plain and residual networks are trained, in a picture.

python -m experiments.layer_norms --config=configs/digits.py --depths=56 --units=plain,residual --workdir=runs/norms

Each run measures itself at every line of metrics (train.metrics=gradient_norm,update_ratio): the mean over the steps
since the line before. Writes layer_norms.png, and table.md with the errors. On 2 CPU cores four minutes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from experiments import options
from resnet_flax import command
from resnet_flax.errors import UserError

if TYPE_CHECKING:
    from experiments.runs import Outcome

_DEPTHS = flags.DEFINE_list("depths", ["56"], "Depths of the networks.")
_UNITS = flags.DEFINE_list("units", ["plain", "residual"], "Units of the networks.")
_METRICS = ("gradient_norm", "update_ratio")


def main() -> None:
    """Runs what is missing, then writes the figure and the table."""
    from experiments import layer_norms_figure, sweep
    from experiments.record import Record
    from experiments.runs import Case

    measured = {"train.metrics": ",".join(_METRICS)}
    names = [f"{unit}-{depth}" for depth in options.whole_numbers(_DEPTHS) for unit in _UNITS.value]
    outcomes = sweep.run(Case(name, measured, name) for name in names)
    if outcomes is None:
        return
    _check(outcomes)
    data = outcomes[0].run.config.data.name
    figure = layer_norms_figure.draw(
        outcomes, _METRICS, options.workdir() / "layer_norms.png", f"{data}: every layer during training"
    )
    record = Record(
        experiment="layer_norms",
        title="Gradients and updates of every layer during training",
        question="Do the gradients of the first layers of deep plain networks vanish while they are trained, and do "
        "those of residual networks not? (arXiv:1512.03385, section 4.1)",
    )
    sweep.finish(outcomes, record, [figure])


def _check(outcomes: Sequence["Outcome"]) -> None:
    """Refuses runs that were begun, by another command, without these metrics."""
    for outcome in outcomes:
        lacking = [m for m in _METRICS if not any(key.startswith(f"{m}/") for line in outcome.lines for key in line)]
        if lacking and not outcome.failure:
            raise UserError(
                f"{outcome.run.workdir}: the run has not measured {' and '.join(lacking)}; choose another folder"
            )


if __name__ == "__main__":
    command.run(main, uses_devices=True)
