"""Evaluates a network on the images of a config: loss, error and other metrics. Each image counts once."""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from resnet_flax import config as configs
from resnet_flax.analysis import scoring
from resnet_flax.data.access import whole_batches
from resnet_flax.data.datasets import Data
from resnet_flax.data.layouts import replicate
from resnet_flax.errors import Diverged, UserError
from resnet_flax.evaluation_set import EvaluationSet
from resnet_flax.interchange.class_names import imagenet_classes, in_imagenets_order
from resnet_flax.model import Model
from resnet_flax.networks.finite import non_finite_layers
from resnet_flax.runtime.progress import Progress
from resnet_flax.training import evaluation, metric_functions
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.evaluation import Evaluation, evaluate_log_probabilities
from resnet_flax.training.reestimation import reestimate
from resnet_flax.training.setup import image_dtype

_MOST_NAMED = 10  # the most images that a message names


def evaluate(
    net: Model, chosen: EvaluationSet, reestimate_bn: bool = False, say: Callable[[str], None] = lambda line: None
) -> Evaluation:
    """Evaluates a network on the chosen images, on all devices.

    Args:
      reestimate_bn: Whether to replace BN's running statistics by averages over the training images.
      say: Receives lines for the user, such as which images were evaluated.

    Raises:
      UserError: The images have other classes than the network, or none of them can be read.
      Diverged: A weight or the loss is not finite.
    """
    net.check_classifies()
    net = net.for_images(chosen.config.data)
    names = [n for n in configs.names_in(net.config.train.metrics) if n not in metric_functions.choices()]
    if names:
        where = configs.where_defined(net.config) or "--module=FILE if you define it"
        print(f"not measured here: {', '.join(names)}, which train.metrics names; {where}", file=sys.stderr)
    if chosen.data.from_folders:
        chosen = dataclasses.replace(chosen, data=_align_classes(net, chosen.data))
    _check_classes(net, chosen.data.classes, chosen.data.where)
    data = dataclasses.replace(chosen.data, access=chosen.data.access.as_trained(net.preprocessing))
    chosen = dataclasses.replace(chosen, data=data)
    if reestimate_bn:
        net = dataclasses.replace(net, variables=_reestimate_bn(net, chosen, say))
    _check_finite(net.variables)
    result = (_evaluate_crops if chosen.view == "center" else _evaluate_views)(net, chosen)
    if not result.images:
        count = sum(map(len, chosen.splits.values()))
        raise UserError(f"--split={chosen.split}: none of {count} {data.access.noun} can be read")
    say(chosen.description(net, result.images))
    return result


def _evaluate_crops(net: Model, chosen: EvaluationSet) -> Evaluation:
    """Evaluates the centre crops, batch by batch on all devices."""
    config, data, splits = chosen.config, chosen.data, chosen.splits
    mesh, count = data_mesh(), sum(map(len, splits.values()))
    size = min(config.train.eval_batch_size, count)
    supply = data.access.supply(splits, mesh, (size, size), config.seed, _print_broken)
    transform = data.access.transform(net.preprocessing.normalization, image_dtype(config))

    def blocks() -> Iterator[Any]:
        with Progress(count, "evaluating", "images") as progress:
            for name in splits:
                for arrays in supply.evaluation_arrays(name):
                    yield arrays
                    progress.update(arrays["labels"].size)

    metrics = metric_functions.for_classes(net.network.classes)
    evaluate = evaluation.make_evaluate(net.network, supply.evaluation, transform, size, mesh, metrics)
    variables = replicate(net.variables, replicated(mesh))
    result = evaluate(variables, blocks())
    if not math.isfinite(result.loss):
        bad = []
        for found in splits.values():
            with closing(data.access.ordered_batches(found, size)) as batches:
                places = evaluation.nonfinite_images(net.network, transform, variables, batches)
            bad += [found.name(int(place)) for place in places]
        listed = ", ".join(bad[:_MOST_NAMED]) + (", ..." if len(bad) > _MOST_NAMED else "")
        of = f"that of {len(bad)} images: {listed}" if bad else "each image's is finite, but their sum is not"
        where = f"{' and '.join(splits)}: the loss of {result.images} images"
        raise Diverged(f"{where} is not finite: {of}")
    return result


