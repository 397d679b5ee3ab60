"""Seconds until a training step is ready, by depth: scanned and unrolled, with and without the compilation cache.

python -m benchmarks.compile_time [--depths=20,56,110,1202] [--unrolled=20,56,110] [--rounds=3] [--output=FILE.csv]

Measures tracing, initialising and compiling for the CIFAR-10 recipe at batch 128. "scanned" is the default; it unrolls
stages of few units (ResNet-20), too. "cached" reads the compiled programs from jax's persistent cache. Takes about 6
minutes on 2 CPU cores.
"""

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from absl import flags

from benchmarks import options
from resnet_flax import command

_DEPTHS = flags.DEFINE_list("depths", ["20", "56", "110", "1202"], "Depths of the scanned networks.")
_UNROLLED = flags.DEFINE_list("unrolled", ["20", "56", "110"], "Depths of the unrolled networks.")

_HEADER = ("network", "program", "cache", "seconds", "least", "most", "processor seconds")


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Time until the first step can start: wall-clock time, and processor time of all cores."""

    clock: float
    processor: float


def measure(depth: int, unroll: bool = False) -> Seconds:
    """Builds config, network, parameters and compiled training step: all that a run waits for, except its data.

    Clears jax's caches in memory first. The persistent cache is used if it is set.
    """
    import jax

    from benchmarks import ours

    jax.clear_caches()
    start, processor = time.perf_counter(), time.process_time()
    config = ours.load_config(f"cifar10:residual-{depth}", **{"model.unroll": unroll})
    training = ours.training(config, images=config.train.batch_size)
    jax.block_until_ready(training.state)
    training.compile()
    return Seconds(time.perf_counter() - start, time.process_time() - processor)


@contextmanager
def cache_in(folder: str | None) -> Iterator[None]:
    """Lets jax use a persistent cache in the folder, for all programs; None disables the cache."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    keys = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache")
    before = {key: getattr(jax.config, key) for key in keys}
    compilation_cache.reset_cache()
    try:
        for key, value in zip(keys, (folder, 0.0, folder is not None), strict=True):
            jax.config.update(key, value)
        yield
    finally:
        for key, value in before.items():
            jax.config.update(key, value)
        compilation_cache.reset_cache()


def main() -> None:
    """Measures all cases in turns, and prints the table."""
    from statistics import median

    from resnet_flax.runtime.progress import Progress

    cases = [(depth, False) for depth in options.numbers(_DEPTHS)]
    cases += [(depth, True) for depth in (options.numbers(_UNROLLED) if _UNROLLED.value else [])]
    measured: dict[tuple[int, bool, bool], list[Seconds]] = {}
    with Progress(2 * len(cases) * options.ROUNDS.value, "compiling", "programs") as progress:
        for _ in range(options.ROUNDS.value):
            for depth, unroll in cases:
                with tempfile.TemporaryDirectory() as folder:
                    with cache_in(None):
                        measured.setdefault((depth, unroll, False), []).append(measure(depth, unroll))
                    progress.update(1, f"ResNet-{depth}")
                    with cache_in(folder):
                        measure(depth, unroll)  # fills the cache
                        measured.setdefault((depth, unroll, True), []).append(measure(depth, unroll))
                    progress.update(1, f"ResNet-{depth}, cached")
    shallow = {cached: median(s.clock for s in measured[(cases[0][0], False, cached)]) for cached in (False, True)}
    rows = []
    for (depth, unroll, cached), all_seconds in measured.items():
        clock = [s.clock for s in all_seconds]
        times = [f"{value:.3g}" for value in (median(clock), min(clock), max(clock))]
        rows.append(
            (f"ResNet-{depth}", "unrolled" if unroll else "scanned", "cached" if cached else "none", *times,
             f"{median(s.processor for s in all_seconds):.3g}", f"{median(clock) / shallow[cached]:.3g}")
        )  # fmt: skip
    options.print_and_write((*_HEADER, f"times ResNet-{cases[0][0]}'s scanned"), rows)


if __name__ == "__main__":
    command.run(main)
