"""What a config names, built."""

import dataclasses
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from resnet_flax.data import pixels, sources
from resnet_flax.data.images import Dataset
from resnet_flax.data.photographs import PhotoDataset
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.data.streaming import Pipeline
from resnet_flax.data.transforms import Transform
from resnet_flax.errors import UserError
from resnet_flax.interchange.class_names import imagenet_classes
from resnet_flax.networks import Network, build
from resnet_flax.training.devices import DATA_AXIS, data_mesh


@dataclasses.dataclass(frozen=True)
class Parts:
    """Everything a run needs but its state.

    Attributes:
      normalization: of whole images; of photographs, of their central square of ``data.resize``.
    """

    config: ConfigDict
    dataset: Dataset | PhotoDataset
    network: Network
    mesh: jax.sharding.Mesh
    normalization: Normalization

    @property
    def crop(self) -> int:
        """The side of what is cropped out of the images; 0 where they are taken whole."""
        data = self.config.data
        return data.image_size if data.folder or data.resize else 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what the network sees."""
        if isinstance(self.dataset, PhotoDataset):
            return (self.pipeline.image_size, self.pipeline.image_size, self.pipeline.channels)
        height, width, channels = self.dataset.train.images.shape[1:]
        return (self.crop or height, self.crop or width, channels)

    @property
    def transform(self) -> Transform:
        """The function that prepares a batch's images on the device."""
        data, dtype = self.config.data, jnp.promote_types(self.config.model.param_dtype, jnp.float32)
        if isinstance(self.dataset, PhotoDataset):  # cropped and mirrored on the hosts
            return Transform(self.normalization.cropped(data.image_size), dtype, colour=data.colour)
        return Transform(self.normalization, dtype, data.pad, data.flip, self.crop)

    @property
    def pipeline(self) -> Pipeline:
        """How photographs on disk become batches; of a stream."""
        return pipeline_of(self.config)

    def examples(self, count: int) -> tuple[Array, Array]:
        """The first training images as the network sees them in evaluation: [n, H, W, C] normalised, [n] int32.

        Fewer than ``count`` where there are no more, or a stream passes broken ones over.
        """
        train, count = self.dataset.train, min(count, len(self.dataset.train))
        if not isinstance(self.dataset, PhotoDataset):
            return self.transform.evaluate(jnp.asarray(train.images[:count])), jnp.asarray(train.labels[:count])
        first = np.arange(count)
        with closing(self.pipeline.in_order(train.take(first), count, first)) as batches:
            batch = next(batches)
        images = jnp.asarray(batch["images"][batch["counts"]])
        return self.transform.evaluate(images), jnp.asarray(batch["labels"][batch["counts"]])

    @property
    def preprocessing(self) -> Preprocessing:
        """How any image is brought to what the network sees."""
        height, width, channels = self.image_shape
        streams = isinstance(self.dataset, PhotoDataset)
        classes = self.dataset.classes
        if self.config.data.name == sources.IMAGENET and len(classes) == len(imagenet_classes()):
            classes = imagenet_classes()  # in place of WordNet's numbers, whose order is theirs
        return Preprocessing(
            resize=self.pipeline.resize if streams else self.dataset.train.images.shape[1],
            image_size=height,
            channels=channels,
            interpolation=self.config.data.interpolation,
            normalization=self.normalization,
            classes=classes,
            width=width if width != height else None,
        )


def prepare(config: ConfigDict, normalization: Normalization | None = None) -> Parts:
    """Builds what a resolved config names; refuses what does not fit, before anything is compiled.

    Args:
      normalization: of a stream, where it is known already, so that its statistics are not computed again.
    """
    check_precision(config)
    dataset = load_dataset(config)
    if config.data.pipeline != "stream":
        normalization = normalization_of(config, dataset)
    elif normalization is None:
        normalization = pipeline_of(config).normalization(config.data.normalization, dataset.train)
    network = build(config.model, len(dataset.classes), config.train.bn_group, DATA_AXIS)
    network = network.clone(frozen=config.optimizer.trainable == "head")
    return Parts(config, dataset, network, data_mesh(), normalization)


def check_precision(config: ConfigDict) -> None:
    """Refuses 64-bit numbers where jax has been told to do without."""
    if "float64" in (config.model.dtype, config.model.param_dtype) and not jax.config.jax_enable_x64:
        raise UserError("model.dtype or model.param_dtype is float64: set JAX_ENABLE_X64=1 in the environment")


def load_dataset(config: ConfigDict) -> Dataset | PhotoDataset:
    """Reads the data set that a resolved config names; of a stream, which photographs there are."""
    return sources.load_photographs(config.data) if config.data.pipeline == "stream" else sources.load(config.data)


def normalization_of(config: ConfigDict, dataset: Dataset) -> Normalization:
    """Computes the normalization that a config names from the training images of data in memory."""
    try:
        return pixels.normalization(config.data.normalization, dataset.train)
    except ValueError as error:
        raise UserError(str(error)) from None


def pipeline_of(config: ConfigDict) -> Pipeline:
    """How photographs on disk become batches, by the section ``data`` of a resolved config."""
    data = config.data
    return Pipeline(
        image_size=data.image_size,
        resize=data.resize or data.image_size,
        interpolation=data.interpolation,
        augmentation=data.augmentation,
        scales=tuple(data.scales),
        least_area=data.least_area,
        flip=data.flip,
        skip_broken=data.broken == "skip",
        workers=data.workers,
        threads=data.threads,
    )
