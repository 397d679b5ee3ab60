"""Plain against residual networks of several depths: the degradation problem, and its cure (Figs. 1 and 6).

python -m experiments.plain_vs_residual --config=configs/digits.py --depths=20,56 --seeds=0 --workdir=runs/curves

Writes curves.png, table.md and table.csv into the folder, and the runs into runs/ inside it. Finished runs are
skipped, interrupted ones go on; --dry-run prints them. Overrides such as --config.train.steps=2000 hold for every run.
"""

from resnet_flax.figures import curves
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting


def cases(request: Request) -> list[Case]:
    """Each depth with each unit."""
    return [Case(f"{unit}-{depth}") for depth in request.settings.depths for unit in request.settings.units]


def findings(results: Results) -> Findings:
    """The curves."""
    title = f"{results.data}: {' and '.join(results.request.settings.units)} networks"
    return Findings([curves.draw(results.outcomes, results.folder / "curves.png", title)])


EXPERIMENT = Experiment(
    title="Plain against residual networks",
    question="Does the error, the training error too, grow with depth without shortcuts and fall with them? "
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
