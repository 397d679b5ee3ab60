"""Tests three claims about depth, each with runs and their controls.

python -m experiments.claims --workdir=runs/claims [--seeds=0,1]

* Plain networks do not degrade because of overfitting: dropout and stronger weight decay do not help plain-56.
* Shortcuts help shallow networks, too: plain and residual networks of 8 and 14 layers.
* Batch normalisation only postpones the problem: plain networks of growing depth with and without it.

The notes state each claim beside the measured errors, without assuming that the claim holds.
"""

from collections.abc import Sequence

from resnet_flax.figures import curves, final_errors
from resnet_flax.reporting import words
from resnet_flax.reporting.tables import by_label, mean_and_deviation
from resnet_flax.sweeps.cases import Case, Outcome, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting

CLAIMS = {
    "cures": "Claim: neither dropout nor stronger decay cures a deep plain network, since it does not overfit",
    "shallow": "Claim: shortcuts help shallow networks, too",
    "normalisation": "Claim: batch normalisation postpones the problem to greater depth",
}


def cases(request: Request) -> dict[str, list[Case]]:
    """Returns the cases of each claim, by the name of the claim."""
    given = request.settings
    plain = f"plain-{given.deep}"
    norms = []
    for depth in given.depths:
        norms += [Case(f"plain-{depth}"), Case(f"plain-{depth}", {"model.norm": "none"}, f"plain-{depth} without BN")]
    return {
        "cures": [
            Case(plain),
            Case(f"residual-{given.deep}"),
            *(Case(plain, {"model.dropout": rate}) for rate in given.dropout),
            *(Case(plain, {"optimizer.weight_decay": decay}) for decay in given.decay),
        ],
        "shallow": [Case(f"{unit}-{depth}") for depth in given.shallow for unit in ("plain", "residual")],
        "normalisation": norms,
    }


def norm(outcome: Outcome) -> str:
    """Returns the name of a run's line or panel: with or without batch normalisation."""
    return "with BN" if outcome.run.config.model.norm == "batch" else "without BN"


def findings(results: Results) -> Findings:
    """Draws a figure for each claim, and notes the claim with the measured errors."""
    cures, shallow, norms = (results.of(group) for group in CLAIMS)
    data, folder = results.data, results.folder
    title = f"{data}: dropout and weight decay on plain-{results.request.settings.deep}"
    with_and_without = f"{data}: plain networks with and without BN"
    figures = [
        final_errors.side_by_side(cures, folder / "cures.png", title),
        final_errors.side_by_side(shallow, folder / "shallow.png", f"{data}: shortcuts in shallow networks"),
        final_errors.against_depth(norms, folder / "normalisation.png", with_and_without, norm),
        curves.draw(norms, folder / "curves.png", with_and_without, panel=norm),
    ]
    return Findings(figures, notes=[_measured(claim, results.of(group)) for group, claim in CLAIMS.items()])


def _measured(claim: str, outcomes: Sequence[Outcome]) -> str:
    errors = (f"{words.without_keys(label)}: {_errors(members)}" for label, members in by_label(outcomes).items())
    return f"{claim}. Measured: {'; '.join(errors)}."


def _errors(outcomes: Sequence[Outcome]) -> str:
    whole = [o for o in outcomes if not o.failure]
    if not whole:
        return words.ending(outcomes)
    train, test = (mean_and_deviation([100 * o.final[k] for o in whole]) for k in ("train_error", "test_error"))
    failed = f" ({words.ending(outcomes)}, not in the mean)" if len(whole) < len(outcomes) else ""
    return f"training error {train}%, test error {test}%{failed}"


EXPERIMENT = Experiment(
    title="Claims about depth",
    question="Is degradation due to overfitting? Do shortcuts help shallow networks, too? Does BN remove the problem "
    "or postpone it? (arXiv:1512.03385, sections 1 and 4)",
    settings={
        "deep": Setting(56, "Depth of the plain network that degrades."),
        "shallow": Setting((8, 14), "Depths of the shallow networks."),
        "depths": Setting((8, 20, 32, 56), "Depths of the networks with and without batch normalisation."),
        "dropout": Setting((0.2, 0.5), "Dropout rates of the deep plain network.", may_be_empty=True),
        "decay": Setting(
            (1e-3, 5e-3), "Weight decays of the deep plain network, stronger than the config's.", may_be_empty=True
        ),
    },
    cases=cases,
    findings=findings,
)

if __name__ == "__main__":
    EXPERIMENT.run()
