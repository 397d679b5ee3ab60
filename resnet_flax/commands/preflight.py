"""The main function of ``python -m resnet_flax.preflight``."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.commands import preflight_target
from resnet_flax.data import archives, datasets, decoding, loaders, photograph_sets
from resnet_flax.data.datasets import Data
from resnet_flax.data.photographs import Photo
from resnet_flax.errors import UserError
from resnet_flax.measurements import targets
from resnet_flax.networks import build
from resnet_flax.paths import expanded
from resnet_flax.runs import resume
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runtime.progress import Progress, duration
from resnet_flax.training import fine_tuning
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.state import abstract_state

_SECONDS = 5.0  # duration of the speed measurement, which takes at least one batch
_THREADS = 8  # threads that look for unreadable images of a data set kept in memory
_GIB = 2**30


def main() -> None:
    """Checks the data, their speed and the disk, and raises the error that would keep a run from starting."""
    jax.config.update("jax_platforms", "cpu")  # the GPU may be busy with training
    if flags.FLAGS.target is not None:
        target = targets.parse(flags.FLAGS.target)
        targets.set_up()
        preflight_target.main(flags.FLAGS.config, target)
        return
    config = configs.resolve(flags.FLAGS.config)
    workdir = None if flags.FLAGS.workdir is None else expanded(flags.FLAGS.workdir)
    for line in _describe_locations(config):
        print(line)
    dataset = _load(config)
    print(f"used: {dataset.where}")
    splits = {name: split for name in ("train", "validation", "test") if len(split := getattr(dataset, name))}
    print(f"classes: {len(dataset.classes)}; " + ", ".join(f"{name} {len(s):,} images" for name, s in splits.items()))
    if dataset.note:
        print(dataset.note)
    _check_decoding(config, dataset, splits)
    _measure_speed(config, dataset)
    if workdir is not None:
        _check_disk(config, dataset, workdir)
    print("a run could start")


def _describe_locations(config: ConfigDict) -> Iterator[str]:
    """Yields a line for each location where the data set may be, with what was found there."""
    data = config.data
    if data.folder:
        yield f"data.folder={expanded(data.folder)}: class folders"
        return
    if data.name in ("digits", "folder"):
        yield f"data.name={data.name}"
        return
    folder = loaders.data_dir(data.data_dir)
    yield f"data.name={data.name}, looked for in {folder}:"
    for wanted in photograph_sets.look(data.name, folder):
        yield f"  {wanted.path} ({wanted.form}: {wanted.note}): {wanted.found or 'not there'}"
    if data.name in archives.ARCHIVES:
        found = archives.find(data.name, folder)
        names = " or ".join(archives.ARCHIVES[data.name])
        yield f"  {folder / names} (its authors' archive): {found or 'not there'}"


def _load(config: ConfigDict) -> Data:
    try:
        return datasets.load(config.data)
    except UserError as error:
        broken = _name_broken(config)
        if not broken:
            raise
        raise UserError(f"{broken} images cannot be read, named above; the first: {error}") from None


def _name_broken(config: ConfigDict) -> int:
    """Reads every image of a data set that cannot be loaded, prints the errors, and returns how many there are."""

    def read_error(photo: Photo) -> str | None:
        try:
            decoding.read_photo(photo)
        except UserError as error:
            return str(error)
        return None

    try:
        found = datasets.load(config.data, pipeline="stream")
    except UserError:
        return 0
    broken = 0
    for split in (found.train, found.validation, found.test):
        with Progress(len(split), "decoding", "images") as progress, ThreadPoolExecutor(_THREADS) as pool:
            for text in pool.map(read_error, split):
                progress.update(1)
                if text:
                    broken += 1
                    print(f"  {text}", flush=True)
    return broken


def _check_decoding(config: ConfigDict, dataset: Data, splits: dict[str, Any]) -> None:
    """Decodes a fixed random sample of the photographs, or all of them, and names those that cannot be read."""
    sizes = [len(split) for split in splits.values()]
    count = sum(sizes) if flags.FLAGS.all else min(flags.FLAGS.sample, sum(sizes))
    chosen = np.sort(np.random.RandomState(0).permutation(sum(sizes))[:count])
    decoded, broken, first = 0, 0, 0
    with Progress(count, "decoding", "images") as progress:
        for split, size in zip(splits.values(), sizes, strict=True):
            here = chosen[(chosen >= first) & (chosen < first + size)] - first
            first += size
            for done, errors in dataset.access.try_decoding(split.take(here)):
                for text in errors:
                    print(f"  {text}", flush=True)
                decoded, broken = decoded + done, broken + len(errors)
                progress.update(done)
    if decoded:
        print(f"decoded: {decoded:,} images, {broken:,} of them cannot be read")
    if broken and config.data.broken == "stop":
        raise UserError(
            f"{broken} of {decoded} images cannot be read, named above; repair or remove them, or set data.broken=skip"
        )


def _measure_speed(config: ConfigDict, dataset: Data) -> None:
    """Measures and prints the rate of training batches, if they are decoded during training."""
    steps, size = config.train.steps, config.train.batch_size
    measured = dataset.access.decoding_rate(dataset.train, size, _SECONDS)
    if measured is not None:
        rate, by = measured
        least = duration(steps * size / rate)
        print(f"speed: {rate:,.0f} images/s by {by}; {steps:,} steps of {size} images take at least {least}")


def _check_disk(config: ConfigDict, dataset: Data, workdir: Path) -> None:
    """Compares the free disk space with the size of the checkpoints.

    Raises:
      UserError: The directory cannot be written, holds another run, or has too little space.
    """
    config = fine_tuning.adopt(config, workdir, lambda line: print(line, file=sys.stderr))
    resume.check_config(RunDirectory(workdir), config)
    existing = next(folder for folder in (workdir.absolute(), *workdir.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {existing} cannot be written: {error.strerror}") from None
    # A new checkpoint is written before the oldest is deleted, and the best one is kept in addition to the last ones.
    keep = config.train.keep_checkpoints + 1 + bool(config.data.validation)
    size = _checkpoint_bytes(config, dataset)
    print(f"disk: {free / _GIB:.2f} GiB free in {existing}; at most {keep} checkpoints of {size / 1e6:,.1f} MB at once")
    if free < keep * size:
        raise UserError(
            f"--workdir={workdir}: {free / _GIB:.2f} GiB are free, and {keep} checkpoints take "
            f"{keep * size / _GIB:.2f} GiB; choose another disk, or lower train.keep_checkpoints"
        )


def _checkpoint_bytes(config: ConfigDict, dataset: Data) -> int:
    with jax.enable_x64("float64" in (config.model.dtype, config.model.param_dtype)):
        network = build(config.model, len(dataset.classes))
        optimizer = Recipe(config).optimizer()
        everywhere = replicated(data_mesh())
        state = abstract_state(network, optimizer, dataset.access.image_shape, everywhere, config.optimizer.ema)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
