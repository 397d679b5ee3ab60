"""Images per second that the input pipeline delivers, beside those that a training step consumes.

python -m benchmarks.input [--network=cifar10:residual-20] [--batches=128] [--rounds=5] [--output=FILE.csv]

"resident" is the pipeline of data sets that are kept on the device: order, gather, mean, crop and flip, compiled
without the network. "start" loads CIFAR-10 from its cache to the device and computes its mean image, if data.data_dir
or TFDS_DATA_DIR contains CIFAR-10. Takes less than a minute on 2 CPU cores.
"""

import sys
import time

from absl import flags

from benchmarks import options
from resnet_flax import command
from resnet_flax.errors import UserError

_NETWORK = flags.DEFINE_string("network", "cifar10:residual-20", "FILE:NAME of the config whose step is measured.")
_BATCHES = flags.DEFINE_list("batches", ["128"], "Images per step.")

_HEADER = ("what", "batch", "images/s", "least", "most", "times what the step eats")


def main() -> None:
    """Measures the input pipeline and the step in turns, and prints the table."""
    from resnet_flax.measurements.timing import time_in_turns

    rows = []
    for batch in options.numbers(_BATCHES):
        calls = _calls(batch)
        spreads = time_in_turns(calls, options.ROUNDS.value, 1.0, lambda _: None)
        for name, spread in spreads.items():
            images = [batch / seconds for seconds in (spread.median, spread.most, spread.least)]
            times = spreads["step"].over(spread).text()
            rows.append((name, str(batch), *(f"{i:.4g}" for i in images), times))
    rows += _start()
    options.print_and_write(_HEADER, rows)


def _calls(batch: int) -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import ours

    config = ours.load_config(_NETWORK.value, **{"train.batch_size": batch, "train.bn_group": 0})
    training = ours.training(config)
    layout, transform, seed = training.layout, training.transform, config.seed
    step = np.int32(0)

    @jax.jit
    def deliver(data: dict, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        place = jnp.arange(batch, dtype=jnp.uint32)
        found = layout.batch_at(data, seed, step, place) | {"place": place}
        return transform.train(found, seed, step), found["labels"]

    def resident() -> object:
        nonlocal step
        step += np.int32(1)
        return deliver(training.data, step)

    return {"step": lambda: training.run(1), "resident": resident}


def _start() -> list[tuple[str, ...]]:
    """Returns a row for loading CIFAR-10 from its cache to the device; no row if CIFAR-10 is not available."""
    import jax

    from resnet_flax import config as configs
    from resnet_flax.data import datasets, layouts, pixels
    from resnet_flax.training.devices import data_mesh, replicated

    data = dict(configs.base().data) | {"download": False}
    try:
        datasets.load(data)  # decodes the images and fills the cache the first time
        start = time.perf_counter()
        images = datasets.load(data)
        pixels.normalization(data["normalization"], images.train)
        splits = [layouts.put(split, replicated(data_mesh())) for split in (images.train, images.test)]
        jax.block_until_ready(splits)
    except UserError as error:
        print(f"start is not measured: {error}", file=sys.stderr)
        return []
    seconds = time.perf_counter() - start
    count = len(images.train) + len(images.test)
    return [(f"start: from the cache to the device in {seconds:.2f} s", "-", f"{count / seconds:.4g}", "-", "-", "-")]


if __name__ == "__main__":
    command.run(main, uses_devices=True)
