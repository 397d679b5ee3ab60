"""What depth and units cost: parameters, multiply-adds, activation memory, and the measured time of a training step.

python -m experiments.cost --workdir=runs/cost [--depths=20,56] [--units=plain,residual] [--batch=32] [--rounds=7]

Steps are measured on random images of the config's data set (--config=configs/cifar10.py needs no data), on one
device, all networks by turns; compiling is timed apart. Layers alone show what a bottleneck saves (arXiv:1512.03385,
section 4.1 and Fig. 5) and whether a 1x1 convolution costs a ninth of a 3x3. About 3 minutes on 2 CPU cores.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import options
from resnet_flax import command
from resnet_flax.errors import UserError

_DEPTHS = flags.DEFINE_list("depths", ["20", "56"], "Depths of the networks.")
_UNITS = flags.DEFINE_list("units", None, "Units of the networks; by default all that 6n+2 layers can be made of.")
_BATCH = flags.DEFINE_integer("batch", 32, "Images a training step.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "How often each step is measured.", lower_bound=1)
_TURN_SECONDS = flags.DEFINE_float("turn_seconds", 0.3, "A measurement repeats its step for about so long.", 0)


def main() -> None:
    """Measures, and writes the figure, the tables and the record."""
    import jax

    # A program that comes out of the cache would take no time to compile.
    jax.config.update("jax_enable_compilation_cache", False)

    from experiments import cost_layers, cost_text, record
    from resnet_flax.config import name_of

    configs, image, classes = _networks()
    if options.DRY_RUN.value:
        for c in configs:
            print(f"{name_of(c.model)}: {_what(image)}, {_ROUNDS.value} rounds")
        for stack in cost_layers.STACKS:
            print(f"{stack.name}: batch {_BATCH.value}, {_ROUNDS.value} rounds")
        return
    costs, layers = _measure(configs, image, classes)

    from experiments import cost_figure

    folder, data = options.workdir(), configs[0].data.name
    figure = cost_figure.draw(costs, folder / "cost.png", f"{data}: cost of a training step, {_what(image)}")
    written = [
        cost_text.write_networks(costs, folder / "networks.csv", _BATCH.value),
        cost_text.write_bottleneck(layers, folder / "bottleneck.csv", _BATCH.value),
        cost_text.write_one_by_one(layers, folder / "convolutions.csv", _BATCH.value),
    ]
    record.write(
        record.Record(
            experiment="cost",
            title="What depth costs",
            question="How do parameters, multiply-adds, activation memory and the time of a training step grow with "
            "depth, and with the unit? What does a bottleneck save (arXiv:1512.03385, section 4.1 and Fig. 5), and "
            "does a 1x1 convolution cost a ninth of a 3x3?",
            figures=(figure,),
            tables=tuple(table for table, _ in written),
            notes=cost_text.notes(costs, layers, _BATCH.value),
        ),
        folder,
    )
    print("\n".join(markdown for _, markdown in written))
    print(f"figure: {folder / figure.file}")


def _networks() -> tuple[list[Any], tuple[int, int, int], int]:
    """The configs, unit by unit at each depth; the shape of an image; how many classes."""
    from experiments import cost_networks
    from experiments.runs import Case, plan
    from resnet_flax.data import datasets

    units = _UNITS.value or cost_networks.units_with_a_basic_form()
    depths = options.whole_numbers(_DEPTHS)
    cases = [Case(f"{unit}-basic-{depth}", label=f"{unit}-{depth}") for depth in depths for unit in units]
    configs = [run.config for run in plan(cases, options.whole_numbers(options.SEEDS)[:1])]
    data = configs[0].data
    image, classes = datasets.image_shape(data), datasets.classes(data)
    if image is None or classes is None:
        raise UserError(f"data.name={data.name!r}: the shape of its images is not known without it; choose a config "
                        f"of digits, cifar10 or cifar100")  # fmt: skip
    return configs, image, classes


def _measure(configs: Sequence[Any], image: tuple[int, int, int], classes: int) -> tuple[list[Any], dict[str, Any]]:
    import jax

    from experiments import cost_layers, cost_networks, timing
    from resnet_flax.config import name_of
    from resnet_flax.runtime.progress import Progress

    batch, rounds = _BATCH.value, _ROUNDS.value
    work = len(configs) * (1 + rounds) + len(cost_layers.STACKS) * (1 + 2 * rounds)
    with Progress(work, "measuring costs", "measurements") as progress:

        def done(name: str) -> None:
            progress.update(1, name)

        compiled = {}
        # Depth after depth of a unit: what else the machine does then does not fall on one depth alone.
        for c in sorted(configs, key=lambda c: c.model.unit):
            label = name_of(c.model)
            compiled[label] = cost_networks.training_call(c, image, classes, batch)
            done(f"compiled {label}")
        labels = [name_of(c.model) for c in configs]
        steps = {label: compiled[label][0] for label in labels}
        spreads = timing.by_turns(steps, rounds, _TURN_SECONDS.value, done)
        costs = [
            cost_networks.cost(c, image, classes, batch, compiled[label][1], spreads[label])
            for c, label in zip(configs, labels, strict=True)
        ]
        calls = cost_layers.calls(batch, jax.random.key(configs[0].seed), done)
        layers = timing.by_turns(calls, rounds, _TURN_SECONDS.value / 4, done)
    return costs, layers


def _what(image: tuple[int, int, int]) -> str:
    return f"images of {'x'.join(map(str, image))}, batch {_BATCH.value}"


if __name__ == "__main__":
    command.run(main)
