"""The work of ``python -m resnet_flax.evaluate``."""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from resnet_flax import command, model
from resnet_flax import config as configs
from resnet_flax.analysis import scoring
from resnet_flax.data import datasets
from resnet_flax.data.access import whole_batches
from resnet_flax.data.datasets import Data
from resnet_flax.errors import Diverged, UserError
from resnet_flax.interchange import weights
from resnet_flax.interchange.class_names import imagenet_classes
from resnet_flax.interchange.files import Weights
from resnet_flax.model import Model
from resnet_flax.networks.finite import not_finite
from resnet_flax.paths import expanded
from resnet_flax.runs import rules
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runtime.progress import Progress
from resnet_flax.training import evaluation, metric_functions, parts
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.evaluation import Evaluation, of_log_probabilities
from resnet_flax.training.parts import check_precision, image_dtype
from resnet_flax.training.reestimation import reestimate

_NAMED = 10  # images at most that a message names


def main() -> None:
    """Evaluates a checkpoint or a file of weights, and prints the loss and the error."""
    if (flags.FLAGS.workdir is None) == (flags.FLAGS.weights is None):
        raise UserError("give either --workdir=FOLDER of a run or --weights=FILE")
    file = None
    if flags.FLAGS.weights:
        file = weights.read(expanded(flags.FLAGS.weights))
        config = weights.config_of(file, flags.FLAGS.config, command.set_keys("config"))
        if file.config is not None:
            _prepare_as(config, configs.from_json(file.config))
    else:
        config = _config(expanded(flags.FLAGS.workdir))
    _check_places(config)
    _evaluate(config, file)


def _evaluate(config: ConfigDict, file: "Weights | None") -> None:
    """Evaluates a network on the images of a split, each once, and prints its metrics.

    Args:
      file: the weights, or None for a run.
    """
    check_precision(config)
    data = datasets.load_for_evaluation(config.data)
    if flags.FLAGS.view not in data.access.views:
        raise UserError(f"--view={flags.FLAGS.view} is for photographs in a folder; name it in --config.data.folder")
    split = flags.FLAGS.split or ("all" if file is not None and file.config is None and not data.own_split else "test")
    if split == "all":
        data = datasets.load_for_evaluation({**config.data, "validation": 0, "subset": 0})
    names = ("train", "test") if split == "all" else (split,)
    if not any(len(getattr(data, name)) for name in names):
        there = [name for name in ("train", "validation", "test") if len(getattr(data, name))]
        raise UserError(f"--split={split}: {data.where} has {' and '.join(there)} images; choose one of them")
    net = _network(config, file, data)
    if data.where.startswith("class folders"):
        data = _in_order_of(net, data)
    _check_classes(net, data.classes, data.where)
    data = dataclasses.replace(data, access=data.access.as_trained(net.preprocessing))
    if flags.FLAGS.reestimate_bn:
        net = dataclasses.replace(net, variables=_reestimated(net, config, data))
    _check_finite(net.variables)
    splits = {name: found for name in names if len(found := getattr(data, name))}
    result = (_result if flags.FLAGS.view == "center" else _result_of_views)(net, config, data, splits)
    if not result.images:
        raise UserError(f"--split={split}: none of {sum(map(len, splits.values()))} {data.access.noun} can be read")
    taken = {"all": "all that are there", "test": "those for testing", "train": "those for training"}.get(split, split)
    if split == "test" and not data.own_split:
        taken = "a fifth of each class, set aside for testing"
    print(
        f"{result.images} {data.access.noun} ({data.where}), {taken}{_view_of(net, data)}"
        + f"; {data.note}" * bool(data.note)
    )
    print("\n".join(result.lines(split)))


def _network(config: ConfigDict, file: "Weights | None", data: Data) -> Model:
    """The network in the file, or of the run's checkpoint; says which."""
    if file is None:
        net = model.from_run(expanded(flags.FLAGS.workdir), flags.FLAGS.step)
        print(_checkpoint_of(net))
    else:
        default = None
        if data.access.fixed and file.preprocessing is None:
            normalization = data.access.normalization(config.data.normalization, data.train)
            default = parts.preprocessing(config, data, normalization)
        net = model.of_file(file, config, default)
        print(file.path)
    net.check_classifies()
    return net


