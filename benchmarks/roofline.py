"""Roofline of a training step: its arithmetic and memory traffic, as fractions of the machine's measured rates.

python -m benchmarks.roofline [--networks=cifar10:residual-20] [--batches=128] [--dtypes=float32] [--output=FILE.csv]

Multiply-adds are counted from the program: loops as often as they run, without the zeros between the positions of a
strided convolution's gradient. They are compared with a large matrix product of the same dtype. Bytes are those that
XLA counts for the unrolled program, and are compared with a large copy. (On a CPU, XLA counts the kernel gradient's own
loops as if they ran once, so there bytes are too few.) The fraction nearer to 1 tells what bounds the step, if either
does. Takes less than 2 minutes on 2 CPU cores.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from absl import flags

from benchmarks import options
from resnet_flax import command

_NETWORKS = flags.DEFINE_list("networks", ["cifar10:residual-20"], "FILE:NAME of each config.")
_BATCHES = flags.DEFINE_list("batches", ["128"], "Images per step.")
_DTYPES = flags.DEFINE_list("dtypes", ["float32"], "Types of the computation: float32, bfloat16.")
_STEPS_A_CALL = flags.DEFINE_integer(
    "steps_a_call", None, "Steps per call. Default: 4 on a CPU, 50 on a GPU.", lower_bound=1
)
_MATRIX = flags.DEFINE_integer("matrix", None, "Side of the matrices. Default: 2048 on a CPU, 8192 on a GPU.", 1)

_HEADER = (
    "network", "dtype", "batch", "ms a step", "GFLOP a step", "GFLOP/s", "a matrix product's", "% of that",
    "GB a step", "GB/s", "a copy's", "% of the copy's",
)  # fmt: skip


def main() -> None:
    """Measures the machine and each step in turns, and prints the table."""
    rows = []
    for dtype in options.choices(_DTYPES, ("float32", "bfloat16")):
        for name in _NETWORKS.value:
            rows += [_row(name, dtype, batch) for batch in options.numbers(_BATCHES)]
    options.print_and_write(_HEADER, rows)


def _row(name: str, dtype: str, batch: int) -> tuple[str, ...]:
    import jax

    from benchmarks import ours
    from resnet_flax.measurements.timing import time_in_turns
    from resnet_flax.runtime.progress import Progress

    gpu = jax.default_backend() == "gpu"
    count, side = _STEPS_A_CALL.value or (50 if gpu else 4), _MATRIX.value or (8192 if gpu else 2048)
    keys = {"model.dtype": dtype, "train.batch_size": batch, "train.bn_group": 0}
    training = ours.training(ours.load_config(name, **keys))
    flops, moved = 2 * multiply_adds(training), bytes_moved(ours.load_config(name, **keys, **{"model.unroll": True}))
    calls = {"step": partial(training.run, count), "matrix": _matrix_product(side, dtype), "copy": _copy(gpu)}
    with Progress(3 * options.ROUNDS.value, f"{name}, {dtype}, batch {batch}", "turns") as progress:
        seconds = time_in_turns(calls, options.ROUNDS.value, 1.0, lambda what: progress.update(1, what))
    step = seconds["step"].median / count
    matrix_rate = 2 * side**3 / seconds["matrix"].median
    copy_rate = _copied(gpu) / seconds["copy"].median
    return (
        name, dtype, str(batch), f"{1e3 * step:.4g}",
        *_against(flops / 1e9, step, matrix_rate / 1e9), *_against(moved / 1e9, step, copy_rate / 1e9),
    )  # fmt: skip


def _against(work: float, seconds: float, rate: float) -> tuple[str, ...]:
    """Formats the work of a step, its rate, the machine's rate, and the percentage of it."""
    return f"{work:.4g}", f"{work / seconds:.4g}", f"{rate:.4g}", f"{100 * work / seconds / rate:.1f}"


def multiply_adds(training: Any) -> int:
    """Counts the multiply-adds of one training step from its program."""
    import jax
    import numpy as np

    from benchmarks import ours
    from resnet_flax.analysis.counts import multiply_adds_of
    from resnet_flax.networks import build
    from resnet_flax.training import optimizer as optimizers
    from resnet_flax.training.step import training_step

    config = training.config
    shape, classes = ours.shape_and_classes(config)
    step = partial(
        training_step,
        network=build(config.model, classes),
        optimizer=optimizers.build(config.optimizer, lambda _: 0.1),
        ema=config.optimizer.ema,
    )
    images = jax.ShapeDtypeStruct((config.train.batch_size, *shape), np.float32)
    return multiply_adds_of(step, training.state, images, jax.ShapeDtypeStruct(images.shape[:1], np.int32))


def bytes_moved(config: Any) -> float:
    """Returns XLA's count of the bytes that a compiled step reads and writes; the body of a loop counts once."""
    from benchmarks import ours

    analysis = ours.training(config, images=config.train.batch_size).compile().cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["bytes accessed"]


def _matrix_product(side: int, dtype: str) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    a, b = (jax.random.normal(jax.random.key(i), (side, side), jnp.dtype(dtype)) for i in range(2))
    return partial(jax.jit(jnp.dot), a, b)


def _copied(gpu: bool) -> int:
    """Returns the bytes that a copy reads and writes, which are far more than caches hold."""
    return 2 * (4 << 30 if gpu else 256 << 20)


def _copy(gpu: bool) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    x = jnp.zeros(_copied(gpu) // 2 // 4, jnp.float32)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # in place, so that no time is spent on allocating memory

    def copy() -> Any:
        nonlocal x
        x = add(x)
        return x

    return copy


if __name__ == "__main__":
    command.run(main, uses_devices=True)
