"""The paper's CIFAR-10 networks by the paper's recipe: Figs. 1, 6 and 7 and Table 6 (arXiv:1512.03385, section 4.2).

python -m experiments.cifar10 --workdir=runs/cifar10 [--networks=plain-20,residual-20] [--seeds=0,1] [--fraction=0.1]
    [--config.data.data_dir=FOLDER]

Each network is trained for 64,000 steps. Finished runs are skipped and interrupted ones resumed. --fraction scales the
schedule (steps, milestones, warm-up). Figures and notes then name the fraction, because a shortened run is not the
paper's. The config is configs/cifar10.py by default.
"""

from resnet_flax.errors import UserError
from resnet_flax.figures import paper
from resnet_flax.reporting.protocol import protocol_differences
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting
from resnet_flax.sweeps.plan import shortened

NETWORKS = (
    "plain-20", "plain-32", "plain-44", "plain-56",
    "residual-20", "residual-32", "residual-44", "residual-56", "residual-110", "residual-1202",
)  # fmt: skip


def cases(request: Request) -> list[Case]:
    """Returns a case for each of the paper's networks, with a fraction of the schedule."""
    for name in request.settings.networks:
        if not name.startswith(("plain-", "residual-")):
            raise UserError(f"--networks={name}: the paper's networks are plain-DEPTH and residual-DEPTH")
    return [shortened(Case(name), request.settings.fraction, request) for name in request.settings.networks]


def findings(results: Results) -> Findings:
    """Draws Figs. 1, 6 and 7, and notes the differences from the paper's protocol."""
    from resnet_flax.measurements import propagation  # Lazy import: it imports jax, and --help must be quick.

    outcomes, folder, given = results.outcomes, results.folder, results.request.settings
    title = f"{results.data}{'' if given.fraction == 1 else f', {given.fraction:g} of the schedule'}"
    figures = [paper.figure_6(outcomes, folder / "figure6.png", f"{title}, as in the paper's Fig. 6")]
    plain = [o for o in outcomes if o.run.config.model.unit == "plain"]
    if plain:
        figures.append(paper.figure_1(plain, folder / "figure1.png", f"{title}, as in the paper's Fig. 1"))
    first = [o for o in outcomes if not o.failure and o.run.config.seed == min(results.request.seeds)]
    if first and not results.stopped:
        measured = {o.run.label: propagation.after_training(o.run, given.images) for o in first}
        responses = {label: [deviation for _, deviation in found.responses] for label, found in measured.items()}
        figures.append(paper.figure_7(first, responses, folder / "figure7.png", title, given.images))
    return Findings(figures, notes=[_protocol(results)])


def _protocol(results: Results) -> str:
    """Returns a note on how the runs differ from the paper's, so that their errors are not taken for the paper's."""
    found = list(dict.fromkeys(phrase for o in results.outcomes for phrase in protocol_differences(o.run.config)))
    if not found:
        return "The paper's recipe and its whole schedule."
    fraction = results.request.settings.fraction
    part = "" if fraction == 1 else f" ({fraction:g} of the schedule)"
    return (
        f"The protocol differs from the paper's{part}: {'; '.join(found)}. Compare these errors with one another, and "
        f"not with the paper's."
    )


EXPERIMENT = Experiment(
    title="The paper's networks on {data}",
    question="Do the training and test errors of plain networks grow with depth, and do those of residual networks "
    "fall, to the paper's numbers? (arXiv:1512.03385, Figs. 1, 6 and 7, Table 6)",
    settings={
        "networks": Setting(NETWORKS, "Networks of the paper to train."),
        "fraction": Setting(1.0, "Fraction of the paper's schedule to train for.", least=1e-4, most=1),
        "images": Setting(128, "Number of training images on which layer responses are measured.", least=2),
    },
    cases=cases,
    findings=findings,
    published=("cifar10_table6", "cifar10_peers"),
    config="configs/cifar10.py",
)

if __name__ == "__main__":
    EXPERIMENT.run()
