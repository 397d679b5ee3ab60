"""The paper's CIFAR-10 runs by the paper's recipe: Fig. 1, Fig. 6, Fig. 7 and Table 6 (arXiv:1512.03385, section 4.2).

python -m experiments.cifar10 --workdir=runs/cifar10 [--networks=plain-20,residual-20] [--seeds=0,1] [--fraction=0.1]
    [--config.data.data_dir=FOLDER]

64,000 steps a network; finished runs are skipped and interrupted ones go on, so that one run may be split over several
stops. --fraction scales the schedule (steps, milestones, warm-up), which is then said wherever the result appears: a
shortened run is not the paper's. The config is configs/cifar10.py; another one, or keys of it, may be given as always.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from resnet_flax import command
from resnet_flax.errors import UserError
from resnet_flax.sweeps import options

NETWORKS = (
    "plain-20", "plain-32", "plain-44", "plain-56",
    "residual-20", "residual-32", "residual-44", "residual-56", "residual-110", "residual-1202",
)  # fmt: skip

_NETWORKS = flags.DEFINE_list("networks", list(NETWORKS), "Which of the paper's networks.")
_FRACTION = flags.DEFINE_float(
    "fraction", 1.0, "Part of the paper's schedule to train for.", lower_bound=1e-4, upper_bound=1
)
_IMAGES = flags.DEFINE_integer("images", 128, "Training images on which layer responses are measured.", lower_bound=2)


def main() -> None:
    """Runs what is missing, then writes the figures and the table."""
    from resnet_flax.figures import paper as cifar10_figures
    from resnet_flax.reporting.record import Record
    from resnet_flax.sweeps import sweep
    from resnet_flax.sweeps.runs import Case, shortened

    for name in _NETWORKS.value:
        if not name.startswith(("plain-", "residual-")):
            raise UserError(f"--networks={name}: the paper's are plain-DEPTH and residual-DEPTH")
    outcomes = sweep.run(shortened(Case(name), _FRACTION.value) for name in _NETWORKS.value)
    if outcomes is None:
        return
    data, folder = outcomes[0].run.config.data.name, options.workdir()
    protocol = _protocol(outcomes)
    title = f"{data}{'' if _FRACTION.value == 1 else f', {_FRACTION.value:g} of the schedule'}"
    figures = [cifar10_figures.figure_6(outcomes, folder / "figure6.png", f"{title}: the paper's Fig. 6")]
    plain = [o for o in outcomes if o.run.config.model.unit == "plain"]
    if plain:
        figures.append(cifar10_figures.figure_1(plain, folder / "figure1.png", f"{title}: the paper's Fig. 1"))
    figures += cifar10_figures.figure_7(outcomes, folder / "figure7.png", title, _IMAGES.value)
    record = Record(
        experiment="cifar10",
        title="The paper's networks on CIFAR-10" if data == "cifar10" else f"The paper's networks on {data}",
        question="Does the error of plain networks, the training error too, grow with depth, and that of residual ones "
        "fall, to the paper's numbers? (arXiv:1512.03385, Figs. 1, 6 and 7, Table 6)",
        published=("cifar10_table6", "cifar10_plain", "cifar10_peers"),
        notes=[protocol],
    )
    sweep.finish(outcomes, record, figures)


def _protocol(outcomes: Sequence[Any]) -> str:
    """In what the runs differ from the paper's, so that no number is taken for one of the paper's."""
    from resnet_flax.reporting.protocol import protocol_differences

    found = list(dict.fromkeys(phrase for o in outcomes for phrase in protocol_differences(o.run.config)))
    if not found:
        return "The paper's recipe and its whole schedule."
    part = "" if _FRACTION.value == 1 else f" ({_FRACTION.value:g} of the schedule)"
    return (
        f"A protocol of its own{part}: {'; '.join(found)}. Errors are to be compared with one another, not with the "
        f"paper's."
    )


if __name__ == "__main__":
    command.run(main, uses_devices=True)
