"""The main function of ``python -m resnet_flax.preflight --target=...``: compiles for absent accelerators."""

import copy
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.data import datasets
from resnet_flax.errors import UserError
from resnet_flax.measurements.targets import Bound, Compiled, Target, TargetStep
from resnet_flax.training.devices import data_mesh

_GIB = 2**30
_SPARE = 0.85  # share of the memory that a smaller batch aims at: temporaries do not shrink quite in proportion
_TRIES = 3  # how often an option is applied before it is given up


def main(given: ConfigDict, target: Target) -> None:
    """Prints whether the run fits the target, what would make it fit, and the least time that it takes.

    Args:
      given: The unresolved config, so that derived values follow when a smaller batch is tried.

    Raises:
      UserError: The run does not fit, or no compiler for the target is installed.
    """
    config = configs.resolve(given)
    # A data set in memory takes memory of the devices. Photographs are sent a batch at a time, and need not be here.
    resident = config.data.pipeline == "resident"
    images = len(datasets.load(config.data).train) if resident else 0
    plural = "s" * (target.devices > 1)
    print(f"target: {target.text}, {target.devices} device{plural}; rates as published: {target.chip.source}")
    try:
        mesh = target.mesh()
    except UserError:
        step = TargetStep(config, target, data_mesh(), images)
        print("not compiled, so it is unknown whether the run fits and how many kernels a step starts")
        _say_bound(step, step.bound(None, step.work()))
        raise
    step = TargetStep(config, target, mesh, images)
    compiled = step.compile()
    _say_program(step, compiled)
    _say_bound(step, step.bound(compiled, step.work()))
    if not step.fits(compiled):
        _advise(given, target, step, compiled, images)


def _say_program(step: TargetStep, compiled: Compiled) -> None:
    """Prints the memory, kernels and traffic of the compiled step."""
    c, train, devices = step.config, step.config.train, step.target.devices
    print(
        f"compiled in {compiled.seconds:.0f} s: {configs.name_of(c.model)}, {c.model.dtype}, "
        f"{train.batch_size // devices} images a device: {_memory(step, compiled)}"
    )
    if (counts := compiled.counts) is None:
        return
    moved = counts.bytes / step.target.chip.memory_bandwidth
    print(
        f"a step: {counts.kernels:.0f} kernels ({counts.copies:.0f} copies, {counts.layout_changes:.0f} reorder), "
        f"{counts.library_calls:.0f} library calls, {counts.collectives:.0f} operations between devices on "
        f"{counts.collective_bytes / 1e6:,.1f} MB; as compiled, they read and write {counts.bytes / 1e9:.3g} GB, which "
        f"takes {1e3 * moved:.3g} ms without a cache"
    )


def _memory(step: TargetStep, compiled: Compiled) -> str:
    verdict = "fits" if step.fits(compiled) else "does not fit"
    needed, there = compiled.needed / _GIB, step.target.chip.memory / _GIB
    return f"{needed:.1f} GiB of the {there:.1f} GiB that a device has for a program: {verdict}"


def _say_bound(step: TargetStep, bound: Bound) -> None:
    """Prints the least time of a step and of the run."""
    train = step.config.train
    parts = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in bound.seconds.items())
    print(f"a step takes at least {1e3 * bound.least:.3g} ms; the limit is {bound.binds} ({parts})")
    hours, rate = train.steps * bound.least / 3600, train.batch_size / bound.least
    print(
        f"{train.steps:,} steps of {train.batch_size:,} images take at least {hours:.2f} hours, {rate:,.0f} images/s; "
        f"evaluations and checkpoints take additional time"
    )
    if step.config.data.pipeline == "stream":
        print("photographs must be decoded at that rate; preflight without --target measures the rate of this machine")
    print("these are lower bounds from published rates, not measurements: real steps take longer")


def _advise(given: ConfigDict, target: Target, step: TargetStep, compiled: Compiled, images: int) -> None:
    """Compiles changed configs that may fit, and names those that do.

    Raises:
      UserError: Always, because the given config does not fit.
    """
    fitting = []
    for option in (_recomputed, _in_parts, _smaller_batch):
        tried, needed = step, compiled.needed
        for _ in range(_TRIES):
            keys = option(tried.config, target.devices, _SPARE * target.chip.memory / needed)
            if keys is None:
                break
            changed = copy.deepcopy(given)
            changed.update_from_flattened_dict(keys)
            text = " ".join(f"--config.{key}={value}" for key, value in keys.items())
            try:
                tried = TargetStep(configs.resolve(changed), target, step.setup.mesh, images)
            except UserError as refusal:
                print(f"  {text}: {refusal}")
                break
            found = tried.compile()
            needed = found.needed
            print(f"  {text}: {_memory(tried, found)}", flush=True)
            if tried.fits(found):
                fitting.append(text)
                break
    would = f"; it fits with {', or with '.join(fitting)}" if fitting else "; choose more devices or a smaller network"
    raise UserError(f"--target={target.text}: {configs.name_of(step.config.model)} does not fit{would}")


# Each option takes a config that does not fit, the number of devices, and the available share of the memory that the
# config needs. It returns keys that save memory, or None if it has no further ones. The first two options change
# results by rounding only.


def _recomputed(config: ConfigDict, devices: int, share: float) -> dict[str, Any] | None:
    return {"model.remat": "unit"} if config.model.remat == "none" else None


def _in_parts(config: ConfigDict, devices: int, share: float) -> dict[str, Any] | None:
    parts = 2 * config.train.accumulate
    while config.train.accumulate / parts > share:
        parts *= 2
    return {"train.accumulate": parts}


def _smaller_batch(config: ConfigDict, devices: int, share: float) -> dict[str, Any] | None:
    group, batch = config.train.bn_group, config.train.batch_size
    unit = devices * (group if 0 < group < batch // devices else 1)
    smaller = int(batch * share) // unit * unit
    return {"train.batch_size": smaller} if 0 < smaller < batch else None
