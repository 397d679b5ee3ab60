"""Plain against residual networks of several depths: the degradation problem, and its cure (Figs. 1 and 6).

python -m experiments.plain_vs_residual --config=configs/digits.py --depths=20,56 --seeds=0 --workdir=runs/curves

Writes curves.png, table.md and table.csv into the folder, and the runs into runs/ inside it. Finished runs are
skipped, interrupted ones go on; --dry-run prints them. Overrides such as --config.train.steps=2000 hold for every run.
"""

from absl import flags

from resnet_flax import command
from resnet_flax.sweeps import options

_DEPTHS = flags.DEFINE_list("depths", ["20", "56"], "Depths of the networks.")
_UNITS = flags.DEFINE_list("units", ["plain", "residual"], "Units of the networks.")


def main() -> None:
    """Runs what is missing, then writes the figure and the table."""
    from resnet_flax.figures import curves
    from resnet_flax.reporting.record import Record
    from resnet_flax.sweeps import sweep
    from resnet_flax.sweeps.runs import Case

    outcomes = sweep.run(Case(f"{unit}-{depth}") for depth in options.whole_numbers(_DEPTHS) for unit in _UNITS.value)
    if outcomes is None:
        return
    data = outcomes[0].run.config.data.name
    title = f"{data}: {' and '.join(_UNITS.value)} networks"
    figure = curves.draw(outcomes, options.workdir() / "curves.png", title)
    record = Record(
        experiment="plain_vs_residual",
        title="Plain against residual networks",
        question="Does the error, the training error too, grow with depth without shortcuts and fall with them? "
        "(arXiv:1512.03385, Figs. 1 and 6)",
        published=("cifar10_table6", "cifar10_plain", "cifar10_peers"),
    )
    sweep.finish(outcomes, record, [figure])


if __name__ == "__main__":
    command.run(main, uses_devices=True)
