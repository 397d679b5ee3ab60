"""A trained network, ready for images: from a file of weights, whoever wrote it, or from a run.

    net = model.from_weights("resnet50.pth", config.load("configs/imagenet.py", "residual-50"))
    features = net.features(net.prepare(["dog.jpg", "bird.jpg"]))

What the features are named is said in ``networks/network.py``: ``stem``, ``stage1`` to ``stage4``, ``pooled``,
``logits`` (not of a backbone, a file without the last layer). ``net.network`` and ``net.variables`` are the Flax
module and its variables, to build on.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array
from ml_collections import ConfigDict
from PIL import Image

from resnet_flax import config as configs
from resnet_flax.analysis.scoring import stream_log_probabilities
from resnet_flax.data import pixels
from resnet_flax.data.datasets import image_shape
from resnet_flax.data.decoding import Readable
from resnet_flax.data.images import Images
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
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.training import restore
from resnet_flax.training.devices import local_copy
from resnet_flax.training.setup import prepare

AnyImage = str | Path | Image.Image | np.ndarray
Named = list[tuple[str, float]]  # classes and their probabilities, the most probable first

_NEEDS_DATA = ("pixel_mean", "channel")  # normalizations that are statistics of a training set


@dataclasses.dataclass(frozen=True)
class Model:
    """A network, its variables, and what comes before it.

    Attributes:
      network: for a batch on one device.
      variables: ``params`` and ``batch_stats``.
      preprocessing: of images.
      config: resolved.
      step: of the run, or None.
    """

    network: Network
    variables: dict[str, Any]
    preprocessing: Preprocessing
    config: ConfigDict
    step: int | None = None

    def check_classifies(self) -> None:
        """Refuses a network without its last layer, which a file of a backbone holds.

        Raises:
          UserError: it is one.
        """
        if not self.preprocessing.classes:
            raise UserError(
                "the file holds a network without its last layer, which knows no classes; train one: train.py "
                "--config=configs/folder.py:UNIT-DEPTH --config.init.weights=FILE --reset-head"
            )

    def check_finite(self) -> None:
        """Refuses a network with weights that are not finite, whose answers would mean nothing.

        Raises:
          UserError: it says in which layers they are.
        """
        if bad := non_finite_layers(self.variables):
            raise UserError(f"the network has weights that are not finite: {bad}")

    @property
    def title(self) -> str:
        """Such as ``residual-50``."""
        return configs.name_of(self.config.model)

    def prepare(self, images: AnyImage | Iterable[AnyImage]) -> np.ndarray:
        """Images as the network's input: resized, cropped at the centre, normalised; [N, H, W, C] float32.

        Args:
          images: one, or several: paths of files, images of PIL's, arrays uint8 [H, W] or [H, W, C].

        Raises:
          UserError: one cannot be read; or the network was trained on images that were no squares.
        """
        self.preprocessing.check_square()
        found = [center(image, self.preprocessing) for image in _listed(images)]
        return np.concatenate(found) if found else np.zeros((0, *self.preprocessing.image_shape), np.float32)

    def features(self, images: Array | np.ndarray) -> dict[str, Array]:
        """The named intermediates of prepared images [N, H, W, C], running statistics in BN; any H and W."""
        found = self._apply(self.variables, images)
        # What comes out of jit is in the order of the alphabet.
        stages = [f"stage{i}" for i in range(1, len(self.network.stage_units) + 1)]
        return {name: found[name] for name in ("stem", *stages, "pooled", "logits") if name in found}

    def predict(self, images: AnyImage | Iterable[AnyImage], top: int = 5, view: View = "center") -> list[Named]:
        """The most probable classes of each image, with their probabilities.

        Args:
          images: see :meth:`prepare`.
          top: how many classes.
          view: over which views of an image probabilities are averaged (``data/views.py``).

        Raises:
          UserError: an image cannot be read; the network knows no classes, or was trained on images that were no
            squares.
          Diverged: weights or probabilities are not finite.
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
        """Yields what :meth:`predict` returns, an image at a time and as soon as it is known; or why it cannot be read.

        Args:
          batch_size: views that are computed at once.
        """
        self.check_classifies()
        self.check_finite()
        what, classes = (self.network, self.variables, self.preprocessing), self.preprocessing.classes
        for row in stream_log_probabilities(*what, images, view, batch_size):
            yield row if isinstance(row, UserError) else _top(row, classes, top)

    @cached_property
    def _apply(self) -> Any:
        return jit(lambda variables, x: self.network.apply(variables, x, train=False, intermediates=True)[1])


