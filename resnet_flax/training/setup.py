"""Builds the data set, network and mesh that a config names."""

import dataclasses
from contextlib import closing
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.data import datasets, transforms
from resnet_flax.data.datasets import Data
from resnet_flax.data.layouts import DATA_AXIS
from resnet_flax.data.photograph_sets import IMAGENET
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.data.transforms import Transform
from resnet_flax.errors import UserError
from resnet_flax.interchange.class_names import imagenet_classes, in_imagenets_order
from resnet_flax.networks import Network, build, compilation
from resnet_flax.training import metric_functions
from resnet_flax.training.devices import data_mesh


@dataclasses.dataclass(frozen=True)
class RunSetup:
    """Everything that a run needs except its state.

    Attributes:
      normalization: Statistics of whole images; for photographs, of their centre crop of ``data.resize`` pixels.
    """

    config: ConfigDict
    dataset: Data
    network: Network
    mesh: jax.sharding.Mesh
    normalization: Normalization

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the network's input."""
        return self.dataset.access.image_shape

    @property
    def transform(self) -> Transform:
        """The function that prepares a batch's images on the device."""
        return self.dataset.access.transform(self.normalization, image_dtype(self.config))

    @property
    def onednn(self) -> bool:
        """True if oneDNN computes the training steps."""
        return uses_onednn(self.config, self.image_shape)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names in ``train.metrics``, which are measured in addition to loss and error."""
        return configs.names_in(self.config.train.metrics)

    def examples(self, count: int) -> tuple[Array, Array]:
        """Returns training images of all classes, normalised [n, H, W, C] and not augmented, and labels [n] int32.

        There are fewer than ``count`` if the training set is smaller, or if unreadable images were skipped.
        """
        first = self.dataset.access.mix_classes(self.dataset.train, count)
        with closing(self.dataset.access.ordered_batches(first, len(first))) as batches:
            batch = next(batches)
        images = jnp.asarray(batch["images"][batch["counts"]])
        return self.transform.evaluate(images), jnp.asarray(batch["labels"][batch["counts"]])

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing that turns any image into network input."""
        return preprocessing(self.config, self.dataset, self.normalization)


def image_dtype(config: ConfigDict) -> jnp.dtype:
    """Returns the dtype of the network's input images."""
    return jnp.promote_types(config.model.param_dtype, jnp.float32)


def uses_onednn(config: ConfigDict, image_shape: tuple[int, int, int]) -> bool:
    """Tells whether oneDNN computes a config's training steps."""
    pixels = config.train.steps * config.train.batch_size * image_shape[0] * image_shape[1]
    return compilation.onednn_pays(config.model.dtype, pixels)


def preprocessing(config: ConfigDict, data: Data, normalization: Normalization) -> Preprocessing:
    """Returns the preprocessing that turns any image into input for a network trained on this data set."""
    height, width, channels = data.access.image_shape
    classes = data.classes
    if config.data.name == IMAGENET and in_imagenets_order(classes) == classes:
        classes = imagenet_classes()  # names instead of WordNet numbers, in the same order
    return Preprocessing(
        resize=data.access.resize,
        image_size=height,
        channels=channels,
        interpolation=config.data.interpolation,
        normalization=normalization,
        classes=classes,
        width=width if width != height else None,
    )


def prepare(config: ConfigDict, normalization: Normalization | None = None) -> RunSetup:
    """Builds the data set, network and mesh of a resolved config.

    Args:
      normalization: Statistics that are already known, which saves computing those of photographs again.

    Raises:
      UserError: The config does not fit its data; nothing has been compiled yet.
    """
    check_precision(config)
    with configs.hint_at_module(config):
        data = datasets.load(config.data)
    normalization = data.access.normalization(config.data.normalization, data.train, normalization)
    return assemble(config, data, data_mesh(), normalization)


def assemble(config: ConfigDict, data: Data, mesh: jax.sharding.Mesh, normalization: Normalization) -> RunSetup:
    """Builds the network for a data set that is loaded; the mesh may hold devices of another machine."""
    check_registered(config, data)
    return RunSetup(config, data, network_of(config, len(data.classes), mesh), mesh, normalization)


def network_of(config: ConfigDict, classes: int, mesh: jax.sharding.Mesh) -> Network:
    """Builds the network that a run trains on the devices of a mesh."""
    network = build(config.model, classes, config.train.bn_group, DATA_AXIS)
    # Paired sums cost memory (ResNet-50, 1,024 images on an H100: 33 GiB instead of 27), which rematerialisation is
    # there to save.
    gpu = mesh.devices.flat[0].platform == "gpu" and config.model.remat == "none"
    layers = dataclasses.replace(network.layers, gpu=gpu)
    return network.clone(frozen=config.optimizer.trainable == "head", layers=layers)


def check_registered(config: ConfigDict, data: Data) -> None:
    """Refuses augmentations and metrics that are not registered or do not fit the data set.

    Both are traced, so that one with a result of the wrong shape is refused before anything is compiled.
    """
    names, classes, shape = configs.names_in(config.train.metrics), len(data.classes), jax.ShapeDtypeStruct
    with configs.hint_at_module(config):
        configs.check_names("data.transforms", config.data.transforms, transforms.AUGMENTATIONS)
        configs.check_names("train.metrics", config.train.metrics, metric_functions.choices())
    image = shape(data.access.image_shape, image_dtype(config))
    for name in configs.names_in(config.data.transforms):
        found = jax.eval_shape(transforms.AUGMENTATIONS[name], image, jax.eval_shape(jax.random.key, 0))
        if (getattr(found, "shape", None), getattr(found, "dtype", None)) != (image.shape, image.dtype):
            raise UserError(
                f"data.transforms={config.data.transforms!r}: {name} must return an image of the given shape and type, "
                f"{image.shape} {image.dtype}, not {found}"
            )
    of_examples = [name for name in names if name in metric_functions.OF_EXAMPLES]
    for name in of_examples:
        metric = metric_functions.OF_EXAMPLES[name]
        if classes <= metric.above:
            raise UserError(
                f"train.metrics={config.train.metrics!r}: {name} needs more than {metric.above} classes; the data set "
                f"has {classes}"
            )
    count, dtype = config.train.batch_size, image_dtype(config)
    batch = {"images": shape((count, *data.access.image_shape), dtype), "labels": shape((count,), jnp.int32)}
    jax.eval_shape(partial(metric_functions.measured, of_examples), shape((count, classes), dtype), batch)


def check_precision(config: ConfigDict) -> None:
    """Refuses float64 unless jax has 64-bit types enabled."""
    if "float64" in (config.model.dtype, config.model.param_dtype) and not jax.config.values["jax_enable_x64"]:
        raise UserError("model.dtype or model.param_dtype is float64: set JAX_ENABLE_X64=1 in the environment")