def _result(net: Model, config: ConfigDict, data: Data, splits: dict[str, Any]) -> "Evaluation":
    """Evaluates the central crops, batch by batch on all devices."""
    mesh, count = data_mesh(), sum(map(len, splits.values()))
    size = min(config.train.eval_batch_size, count)
    supply = data.access.supply(splits, mesh, (size, size), config.seed, _note_broken)
    transform = data.access.transform(net.preprocessing.normalization, image_dtype(config))

    def blocks() -> Iterator[Any]:
        with Progress(count, "evaluating", "images") as progress:
            for name in splits:
                for arrays in supply.in_order(name):
                    yield arrays
                    progress.update(arrays["labels"].size)

    metrics = metric_functions.for_classes(net.network.classes)
    evaluate = evaluation.make_evaluate(net.network, supply.evaluation, transform, size, mesh, metrics)
    variables = jax.device_put(net.variables, replicated(mesh))
    result = evaluate(variables, blocks())
    if not math.isfinite(result.loss):
        bad = []
        for found in splits.values():
            with closing(data.access.in_order(found, size)) as batches:
                places = evaluation.not_finite(net.network, transform, variables, batches)
            bad += [found.name(int(place)) for place in places]
        listed = ", ".join(bad[:_NAMED]) + (", ..." if len(bad) > _NAMED else "")
        of = f"that of {len(bad)} images: {listed}" if bad else "each is finite, their sum is not"
        where = f"{' and '.join(splits)}: the loss of {result.images} images"
        raise Diverged(f"{where} is not finite: {of}")
    return result


def _result_of_views(net: Model, config: ConfigDict, data: Data, splits: dict[str, Any]) -> "Evaluation":
    """Evaluates the averages over several views of each photograph."""

    def unreadable(error: UserError) -> None:
        if config.data.broken == "stop":
            # Of data that are trained on in memory, the key is refused.
            raise UserError(f"{error}{'; data.broken=skip would pass it over' * (not configs.in_memory(config.data))}")
        print(f"{error}; passed over", file=sys.stderr)

    photographs = [photo for found in splits.values() for photo in found]
    labels = np.concatenate([found.labels for found in splits.values()])
    scores = scoring.log_probabilities(
        net.network, net.variables, net.preprocessing, photographs, flags.FLAGS.view, config.train.eval_batch_size,
        unreadable,
    )  # fmt: skip
    read = ~np.isnan(scores[:, 0])
    return of_log_probabilities(scores[read], labels[read])


def _view_of(net: Model, data: Data) -> str:
    """The view of the images that was evaluated, in words; empty where there is one alone."""
    if len(data.access.views) < 2:
        return ""
    size = net.preprocessing.image_size
    corners = f"10 crops of {size} pixels in the central square of {net.preprocessing.resize}"
    seen = {"center": f"the central crop of {size} pixels", "10crop": corners}
    return ", " + seen.get(flags.FLAGS.view, "fully convolutional, several scales")


def _note_broken(split: str, image: str, why: Callable[[], str]) -> None:
    print(f"{why()}; passed over", file=sys.stderr)


def _check_finite(variables: dict[str, Any]) -> None:
    """Ends the command where weights are not finite: their loss may be finite all the same, and means nothing."""
    if bad := not_finite(variables):
        raise Diverged(f"the network has weights that are not finite: {bad}; so there is no loss and no error")


def _checkpoint_of(net: Model) -> str:
    """Which checkpoint of which run is evaluated; of an old run, what it was trained by and is not evaluated by."""
    reasons = rules.old_rules(net.config, RunDirectory(expanded(flags.FLAGS.workdir)).rules())
    old = f"\nbegun under an old rule, and evaluated by today's: {'; '.join(reasons)}" if reasons else ""
    return f"{flags.FLAGS.workdir}: step {net.step} of {net.config.train.steps}{old}"


