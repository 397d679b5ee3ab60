"""What else the review says of depth, each as runs beside their control.

python -m experiments.claims --workdir=runs/claims [--seeds=0,1]

* Overfitting is not what degrades plain networks: dropout and stronger weight decay do not cure plain-56.
* Shortcuts help shallow networks, too: plain and residual networks of 8 and 14 layers.
* Batch normalisation only postpones the problem: plain networks of growing depth with and without it.

No outcome is assumed; the notes are made from what the runs show.
"""

from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from resnet_flax import command
from resnet_flax.sweeps import options

_DEEP = flags.DEFINE_integer("deep", 56, "Depth of the plain network that degrades.")
_SHALLOW = flags.DEFINE_list("shallow", ["8", "14"], "Depths of the shallow networks.")
_DEPTHS = flags.DEFINE_list("depths", ["8", "20", "32", "56"], "Depths with and without batch normalisation.")
_DROPOUT = flags.DEFINE_list("dropout", ["0.2", "0.5"], "Rates of dropout.")
_DECAY = flags.DEFINE_list("decay", ["1e-3", "5e-3"], "Weight decays stronger than the config's.")


def main() -> None:
    """Runs the three groups and draws a figure for each."""
    from resnet_flax.sweeps import sweep

    groups = _groups()
    outcomes = sweep.run([case for group in groups.values() for case in group])
    if outcomes is None:
        return
    _write(outcomes, groups)


def _groups() -> dict[str, list[Any]]:
    from resnet_flax.sweeps.runs import Case

    deep = _DEEP.value
    cures = [Case(f"plain-{deep}"), Case(f"residual-{deep}")]
    cures += [Case(f"plain-{deep}", {"model.dropout": rate}) for rate in _numbers(_DROPOUT)]
    cures += [Case(f"plain-{deep}", {"optimizer.weight_decay": decay}) for decay in _numbers(_DECAY)]
    shallow = [Case(f"{u}-{d}") for d in options.whole_numbers(_SHALLOW) for u in ("plain", "residual")]
    norms = []
    for depth in options.whole_numbers(_DEPTHS):
        norms += [Case(f"plain-{depth}"), Case(f"plain-{depth}", {"model.norm": "none"}, f"plain-{depth} without BN")]
    return {"cures": cures, "shallow": shallow, "normalisation": norms}


def _write(outcomes: Sequence[Any], groups: dict[str, list[Any]]) -> None:
    from resnet_flax.figures import curves
    from resnet_flax.figures import final_errors as error_bars
    from resnet_flax.reporting.record import Record
    from resnet_flax.sweeps import sweep

    data, folder = outcomes[0].run.config.data.name, options.workdir()

    def of(group: str) -> list[Any]:
        labels = {case.label for case in groups[group]}
        return [o for o in outcomes if o.run.label in labels]

    def norm(outcome: Any) -> str:
        return "with BN" if outcome.run.config.model.norm == "batch" else "without BN"

    figures = [
        error_bars.side_by_side(
            of("cures"), folder / "cures.png", f"{data}: dropout and weight decay on plain-{_DEEP.value}"
        ),
        error_bars.side_by_side(of("shallow"), folder / "shallow.png", f"{data}: shortcuts in shallow networks"),
        error_bars.against_depth(
            of("normalisation"), folder / "normalisation.png", f"{data}: plain networks with and without BN", norm
        ),
        curves.draw(
            of("normalisation"), folder / "curves.png", f"{data}: plain networks with and without BN", panel=norm
        ),
    ]
    record = Record(
        experiment="claims",
        title="What the review says of depth",
        question="Is degradation overfitting? Do shortcuts help shallow networks, too? Does BN remove the problem or "
        "postpone it? (arXiv:1512.03385, sections 1 and 4, and the review of it)",
        notes=_notes(of),
    )
    sweep.finish(outcomes, record, figures)


def _notes(of: Callable[[str], list[Any]]) -> list[str]:
    """Sentences made from the errors measured."""
    from resnet_flax.reporting.tables import by_label, mean_and_deviation

    def errors(outcomes: Sequence[Any]) -> str:
        whole = [o for o in outcomes if not o.failure]
        if not whole:
            return outcomes[0].failure
        train, test = (mean_and_deviation([100 * o.final[k] for o in whole]) for k in ("train_error", "test_error"))
        return f"training error {train}%, test error {test}%"

    said = {
        "cures": "The review: neither dropout nor stronger decay cures a deep plain network, since it does not overfit",
        "shallow": "The review: shortcuts help shallow networks, too",
        "normalisation": "The review: batch normalisation postpones the problem to greater depth",
    }
    return [
        f"{claim}. Measured: " + "; ".join(f"{label}: {errors(o)}" for label, o in by_label(of(group)).items()) + "."
        for group, claim in said.items()
    ]


def _numbers(flag: flags.FlagHolder) -> list[float]:
    from resnet_flax.errors import UserError

    try:
        return [float(text) for text in flag.value]
    except ValueError:
        raise UserError(f"--{flag.name}={','.join(flag.value)} must be numbers with commas between") from None


if __name__ == "__main__":
    command.run(main, uses_devices=True)
