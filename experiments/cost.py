"""Measures the cost of depth and of units: parameters, multiply-adds, activation memory and time of a training step.

python -m experiments.cost --workdir=runs/cost [--depths=20,56] [--units=plain,residual] [--batch=32] [--rounds=7]

Steps are measured on one device with random images in the shape of the config's data set, so no data is needed. All
networks are measured by turns, and compiling is timed separately. Measurements of single layers show what a bottleneck
saves (arXiv:1512.03385, section 4.1 and Fig. 5) and whether a 1x1 convolution costs a ninth of a 3x3. It takes about 3
minutes on 2 CPU cores.
"""

import dataclasses

from ml_collections import ConfigDict

from resnet_flax.config import name_of
from resnet_flax.data import datasets
from resnet_flax.errors import UserError
from resnet_flax.figures import cost as pictures
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting
from resnet_flax.sweeps.plan import plan


def configs(request: Request) -> list[ConfigDict]:
    """Returns the config of each network: every unit at each depth."""
    from resnet_flax.measurements import network_cost  # Lazy import: it imports jax, and --help must be quick.

    units = request.settings.units or network_cost.units_with_a_basic_form()
    cases = [Case(f"{u}-basic-{d}", label=f"{u}-{d}") for d in request.settings.depths for u in units]
    return [run.config for run in plan(cases, dataclasses.replace(request, seeds=request.seeds[:1]))]


def data_of(config: ConfigDict) -> tuple[tuple[int, int, int], int]:
    """Returns the shape of an image and the number of classes of a config's data set."""
    image, classes = datasets.image_shape(config.data), datasets.classes(config.data)
    if image is None or classes is None:
        raise UserError(f"data.name={config.data.name!r}: the shape of its images is not known in advance; choose a "
                        f"config of digits, cifar10 or cifar100")  # fmt: skip
    return image, classes


def measures(request: Request) -> list[str]:
    """Returns a line for --dry-run for each measured network and stack of layers."""
    from resnet_flax.measurements import convolution_stacks  # Lazy import: it imports jax, and --help must be quick.

    given, found = request.settings, configs(request)
    images = _images(data_of(found[0])[0], given.batch)
    return [
        *(f"{name_of(c.model)}: {images}, {given.rounds} rounds" for c in found),
        *(f"{stack.name}: batch {given.batch}, {given.rounds} rounds" for stack in convolution_stacks.STACKS),
    ]


def findings(results: Results) -> Findings:
    """Measures the costs, and makes the figure, tables and notes."""
    from resnet_flax.measurements import cost  # Lazy import: it imports jax, and --help must be quick.
    from resnet_flax.reporting import cost as texts

    given, folder, found = results.request.settings, results.folder, configs(results.request)
    image, classes = data_of(found[0])
    costs, layers = cost.measure(found, image, classes, given.batch, given.rounds, given.turn_seconds)
    title = f"{found[0].data.name}: cost of a training step, {_images(image, given.batch)}"
    written = [
        texts.write_networks(costs, folder / "networks.csv", given.batch),
        texts.write_bottleneck(layers, folder / "bottleneck.csv", given.batch),
        texts.write_one_by_one(layers, folder / "convolutions.csv", given.batch),
    ]
    return Findings(
        figures=[pictures.draw(costs, folder / "cost.png", title)],
        tables=[table for table, _ in written],
        notes=texts.notes(costs, layers, given.batch),
        printed="\n".join(markdown for _, markdown in written),
    )


def _images(image: tuple[int, int, int], batch: int) -> str:
    return f"images of {'x'.join(map(str, image))}, batch {batch}"


EXPERIMENT = Experiment(
    title="The cost of depth",
    question="How do parameters, multiply-adds, activation memory and the time of a training step depend on depth "
    "and unit? What does a bottleneck save (arXiv:1512.03385, section 4.1 and Fig. 5), and does a 1x1 "
    "convolution cost a ninth of a 3x3?",
    settings={
        "depths": Setting((20, 56), "Depths of the networks."),
        "units": Setting((), "Units of the networks; by default all units that have networks of 6n+2 layers."),
        "batch": Setting(32, "Images in a training step.", least=1),
        "rounds": Setting(7, "Number of measurements of each step.", least=1),
        "turn_seconds": Setting(0.3, "Approximate seconds for which a measurement repeats its step.", least=0),
    },
    cases=lambda request: [],
    findings=findings,
    measures=measures,
)

if __name__ == "__main__":
    EXPERIMENT.run()