def _reestimated(net: Model, config: ConfigDict, data: Data) -> dict[str, Any]:
    """The network's variables with BN's statistics as averages over the training images."""
    if not len(data.train):
        raise UserError(f"--reestimate_bn: {data.where} has no images for training")
    if not net.variables.get("batch_stats"):
        raise UserError("--reestimate_bn: the network has no BN (model.norm='none')")
    batch = config.train.bn_group or config.train.batch_size
    print(f"BN statistics: averages over {len(data.train)} training images, {batch} at a time")
    transform = data.access.transform(net.preprocessing.normalization, image_dtype(config))
    with closing(whole_batches(data.access, data.access.mixed(data.train), batch)) as batches:
        found = reestimate(net.network, net.variables["params"], transform, batches)
    return {**net.variables, "batch_stats": found}


def _in_order_of(net: Model, found: Data) -> Data:
    """Class folders with labels in the order of the network's classes, where both have the same.

    Of ImageNet's classes, folders that are named 0 to 999 are the numbers (ImageNetV2 has them).
    """
    theirs, ours = found.classes, net.preprocessing.classes
    order = ours
    if ours == imagenet_classes() and set(theirs) == {str(i) for i in range(1000)}:
        order = tuple(map(str, range(1000)))
    if theirs == order or len(theirs) != len(order) or set(theirs) != set(order):
        return found
    places = np.array([order.index(name) for name in theirs], np.int32)
    splits = {
        name: dataclasses.replace(split, labels=places[split.labels])
        for name in ("train", "test", "validation")
        for split in [getattr(found, name)]
    }
    skipped = [part for part in found.note.split("; ") if "passed over" in part]
    note = "; ".join(["classes in the order of the network's", *skipped])
    return dataclasses.replace(found, classes=ours, note=note, **splits)


def _check_classes(net: Model, theirs: tuple[str, ...], where: str) -> None:
    """Refuses data whose classes are not the network's, or are in another order.

    ImageNet's folders are named by WordNet numbers, whose order is that of the names; so of a thousand classes only
    the number is compared.
    """
    ours = net.preprocessing.classes
    if theirs == ours:
        return
    if sorted(theirs) == sorted(ours):
        raise UserError(
            f"{where}: its classes are in another order ({', '.join(theirs[:3])}, ...) than the network's "
            f"({', '.join(ours[:3])}, ...)"
        )
    if len(theirs) == len(ours) and (len(ours) == 1000 or ours[0] == "class 0"):
        return
    only = [f"{', '.join(sorted(set(a) - set(b))[:3])}{' ...' if len(set(a) - set(b)) > 3 else ''}"
            for a, b in ((theirs, ours), (ours, theirs))]  # fmt: skip
    raise UserError(
        f"{where}: its {len(theirs)} classes are not the {len(ours)} of the network: only the data have "
        f"{only[0] or 'none'}; only the network has {only[1] or 'none'}"
    )


def _check_places(config: ConfigDict) -> None:
    """Refuses images that have moved since they were trained on, and says how to name where they lie now."""
    for key in ("data.folder", "data.data_dir"):
        there = config.data[key.removeprefix("data.")]
        if flags.FLAGS.config is None and there and not expanded(there).is_dir():
            units = config.model.stage_units
            same = f" --config.model.stage_units={units}" if units else ""
            raise UserError(
                f"{key}={there}, where the images lay in training: there is no such folder; name where they lie now, "
                f"with a config of the same network: --config=FILE:{configs.name_of(config.model)}{same} "
                f"--config.{key}=FOLDER"
            )


def _config(workdir: Path) -> ConfigDict:
    run = RunDirectory(workdir)
    trained = run.existing_config()
    if run.rules() < 2 and not trained.data.folder and configs.in_memory(trained.data):
        trained.data.resize = 0  # which was ignored then
    if flags.FLAGS.config is None:
        return configs.resolve(trained)
    given = configs.with_network_of(trained, flags.FLAGS.config, command.set_keys("config"), f"--workdir={workdir}")
    if given.data.name == trained.data.name:
        # What set images aside and normalised pixels in training holds here, too; only the place may be another.
        for key in configs.flatten(trained.data):
            if f"data.{key}" not in configs.RESUME_MAY_CHANGE:
                given.data[key] = trained.data[key]
    else:
        _prepare_as(given, trained)
    return given


def _prepare_as(given: ConfigDict, trained: ConfigDict) -> None:
    """Brings other data to the size of the trained network's images, unless the command line sets another."""
    for key in ("image_size", "resize", "interpolation"):
        if f"data.{key}" not in command.set_keys("config"):
            given.data[key] = trained.data[key]
