r"""Loss and error of a trained network:

python -m resnet_flax.evaluate --workdir=runs/r20 [--split=test] [--step=800]
python -m resnet_flax.evaluate --config=configs/cifar10.py:residual-20 --weights=resnet20.th
python -m resnet_flax.evaluate --config=configs/imagenet.py:residual-50 --weights=resnet50.pth \
    --config.data.folder=FOLDER [--view=10crop]

Of a run's newest checkpoint, or with --step=best of the one with the least validation error; --config is then only
needed to evaluate with other data than the run's own, or to say where it lies: --config=FILE:NAME
--config.data.data_dir=... Or of a file of weights of PyTorch, Keras or
safetensors, in any of the forms in docs/weights.md (neither PyTorch nor Keras is needed, and nothing in the file is
run); FILE#KEY names a part of a checkpoint. The last line is such as
`test error 8.27% (827 of 10000), loss 0.3012`. Weights or a loss that are not finite end the command with exit code 4
and a line that says in which layers, or of which images.

Photographs in a folder are looked at in one --view (arXiv:1512.03385, section 3.4): the center crop; 10crop, averaged,
whose corners are those of the central square (torchvision's TenCrop takes them from the whole rectangle); or
multiscale, fully convolutional at several scales, averaged.

--split=all evaluates every image that is there. With weights that others made, it is the default where a folder has no
split of its own; a run, and a file that export wrote, keep the split of their training. A folder with nothing but val,
or ImageNet's val tar and development kit, will do.
"""

import math
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from resnet_flax import command
from resnet_flax import config as configs
from resnet_flax.errors import Diverged, UserError
from resnet_flax.paths import expanded

if TYPE_CHECKING:
    from resnet_flax.data.photographs import PhotoDataset
    from resnet_flax.interchange.files import Weights
    from resnet_flax.model import Model
    from resnet_flax.training.parts import Parts

_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH; by default the run's own config.json.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File of weights, in place of a run.")
_SPLIT = flags.DEFINE_enum(
    "split", None, ("test", "validation", "train", "all"),
    "Images to evaluate on: by default those for testing; all, where others' weights meet photographs without a split.",
)  # fmt: skip
_VIEW = flags.DEFINE_enum("view", "center", ("center", "10crop", "multiscale"), "How photographs are looked at.")
_REESTIMATE = flags.DEFINE_bool(
    "reestimate_bn", False, "Replace BN's running statistics by their average over the training images."
)
_NAMED = 10  # images at most that a message names
_STEP = flags.DEFINE_string("step", "latest", "Checkpoint: a step, 'latest', or 'best' (by validation error).")


def main() -> None:
    """Evaluates a checkpoint or a file of weights, and prints the loss and the error."""
    if (_WORKDIR.value is None) == (_WEIGHTS.value is None):
        raise UserError("give either --workdir=FOLDER of a run or --weights=FILE")
    file = None
    if _WEIGHTS.value:
        from resnet_flax.interchange import weights

        file = weights.read(expanded(_WEIGHTS.value))
        config = weights.config_of(file, _CONFIG.value, command.set_keys("config"))
        if file.config is not None:
            _prepare_as(config, configs.from_json(file.config))
    else:
        config = _config(expanded(_WORKDIR.value))
    _check_places(config)
    if config.data.folder or config.data.pipeline == "stream":
        _evaluate_photographs(config, file)
        return
    if _VIEW.value != "center":
        raise UserError(f"--view={_VIEW.value} is for photographs in a folder; name it in --config.data.folder")
    _evaluate_data_set(config, file)


