"""A trained network with its preprocessing, loaded from a run or from a file of weights of any supported library.

    net = model.from_weights("resnet50.pth", config.load("configs/imagenet.py", "residual-50"))
    features = net.features(net.prepare(["dog.jpg", "bird.jpg"]))

The features are ``stem``, ``stage1`` to ``stage4``, ``pooled`` and ``logits`` (see ``networks/network.py``). A file
without the last layer, a backbone, has no ``logits``. ``net.network`` and ``net.variables`` are the Flax module and its
variables, for code of your own.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict
from PIL import Image

from resnet_flax import config as configs
from resnet_flax.analysis.scoring import stream_log_probabilities
from resnet_flax.data import pixels
from resnet_flax.data.datasets import image_shape
from resnet_flax.data.decoding import Readable
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.data.views import View, center
from resnet_flax.errors import UserError
from resnet_flax.interchange import names
from resnet_flax.interchange.class_names import imagenet_classes
from resnet_flax.interchange.files import Weights, read
from resnet_flax.interchange.weights import config_of, variables
from resnet_flax.networks import Network, build, on_one_device
from resnet_flax.networks.compilation import jit
from resnet_flax.networks.finite import non_finite_layers
from resnet_flax.paths import expanded
from resnet_flax.runs import resume
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.schemas import read_config
from resnet_flax.runtime.hosts import Hosts
from resnet_flax.training import restore
from resnet_flax.training.devices import local_copy
from resnet_flax.training.setup import prepare

AnyImage = str | Path | Image.Image | np.ndarray
Named = list[tuple[str, float]]  # classes with their probabilities, the most probable first


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its variables and the preprocessing of its images.

    Attributes:
      network: The Flax module, for a batch on one device.
      variables: The collections ``params`` and ``batch_stats``.
      preprocessing: The way from an image to the network's input, and the names of the classes.
      config: The resolved config.
      step: The step of the run's checkpoint; None for a file of weights.
    """

    network: Network
    variables: dict[str, Any]
    preprocessing: Preprocessing
    config: ConfigDict
    step: int | None = None

    def check_classifies(self) -> None:
        """Refuses a backbone: a network without its last layer.

        Raises:
          UserError: The network is a backbone.
        """
        if not self.preprocessing.classes:
            raise UserError(
                "the file holds a network without its last layer, which has no classes; train that layer: train.py "
                "--config=configs/folder.py:UNIT-DEPTH --config.init.weights=FILE --reset-head"
            )

    def check_finite(self) -> None:
        """Refuses a network with weights that are not finite, because its predictions would be meaningless.

        Raises:
          UserError: A weight is not finite; the message names the layers.
        """
        if bad := non_finite_layers(self.variables):
            raise UserError(f"the network has weights that are not finite: {bad}")

    def for_images(self, data: Mapping[str, Any]) -> "Model":
        """Returns the network with the preprocessing that another config asks for.

        Args:
          data: The section ``data`` of the config.

        Raises:
          UserError: The preprocessing does not fit the network; see :meth:`Preprocessing.adjusted`.
        """
        preprocessing = self.preprocessing.adjusted(self.config.data, data)
        if self.network.flattens and preprocessing.image_shape != self.preprocessing.image_shape:
            raise UserError(
                f"data.image_size={preprocessing.image_size}: {self.title} has a weight for each pixel of its last "
                f"layer, so images must have {self.preprocessing.image_size} pixels as in training"
            )
        return dataclasses.replace(self, preprocessing=preprocessing)

    @property
    def title(self) -> str:
        """The network's name, such as ``residual-50``."""
        return configs.name_of(self.config.model)

    def prepare(self, images: AnyImage | Iterable[AnyImage]) -> np.ndarray:
        """Resizes, crops and normalises images to the network's input, [N, H, W, C] float32.

        Args:
          images: One image or several: file paths, PIL images, or uint8 arrays [H, W] or [H, W, C].

        Raises:
          UserError: An image cannot be read, or the network was trained on images that are not square.
        """
        self.preprocessing.check_square()
        found = [center(image, self.preprocessing) for image in _listed(images)]
        return np.concatenate(found) if found else np.zeros((0, *self.preprocessing.image_shape), np.float32)

    def features(self, images: Array | np.ndarray) -> dict[str, Array]:
        """Computes the named features of prepared images [N, H, W, C] of any H and W, with BN's running statistics.

        Raises:
          UserError: The images are not as :meth:`prepare` returns them.
        """
        channels = self.preprocessing.channels
        if images.ndim != 4 or images.shape[3] != channels or not jnp.issubdtype(images.dtype, jnp.floating):
            raise UserError(
                f"images must be floating-point numbers [N, H, W, {channels}]; these are {images.dtype} "
                f"{list(images.shape)}; prepare them first: net.prepare(images)"
            )
        found = self._apply(self.variables, images)
        # jit returns dicts in alphabetical order.
        stages = [f"stage{i}" for i in range(1, len(self.network.stage_units) + 1)]
        return {name: found[name] for name in ("stem", *stages, "pooled", "logits") if name in found}

    def predict(self, images: AnyImage | Iterable[AnyImage], top: int = 5, view: View = "center") -> list[Named]:
        """Returns the most probable classes of each image, with their probabilities.

        Args:
          images: One image or several, as in :meth:`prepare`.
          top: The number of classes to return.
          view: The crops of an image whose probabilities are averaged (``data/views.py``).

        Raises:
          UserError: An image cannot be read, there is no such view, ``top`` is below 1, a weight is not finite, the
            network has no last layer, or it was trained on images that are not square.
          Diverged: A probability is not finite.
        """
        found = []
        for row in list(self.classify(_listed(images), top, view)):
            if isinstance(row, UserError):
                raise row
            found.append(row)
        return found

    def classify(
        self, images: Sequence[Readable], top: int = 5, view: View = "center", batch_size: int = 32
    ) -> Iterator[Named | UserError]:
        """Yields the predictions of :meth:`predict` one image at a time, or the error for an image it cannot read.

        Args:
          batch_size: The number of crops in a batch.
        """
        for name, number in (("top", top), ("batch_size", batch_size)):
            if not isinstance(number, int | np.integer) or number < 1:
                raise UserError(f"{name}={number!r} must be a whole number of at least 1")
        self.check_classifies()
        self.check_finite()
        what, classes = (self.network, self.variables, self.preprocessing), self.preprocessing.classes
        for row in stream_log_probabilities(*what, images, view, batch_size):
            yield row if isinstance(row, UserError) else _top(row, classes, top)

    @cached_property
    def _apply(self) -> Any:
        return jit(lambda variables, x: self.network.apply(variables, x, train=False, intermediates=True)[1])


