"""Compares plain and residual networks of several depths: the degradation problem, and its solution (Figs. 1 and 6).

python -m experiments.plain_vs_residual --config=configs/digits.py --depths=20,56 --seeds=0 --workdir=runs/curves

The command writes curves.png, table.md and table.csv into the workdir, and the runs into runs/ inside it. Finished runs
are skipped and interrupted ones resumed. --dry-run prints the runs. Overrides such as --config.train.steps=2000 hold
for every run.
"""

from resnet_flax.figures import curves
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting


def cases(request: Request) -> list[Case]:
    """Returns a case for each depth and unit."""
    return [Case(f"{unit}-{depth}") for depth in request.settings.depths for unit in request.settings.units]


def findings(results: Results) -> Findings:
    """Draws the curves."""
    title = f"{results.data}: {' and '.join(results.request.settings.units)} networks"
    return Findings([curves.draw(results.outcomes, results.folder / "curves.png", title)])


EXPERIMENT = Experiment(
    title="Plain against residual networks",
    question="Do the training and test errors grow with depth without shortcuts, and fall with them? "
    "(arXiv:1512.03385, Figs. 1 and 6)",
    settings={
        "depths": Setting((20, 56), "Depths of the networks."),
        "units": Setting(("plain", "residual"), "Units of the networks."),
    },
    cases=cases,
    findings=findings,
    published=("cifar10_table6", "cifar10_peers"),
)

if __name__ == "__main__":
    EXPERIMENT.run()