def _evaluate_views(net: Model, chosen: EvaluationSet) -> Evaluation:
    """Evaluates the probabilities averaged over several crops of each photograph.

    Raises:
      UserError: A registered metric reads the images, which are not kept; raised before the first photograph.
    """
    evaluate_log_probabilities(np.zeros((1, net.network.classes)), np.zeros(1, np.int32))
    config, splits = chosen.config, chosen.splits
    photographs = [photo for found in splits.values() for photo in found]
    labels = np.concatenate([found.labels for found in splits.values()])
    scores, kept = np.empty((len(photographs), net.network.classes)), list[int]()
    what = net.network, net.variables, net.preprocessing, photographs, chosen.view, config.train.eval_batch_size
    with closing(scoring.stream_log_probabilities(*what)) as rows:
        for row, label in zip(rows, labels, strict=True):
            if not isinstance(row, UserError):
                scores[len(kept)] = row
                kept.append(label)
            elif config.data.broken == "stop":
                # The hint is left out for data in memory, where the config refuses data.broken=skip.
                hint = "" if configs.in_memory(config.data) else "; set data.broken=skip to continue without it"
                raise UserError(f"{row}{hint}")
            else:
                print(f"{row}; skipped", file=sys.stderr)
    return evaluate_log_probabilities(scores[: len(kept)], np.array(kept, labels.dtype))


def _print_broken(split: str, image: str, why: Callable[[], str]) -> None:
    print(f"{why()}; skipped", file=sys.stderr)


def _check_finite(variables: dict[str, Any]) -> None:
    """Refuses weights that are not finite: the loss may be finite all the same, but would be meaningless."""
    if bad := non_finite_layers(variables):
        raise Diverged(f"the network has weights that are not finite: {bad}; its loss and error are not computed")


def _reestimate_bn(net: Model, chosen: EvaluationSet, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the network's variables with BN's statistics averaged over the training images."""
    config, data, train = chosen.config, chosen.data, chosen.train
    if not len(train):
        raise UserError(f"--reestimate_bn: {data.where} has no images for training")
    if not net.variables.get("batch_stats"):
        raise UserError("--reestimate_bn: the network has no BN (model.norm='none')")
    batch = config.train.bn_group or config.train.batch_size
    say(f"BN statistics: averages over {len(train)} training images, {batch} at a time")
    transform = data.access.transform(net.preprocessing.normalization, image_dtype(config))
    with closing(whole_batches(data.access, data.access.mix_classes(train), batch)) as batches:
        found = reestimate(net.network, net.variables["params"], transform, batches)
    return {**net.variables, "batch_stats": found}


def _align_classes(net: Model, found: Data) -> Data:
    """Renumbers the labels of class folders in the order of the network's classes, if both have the same classes.

    For a network of ImageNet's classes, folders named 0 to 999 are class numbers, as in ImageNetV2. If the order of the
    folders' names is a guess, the note says so.
    """
    theirs, ours = found.classes, net.preprocessing.classes
    order = ours
    if ours == imagenet_classes():
        order = in_imagenets_order(theirs) or ours
        if len(theirs) == len(ours) and set(theirs) != set(order):
            guess = (
                f"its classes are taken for ImageNet's in this order: {', '.join(theirs[:3])}, ...; name the folders "
                f"by WordNet numbers (n01440764) or 0 to 999 to be certain"
            )
            return dataclasses.replace(found, note="; ".join(filter(None, [guess, found.note])))
    if theirs == order or len(theirs) != len(order) or set(theirs) != set(order):
        return found
    places = np.array([order.index(name) for name in theirs], np.int32)
    splits = {
        name: dataclasses.replace(split, labels=places[split.labels])
        for name in ("train", "test", "validation")
        for split in [getattr(found, name)]
    }
    note = "; ".join(filter(None, ["classes in the order of the network's", found.skipped]))
    return dataclasses.replace(found, classes=ours, note=note, **splits)


def _check_classes(net: Model, theirs: tuple[str, ...], where: str) -> None:
    """Refuses data whose classes differ from the network's, or come in another order.

    ImageNet's classes have several names. For a network of them, only the number of other names is compared, since a
    file of weights does not tell whose classes its 1,000 outputs are.
    """
    ours = net.preprocessing.classes
    if _with_imagenets_names(theirs) == _with_imagenets_names(ours):
        return
    if sorted(theirs) == sorted(ours):
        raise UserError(
            f"{where}: its classes are in another order ({', '.join(theirs[:3])}, ...) than the network's "
            f"({', '.join(ours[:3])}, ...)"
        )
    if len(theirs) == len(ours) and (ours == imagenet_classes() or ours[0] == "class 0"):
        return
    only = [f"{', '.join(sorted(set(a) - set(b))[:3])}{' ...' if len(set(a) - set(b)) > 3 else ''}"
            for a, b in ((theirs, ours), (ours, theirs))]  # fmt: skip
    raise UserError(
        f"{where}: its {len(theirs)} classes are not the network's {len(ours)}: only the data have "
        f"{only[0] or 'none'}; only the network has {only[1] or 'none'}"
    )


def _with_imagenets_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    return imagenet_classes() if in_imagenets_order(classes) == classes else classes
