"""Compares shortcut options A, B and C with one another and with no shortcuts (arXiv:1512.03385, Table 3).

python -m experiments.shortcuts --workdir=runs/shortcuts [--depths=20] [--seeds=0,1]
"""

from resnet_flax.figures import curves, final_errors
from resnet_flax.sweeps.cases import Case, Outcome, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting


def cases(request: Request) -> list[Case]:
    """Returns a plain network and residual networks with each option, at each depth."""
    found = []
    for depth in request.settings.depths:
        found.append(Case(f"plain-{depth}"))
        for option in "ABC":
            found.append(Case(f"residual-{depth}", {"model.shortcut": option}, f"residual-{depth} {option}"))
    return found


def option(outcome: Outcome) -> str:
    """Returns the name of a run's panel."""
    model = outcome.run.config.model
    return "plain" if model.unit == "plain" else f"option {model.shortcut}"


def findings(results: Results) -> Findings:
    """Draws the final errors and the curves, with a panel for each option."""
    title = f"{results.data}: shortcuts A, B and C"
    return Findings([
        final_errors.side_by_side(results.outcomes, results.folder / "errors.png", title),
        curves.draw(results.outcomes, results.folder / "curves.png", title, panel=option),
    ])  # fmt: skip


EXPERIMENT = Experiment(
    title="Identity and projection shortcuts",
    question="Do projections (option B: where the shape changes; C: everywhere) have lower errors than the identity "
    "with zero channels (A), and how much of the gain over plain networks is due to them? (arXiv:1512.03385, Table 3)",
    settings={"depths": Setting((20, 32), "Depths of the networks.")},
    cases=cases,
    findings=findings,
    published=("imagenet",),
)

if __name__ == "__main__":
    EXPERIMENT.run()
