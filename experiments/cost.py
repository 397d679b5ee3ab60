"""The cost of depth and of units: parameters, multiply-adds, activation memory, and measured time of a training step.

python -m experiments.cost --workdir=runs/cost [--depths=20,56] [--units=plain,residual] [--batch=32] [--rounds=7]

Steps are measured on random images of the config's data set (--config=configs/cifar10.py needs no data), on one
device, all networks by turns; compiling is timed apart. Layers alone show what a bottleneck saves (arXiv:1512.03385,
section 4.1 and Fig. 5) and whether a 1x1 convolution costs a ninth of a 3x3. About 3 minutes on 2 CPU cores.
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
    """Unit by unit at each depth."""
    from resnet_flax.measurements import networks  # with jax, for which --help does not wait

    units = request.settings.units or networks.units_with_a_basic_form()
    cases = [Case(f"{u}-basic-{d}", label=f"{u}-{d}") for d in request.settings.depths for u in units]
    return [run.config for run in plan(cases, dataclasses.replace(request, seeds=request.seeds[:1]))]


def data_of(config: ConfigDict) -> tuple[tuple[int, int, int], int]:
    """The shape of an image, and how many classes there are."""
    image, classes = datasets.image_shape(config.data), datasets.classes(config.data)
    if image is None or classes is None:
        raise UserError(f"data.name={config.data.name!r}: the shape of its images is not known without it; choose a "
                        f"config of digits, cifar10 or cifar100")  # fmt: skip
    return image, classes


def measures(request: Request) -> list[str]:
    """A line for each network and each stack of layers."""
    from resnet_flax.measurements import layers  # with jax, for which --help does not wait

    given, found = request.settings, configs(request)
    what = _what(data_of(found[0])[0], given.batch)
    return [
        *(f"{name_of(c.model)}: {what}, {given.rounds} rounds" for c in found),
        *(f"{stack.name}: batch {given.batch}, {given.rounds} rounds" for stack in layers.STACKS),
    ]


def findings(results: Results) -> Findings:
    """Measures; the figure, the tables and the sentences."""
    from resnet_flax.measurements import cost  # with jax, for which --help does not wait
    from resnet_flax.reporting import cost as texts

    given, folder, found = results.request.settings, results.folder, configs(results.request)
    image, classes = data_of(found[0])
    costs, layers = cost.measure(found, image, classes, given.batch, given.rounds, given.turn_seconds)
    title = f"{found[0].data.name}: cost of a training step, {_what(image, given.batch)}"
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


def _what(image: tuple[int, int, int], batch: int) -> str:
    return f"images of {'x'.join(map(str, image))}, batch {batch}"


EXPERIMENT = Experiment(
    title="What depth costs",
    question="How do parameters, multiply-adds, activation memory and the time of a training step grow with depth, "
    "and with the unit? What does a bottleneck save (arXiv:1512.03385, section 4.1 and Fig. 5), and does a 1x1 "
    "convolution cost a ninth of a 3x3?",
    settings={
        "depths": Setting((20, 56), "Depths of the networks."),
        "units": Setting((), "Units of the networks; by default all that 6n+2 layers can be made of."),
        "batch": Setting(32, "Images a training step.", least=1),
        "rounds": Setting(7, "How often each step is measured.", least=1),
        "turn_seconds": Setting(0.3, "A measurement repeats its step for about so long.", least=0),
    },
    cases=lambda request: [],
    findings=findings,
    measures=measures,
)

if __name__ == "__main__":
    EXPERIMENT.run()