def _evaluate_data_set(config: ConfigDict, file: "Weights | None") -> None:
    """Of images that lie on the device: each once, whole.

    Args:
      file: the weights, or None for a run.
    """
    import dataclasses

    import jax
    import numpy as np

    from resnet_flax import model
    from resnet_flax.data import layouts, sources
    from resnet_flax.data.images import Images
    from resnet_flax.interchange import weights
    from resnet_flax.networks import on_one_device
    from resnet_flax.training import evaluation
    from resnet_flax.training.devices import replicated
    from resnet_flax.training.parts import prepare

    parts = prepare(config)
    split = _SPLIT.value or "test"
    if split == "all":
        whole = sources.load({**config.data, "validation": 0, "subset": 0})
        images = Images(*(np.concatenate([getattr(part, name) for part in (whole.train, whole.test)])
                          for name in ("images", "labels")))  # fmt: skip
        print(f"{len(images)} images, all that are there")
    else:
        images = getattr(parts.dataset, split)
    if not len(images):
        raise UserError(f"--split={split}: the run set no images aside (data.validation=0); choose test or train")
    everywhere = replicated(parts.mesh)
    if file is not None and file.preprocessing is None:  # somebody else's, whose images are prepared as the config says
        variables = weights.variables(file, on_one_device(parts.network), parts.image_shape, config.model)
        print(file.path)
    else:
        net = model.of_file(file, config) if file else model.from_run(expanded(_WORKDIR.value), _STEP.value)
        print(file.path if file else _checkpoint_of(net))
        net.check_classifies()
        _check_classes(net, parts.preprocessing.classes, f"data.name={config.data.name}")
        _check_shape(net, parts.image_shape, parts.preprocessing.resize)
        parts = dataclasses.replace(parts, normalization=net.preprocessing.normalization)
        variables = net.variables
    if parts.dataset.note:
        print(parts.dataset.note)
    if _REESTIMATE.value:
        variables = _reestimated(variables, parts)
    variables = jax.device_put(variables, everywhere)
    _check_finite(variables)
    layout = layouts.in_order(layouts.rounded_up(config.train.eval_batch_size, parts.mesh))
    evaluate = evaluation.make_evaluate(
        parts.network, layout, parts.transform, config.train.eval_batch_size, parts.mesh
    )
    result = evaluate(variables, [layouts.put(images, everywhere)])
    if not math.isfinite(result.loss):
        batch = config.train.eval_batch_size
        bad = evaluation.not_finite(parts.network, parts.transform, variables, images, batch)
        listed = ", ".join(map(str, bad[:_NAMED])) + (", ..." if len(bad) > _NAMED else "")
        of = f"that of {len(bad)} images: {listed} (counted from 0)" if len(bad) else "each is finite, their sum is not"
        raise Diverged(f"{split}: the loss of {len(images)} images is not finite: {of}")
    print(f"{split} {result}")


def _check_finite(variables: dict[str, Any]) -> None:
    """Ends the command where weights are not finite: their loss may be finite all the same, and means nothing."""
    from resnet_flax.networks.finite import not_finite

    if bad := not_finite(variables):
        raise Diverged(f"the network has weights that are not finite: {bad}; so there is no loss and no error")


def _checkpoint_of(net: "Model") -> str:
    """Which checkpoint of which run is evaluated; of an old run, what it was trained by and is not evaluated by."""
    from resnet_flax.training import rules
    from resnet_flax.training import workdir as folders

    reasons = rules.old_rules(net.config, folders.rules_of(expanded(_WORKDIR.value)))
    old = f"\nbegun under an old rule, and evaluated by today's: {'; '.join(reasons)}" if reasons else ""
    return f"{_WORKDIR.value}: step {net.step} of {net.config.train.steps}{old}"


def _check_shape(net: "Model", shape: tuple[int, int, int], resize: int) -> None:
    """Refuses images of another size, or brought to another size before the crop, than the network was trained on."""
    seen = net.preprocessing
    if (seen.image_shape, seen.resize) != (shape, resize):
        (h, w, c), (height, width, channels) = shape, seen.image_shape
        raise UserError(
            f"--config: its images are {h}x{w}x{c}, out of {resize} pixels, and the network was trained on "
            f"{height}x{width}x{channels}, out of {seen.resize}; set data.image_size and data.resize"
        )


def _evaluate_photographs(config: ConfigDict, file: "Weights | None") -> None:
    """Of photographs on disk: decoded from their files, in the views asked for.

    Args:
      file: the weights, or None for a run.
    """
    import dataclasses

    import numpy as np

    from resnet_flax import model
    from resnet_flax.analysis import scoring
    from resnet_flax.data import sources
    from resnet_flax.training.evaluation import of_log_probabilities
    from resnet_flax.training.parts import prepare

    found = sources.load_photographs(config.data, testing=True)
    theirs = file is not None and file.config is None
    split = _SPLIT.value or ("all" if theirs and not found.own_split else "test")
    if split == "all":
        found = sources.load_photographs({**config.data, "validation": 0, "subset": 0}, testing=True)
    names = ("train", "test") if split == "all" else (split,)
    if not any(len(getattr(found, name)) for name in names):
        there = [name for name in ("train", "validation", "test") if len(getattr(found, name))]
        raise UserError(f"--split={split}: {found.where} has {' and '.join(there)} images; choose one of them")
    if file is not None:
        net = model.of_file(file, config)
        print(file.path)
    else:
        net = model.from_run(expanded(_WORKDIR.value), _STEP.value)
        print(_checkpoint_of(net))
    net.check_classifies()
    if found.where.startswith("class folders"):
        found = _in_order_of(net, found)
    photographs = [photo for name in names for photo in getattr(found, name)]
    labels = np.concatenate([getattr(found, name).labels for name in names])
    _check_classes(net, found.classes, found.where)
    variables = net.variables
    if _REESTIMATE.value and not len(found.train):
        raise UserError(f"--reestimate_bn: {found.where} has no images for training")
    if _REESTIMATE.value:
        seen = net.preprocessing
        config.data.update(image_size=seen.image_size, resize=seen.resize, interpolation=seen.interpolation)
        parts = dataclasses.replace(prepare(config, seen.normalization), normalization=seen.normalization)
        variables = _reestimated(variables, parts, seen.channels)
    _check_finite(variables)

    def unreadable(error: UserError) -> None:
        if config.data.broken == "stop":
            # Of data that are trained on in memory, the key is refused.
            raise UserError(f"{error}{'; data.broken=skip would pass it over' * (config.data.pipeline == 'stream')}")
        print(f"{error}; passed over", file=sys.stderr)

    scores = scoring.log_probabilities(
        net.network, variables, net.preprocessing, photographs, _VIEW.value, config.train.eval_batch_size, unreadable
    )
    read = ~np.isnan(scores[:, 0])
    if not read.any():
        raise UserError(f"--split={split}: none of {len(photographs)} photographs can be read")
    scores, labels, size = scores[read], labels[read], net.preprocessing.image_size
    corners = f"10 crops of {size} pixels in the central square of {net.preprocessing.resize}"
    seen = {"center": f"the central crop of {size} pixels", "10crop": corners}
    view = seen.get(_VIEW.value, "fully convolutional, several scales")
    taken = {"all": "all that are there", "test": "those for testing", "train": "those for training"}.get(split, split)
    if split == "test" and not found.own_split:
        taken = "a fifth of each class, set aside for testing"
    print(f"{len(labels)} photographs ({found.where}), {taken}, {view}" + f"; {found.note}" * bool(found.note))
    if len(found.classes) > 5:
        wrong = scoring.top_k_error(scores, labels, 5)
        print(f"{split} top-5 error {wrong / len(labels):.2%} ({wrong} of {len(labels)})")
    print(f"{split} {of_log_probabilities(scores, labels)}")