def from_weights(path: str | Path, config: ConfigDict | None = None, set_by_user: Set[str] = frozenset()) -> Model:
    """The network in a file of weights; of one without the last layer, the network without it.

    Args:
      config: which network it is, where the file does not say (:func:`resnet_flax.config.load`).
      set_by_user: keys of it that are to hold although the file's layout says otherwise, beside those that
        :func:`resnet_flax.config.load` was given.

    Raises:
      UserError: the file cannot be read, or does not fit.
    """
    file = read(expanded(path))
    return of_file(file, config_of(file, config, set_by_user))


def of_file(file: Weights, config: ConfigDict, default: Preprocessing | None = None) -> Model:
    """Builds the network in a file that was read already, by its own config (``interchange.weights.config_of``).

    Args:
      default: of the images at hand, for a file that does not say how its images were prepared; None goes by the
        config alone.

    Raises:
      UserError: it does not fit.
    """
    preprocessing = default if file.preprocessing is None else None
    if preprocessing is None:
        preprocessing = _preprocessing(file, config, _class_names(file, config))
    network = on_one_device(build(config.model, len(preprocessing.classes)))
    return Model(network, variables(file, network, preprocessing.image_shape, config.model), preprocessing, config)


def from_run(workdir: str | Path, step: str = "latest") -> Model:
    """The network of a run's checkpoint: a step, ``latest``, or ``best`` (by validation error).

    Raises:
      UserError: no run is there, or no such checkpoint.
    """
    workdir = expanded(workdir)
    run = RunDirectory(workdir)
    config = configs.resolve(run.existing_config())
    with Checkpoints(workdir, read_only=True) as checkpoints:
        chosen = checkpoints.choose(step)
    preprocessing = run.preprocessing()
    if preprocessing is None:  # a run of before there was such a file: from its data set
        preprocessing = prepare(config).preprocessing
    network = build(config.model, len(preprocessing.classes))
    found = restore.load_variables(network, preprocessing.image_shape, workdir, chosen)
    return Model(on_one_device(network), local_copy(found), preprocessing, config, chosen)


def _listed(images: AnyImage | Iterable[AnyImage]) -> list[Readable]:
    """One image, or several, as a list; texts become paths."""
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
        images = [images]
    return [expanded(image) if isinstance(image, str | Path) else image for image in images]


def _top(row: np.ndarray, classes: Sequence[str], count: int) -> Named:
    """The most probable of the classes, by the logarithms of their probabilities [classes]."""
    # Of equal ones the first, whatever the machine: a stable sort.
    best = np.argsort(-row, kind="stable")[:count]
    return [(classes[i] if i < len(classes) and classes[i] else f"class {i}", float(np.exp(row[i]))) for i in best]


def _class_names(file: Weights, config: ConfigDict) -> tuple[str, ...]:
    if file.preprocessing is not None:
        return _parsed(file.preprocessing, file.path).classes
    count = names.classes_of(file, config.model.family)
    return imagenet_classes() if count == 1000 else tuple(f"class {i}" for i in range(count))


def _preprocessing(file: Weights, config: ConfigDict, classes: tuple[str, ...]) -> Preprocessing:
    if file.preprocessing is not None:
        return _parsed(file.preprocessing, file.path)
    data = config.data
    if data.normalization in _NEEDS_DATA:
        raise UserError(
            f"{file.path} does not say how its images were normalised, and data.normalization={data.normalization!r} "
            f"is a statistic of its training images; choose imagenet, caffe or none, or export it anew"
        )
    shape = image_shape(data)
    if shape is None:
        raise UserError(f"{file.path} does not say how large its images are; set data.image_size")
    side, _, channels = shape
    if 0 < data.resize < side:
        raise UserError(f"data.resize={data.resize} must be at least data.image_size={side}, or 0 for the same")
    nothing = Images(np.zeros((1, 1, 1, channels), np.uint8), np.zeros(1, np.int32))
    normalization = pixels.normalization(data.normalization, nothing)
    return Preprocessing(data.resize or side, side, channels, data.interpolation, normalization, classes)


def _parsed(text: str, path: Path) -> Preprocessing:
    try:
        return Preprocessing.from_json(text)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