def from_weights(path: str | Path, config: ConfigDict | None = None, set_by_user: Set[str] = frozenset()) -> Model:
    """Loads the network in a file of weights. A file without the last layer gives a network without it.

    Args:
      config: The network's config, for a file that does not hold one (:func:`resnet_flax.config.load`).
      set_by_user: Keys of ``config`` that take precedence over the file's layout, in addition to those that
        :func:`resnet_flax.config.load` was given.

    Raises:
      UserError: The file cannot be read, or does not fit the config.
    """
    file = read(expanded(path))
    return from_loaded(file, config_of(file, config, set_by_user))


def from_loaded(file: Weights, config: ConfigDict, default: Preprocessing | None = None) -> Model:
    """Builds the network from a file of weights that has been read.

    Args:
      config: The config from ``interchange.weights.config_of``.
      default: The preprocessing for a file that does not hold one; None derives it from the config.

    Raises:
      UserError: The file does not fit the config.
    """
    preprocessing = default if file.preprocessing is None else None
    if preprocessing is None:
        preprocessing = _preprocessing(file, config, _class_names(file, config))
    network = on_one_device(build(config.model, len(preprocessing.classes)))
    return Model(network, variables(file, network, preprocessing.image_shape, config.model), preprocessing, config)


def from_run(workdir: str | Path, step: str = "latest") -> Model:
    """Loads the network of a run's checkpoint. Warns on stderr if a file that defines it has changed.

    Args:
      step: A checkpoint's step, ``latest``, or ``best`` (by validation error).

    Raises:
      UserError: The run or the checkpoint does not exist.
    """
    workdir = expanded(workdir)
    run = RunDirectory(workdir)
    config = configs.resolve(run.existing_config())
    for remark in resume.remarks(run, config):
        print(remark, file=sys.stderr)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        chosen = Hosts().decide(lambda: checkpoints.find_step(step))
    preprocessing = run.preprocessing()
    if preprocessing is None:  # an earlier version began the run, and wrote no preprocessing.json
        preprocessing = prepare(config).preprocessing
    network = build(config.model, len(preprocessing.classes))
    found = restore.load_variables(network, preprocessing.image_shape, workdir, chosen)
    return Model(on_one_device(network), local_copy(found), preprocessing, config, chosen)


def _listed(images: AnyImage | Iterable[AnyImage]) -> list[Readable]:
    """Returns one image or several as a list, in which strings have become paths."""
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
        images = [images]
    return [expanded(image) if isinstance(image, str | Path) else image for image in images]


def _top(row: np.ndarray, classes: Sequence[str], count: int) -> Named:
    """Returns the most probable classes, given their log-probabilities [classes]."""
    # A stable sort gives ties the same order on every machine.
    best = np.argsort(-row, kind="stable")[:count]
    return [(classes[i] if i < len(classes) and classes[i] else f"class {i}", float(np.exp(row[i]))) for i in best]


def _class_names(file: Weights, config: ConfigDict) -> tuple[str, ...]:
    if file.preprocessing is not None:
        return _parsed(file.preprocessing, file.path).classes
    count = names.classes_of(file, config.model.family)
    return imagenet_classes() if count == 1000 else tuple(f"class {i}" for i in range(count))


def _preprocessing(file: Weights, config: ConfigDict, classes: tuple[str, ...]) -> Preprocessing:
    if file.preprocessing is not None:
        trained = config if file.config is None else read_config(file.config.encode(), file.path)
        return _parsed(file.preprocessing, file.path).adjusted(trained.data, config.data)
    data = config.data
    if data.normalization in pixels.STATISTICS:
        raise UserError(
            f"{file.path} does not say how its images were normalised, and data.normalization={data.normalization!r} "
            f"is a statistic of its training images; choose imagenet, caffe or none, or export the run again"
        )
    shape = image_shape(data)
    if shape is None:
        raise UserError(f"{file.path} does not say how large its images are; set data.image_size")
    side, _, channels = shape
    if 0 < data.resize < side:
        raise UserError(f"data.resize={data.resize} must be at least data.image_size={side}, or 0 for the same size")
    normalization = pixels.constants(data.normalization, channels)
    return Preprocessing(data.resize or side, side, channels, data.interpolation, normalization, classes)


def _parsed(text: str, path: Path) -> Preprocessing:
    try:
        return Preprocessing.from_json(text)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