def _bn_batch(variables: dict[str, Any], config: ConfigDict, images: int) -> int:
    """How many images a BN normalises together in re-estimation; says so."""
    if not variables.get("batch_stats"):
        raise UserError("--reestimate_bn: the network has no BN (model.norm='none')")
    batch = config.train.bn_group or config.train.batch_size
    print(f"BN statistics: averages over {images} training images, {batch} at a time")
    return batch


def _reestimated(variables: dict[str, Any], parts: "Parts", channels: int = 3) -> dict[str, Any]:
    """The variables with BN's statistics as averages over the training images.

    Args:
      channels: of photographs that are decoded for it.
    """
    import dataclasses

    import numpy as np

    from resnet_flax.data.supplies import whole_batches
    from resnet_flax.training.reestimation import reestimate

    train = parts.dataset.train
    batch = _bn_batch(variables, parts.config, len(train))
    if parts.config.data.folder or parts.config.data.pipeline == "stream":
        # Photographs lie class by class, and a BN is to see all classes: a random order, always the same.
        train = train.take(np.random.RandomState(0).permutation(len(train)))
    with closing(whole_batches(train, batch, dataclasses.replace(parts.pipeline, channels=channels))) as batches:
        found = reestimate(parts.network, variables["params"], parts.transform, batches)
    return {**variables, "batch_stats": found}


def _in_order_of(net: "Model", found: "PhotoDataset") -> "PhotoDataset":
    """Class folders with labels in the order of the network's classes, where both have the same.

    Of ImageNet's classes, folders that are named 0 to 999 are the numbers (ImageNetV2 has them).
    """
    import dataclasses

    import numpy as np

    from resnet_flax.interchange.class_names import imagenet_classes

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


def _check_classes(net: "Model", theirs: tuple[str, ...], where: str) -> None:
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
        f"{where}: its {len(theirs)} classes are not the {len(ours)} of the network: only the "
        f"{'data have' if where.startswith('data.name') else 'folder has'} {only[0] or 'none'}; only the network has "
        f"{only[1] or 'none'}"
    )


def _check_places(config: ConfigDict) -> None:
    """Refuses images that have moved since they were trained on, and says how to name where they lie now."""
    for key in ("data.folder", "data.data_dir"):
        there = config.data[key.removeprefix("data.")]
        if _CONFIG.value is None and there and not expanded(there).is_dir():
            units = config.model.stage_units
            same = f" --config.model.stage_units={units}" if units else ""
            raise UserError(
                f"{key}={there}, where the images lay in training: there is no such folder; name where they lie now, "
                f"with a config of the same network: --config=FILE:{configs.name_of(config.model)}{same} "
                f"--config.{key}=FOLDER"
            )


def _config(workdir: Path) -> ConfigDict:
    from resnet_flax.training import workdir as folders

    trained = folders.read_config(workdir)
    if trained is None:
        raise UserError(f"--workdir={workdir}: no run is there (it has no {folders.CONFIG})")
    if folders.rules_of(workdir) < 2 and not trained.data.folder and trained.data.pipeline == "resident":
        trained.data.resize = 0  # which was ignored then
    if _CONFIG.value is None:
        return configs.resolve(trained)
    given = configs.with_network_of(trained, _CONFIG.value, command.set_keys("config"), f"--workdir={workdir}")
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


if __name__ == "__main__":
    command.run(main, uses_devices=True)
