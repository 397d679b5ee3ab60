"""Measures gradients and responses layer by layer, at initialisation and after training: why do plain networks fail?

python -m experiments.propagation --workdir=runs/propagation [--units=plain,residual] [--depths=20,56] [--trained=False]
    [--weights=FILE,FILE]

It measures norms of the loss's gradient with respect to each layer's weights and each 3x3 layer's response, and the
standard deviations of these responses (arXiv:1512.03385, Fig. 7), in networks of every unit, depth and initialisation,
with and without batch normalisation. Networks with the config's initialisation are also trained for a
--fraction of the schedule and measured again. --weights also measures the trained networks in exported files, such as
those in results/cifar10/weights, on training images of their data set. The notes state the claim that gradients
vanish, the paper's claim (section 4.1: with BN they do not), and the measured ratios. layers.csv holds every number.
"""

import dataclasses

from ml_collections import ConfigDict

from resnet_flax.errors import UserError
from resnet_flax.figures import propagation as pictures
from resnet_flax.interchange import files
from resnet_flax.interchange.files import Weights
from resnet_flax.paths import expanded
from resnet_flax.reporting import propagation as texts
from resnet_flax.runs.schemas import read_config
from resnet_flax.sweeps.cases import Case, PlannedRun, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting
from resnet_flax.sweeps.plan import plan, shortened


def networks(request: Request) -> list[Case]:
    """Returns a case for every unit and depth, with and without BN."""
    given = request.settings
    return [
        Case(f"{unit}-{depth}", {"model.norm": norm}, f"{unit}-{depth}{'' if norm == 'batch' else ' without BN'}")
        for norm in given.norms
        for depth in given.depths
        for unit in given.units
    ]


def untrained_runs(request: Request) -> list[PlannedRun]:
    """Returns runs of the networks with each initialisation and the first seed, which are measured and not trained."""
    cases = [
        dataclasses.replace(case, overrides={**case.overrides, "model.initialization": how})
        for how in request.settings.initializations
        for case in networks(request)
    ]
    return plan(cases, dataclasses.replace(request, seeds=request.seeds[:1]))


def exported(request: Request) -> list[Weights]:
    """Reads the exported files to measure."""
    return [files.read(expanded(path)) for path in request.settings.weights]


def config_in(file: Weights) -> ConfigDict:
    """Returns the config of the run that an exported file comes from.

    Raises:
      UserError: Another program wrote the file.
    """
    if file.config is None:
        raise UserError(
            f"--weights={file.path}: the file names neither its network nor its training images; give a file that "
            f"resnet_flax.export wrote"
        )
    return read_config(file.config.encode(), file.path)


def cases(request: Request) -> list[Case]:
    """Returns the cases to train, with a fraction of the schedule."""
    # Mistakes in what is only measured are found before the first run starts.
    untrained, exports = untrained_runs(request), [config_in(file) for file in exported(request)]
    data = {config.data.name for config in [*(run.config for run in untrained), *exports]}
    if not data:
        raise UserError("--units, --depths, --norms or --initializations is empty: give one of each, or --weights")
    if len(data) > 1:
        raise UserError(
            f"--config and --weights are of different data sets: {', '.join(sorted(data))}; give files and a --config "
            f"of the same, or --units= to measure the files alone"
        )
    given = request.settings
    found = [shortened(case, given.fraction, request) for case in networks(request)] if given.trained else []
    trained = [run.config for run in plan(found, dataclasses.replace(request, seeds=request.seeds[:1]))]
    names = [" ".join(texts.Measured(config, "", None).name) for config in [*trained, *exports]]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"--weights={','.join(given.weights)}: {twice[0]} would be measured twice after training, and the "
            f"two could not be told apart; measure them in folders of their own, files with --trained=False"
        )
    return found


def measures(request: Request) -> list[str]:
    """Returns a line for --dry-run for each network that is measured without being trained."""
    at_start = [f"{r.label}, {r.config.model.initialization}: at initialisation" for r in untrained_runs(request)]
    return [*at_start, *(f"{file.path}: after training" for file in exported(request))]


def findings(results: Results) -> Findings:
    """Measures gradients and responses, and makes figures, tables and notes of them."""
    from resnet_flax.measurements import propagation  # Lazy import: it imports jax, and --help must be quick.

    if results.stopped:
        return Findings(notes=["A signal stopped the experiment before anything was measured."])
    request, folder, untrained = results.request, results.folder, untrained_runs(results.request)
    trained = exported(request)
    measured = propagation.measure(untrained, results.outcomes, trained, request.overrides, request.settings.images)
    notes = texts.notes(measured)
    if results.outcomes:
        steps = results.outcomes[0].run.config.train.steps
        whose = "The networks that are not in files were trained" if trained else "Trained"
        notes.append(f"{whose} for {steps} steps, {request.settings.fraction:g} of the config's schedule.")
    table = texts.write(measured, folder)  # before the figures, so that a measurement is kept if drawing fails
    return Findings(pictures.draw(measured, folder, measured[0].config.data.name), [table], notes)


EXPERIMENT = Experiment(
    title="Propagation of signals and gradients",
    question="Do gradients vanish in deep plain networks? How large are the responses of layers? (arXiv:1512.03385, "
    "section 4.1 and Fig. 7)",
    settings={
        "units": Setting(
            ("plain", "residual", "highway", "preactivation"), "Units of the networks.", may_be_empty=True
        ),
        "depths": Setting((20, 56), "Depths of the networks.", may_be_empty=True),
        "norms": Setting(("batch", "none"), "Values of model.norm.", may_be_empty=True),
        "initializations": Setting(("he", "lecun"), "Values of model.initialization.", may_be_empty=True),
        "trained": Setting(True, "Also train the networks, and measure them again."),
        "fraction": Setting(0.5, "Fraction of the config's schedule to train for.", least=0, most=1),
        "weights": Setting((), "Exported files of trained networks to measure, too."),
        "images": Setting(128, "Number of training images to measure on.", least=2),
    },
    cases=cases,
    findings=findings,
    measures=measures,
)

if __name__ == "__main__":
    EXPERIMENT.run()
