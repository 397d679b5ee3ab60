"""Normalisation and augmentation of batches on the device, and the random keys that they use.

An augmentation of your own is one function, here or in a file that runs first, such as a config file. A run applies
the augmentations that ``data.transforms`` names:

    @augmentation
    def grey(image, key):
        return jnp.broadcast_to(image.mean(-1, keepdims=True), image.shape)
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from resnet_flax.data.colour import principal_offsets
from resnet_flax.data.images import center
from resnet_flax.data.pixels import Normalization
from resnet_flax.registry import ANY, Registry

Augmentation = Callable[[Array, Array], Array]
AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", names=ANY)


def augmentation(function: Augmentation) -> Augmentation:
    """Registers a pure function ``(image [H, W, C], key) -> image`` under its name; images are normalised before it.

    The random key is a function of the seed, the step, the image's place in the batch, and the name.
    """
    AUGMENTATIONS[function.__name__] = function
    return function


@augmentation
def cutout(image: Array, key: Array) -> Array:
    """Sets a square of half the image's side to 0, the mean, at a random place (Cutout, arXiv:1708.04552)."""
    height, width, _ = image.shape
    centre = jax.random.uniform(key, (2,), jnp.float32)
    rows, columns = (jnp.abs(jnp.arange(n) + 0.5 - at * n) for n, at in zip((height, width), centre, strict=True))
    inside = (rows < height / 4)[:, None] & (columns < width / 4)
    return jnp.where(inside[..., None], 0, image)


AUGMENTATIONS.reserve()


@dataclasses.dataclass(frozen=True)
class Transform:
    """The transform from uint8 images to the network's input, in training and in evaluation.

    Attributes:
      normalization: The normalisation of pixels. It comes before the padding, so that padding with zeros is padding
        with the mean.
      dtype: The type of the resulting images.
      pad: The number of zero pixels added on each side before the random crop; 0 for none.
      flip: Whether each training image is mirrored with probability one half.
      crop: The side of the crop, which is random in training and central in evaluation; 0 for the size of the images.
      colour: The deviation of :func:`~resnet_flax.data.colour.principal_offsets` in training; 0 for none.
      augmentations: The names of registered augmentations that follow in training, in this order.
    """

    normalization: Normalization
    dtype: jnp.dtype
    pad: int = 0
    flip: bool = False
    crop: int = 0
    colour: float = 0.0
    augmentations: tuple[str, ...] = ()

    def train(self, batch: dict[str, Array], seed: int | Array, step: Array) -> Array:
        """Normalises and augments the images of a training batch.

        Args:
          batch: ``images`` [n, H, W, C] uint8, and ``place`` [n], their places in the step's global batch.
          seed: The seed of the run.
          step: The step. Seed, step and place determine the random numbers of an image.

        Returns:
          [n, H, W, C] of ``dtype``; H and W are ``crop`` if that is set.
        """
        images = self.normalization(batch["images"], self.dtype)
        if self.pad or self.crop or self.flip:
            images = jax.vmap(self._augment)(images, example_keys(seed, "augmentation", step, batch["place"]))
        if self.colour:
            keys = example_keys(seed, "colour", step, batch["place"])
            # Offsets are in units of unnormalised pixels, so they are divided by std like these.
            offsets = principal_offsets(keys, self.colour, self.dtype)
            images += offsets / self.normalization.std.astype(self.dtype)
        for name in self.augmentations:
            keys = example_keys(seed, f"augmentation {name}", step, batch["place"])
            images = jax.vmap(AUGMENTATIONS[name])(images, keys)
        return images

    def evaluate(self, images: Array) -> Array:
        """Normalises images [n, H, W, C] uint8 and takes their central crops, without randomness."""
        whole = self.normalization(images, self.dtype)
        return center(whole, self.crop, self.crop) if self.crop else whole

    def _augment(self, image: Array, key: Array) -> Array:
        """Pads, crops and flips an image (section 4.2): [H, W, C] -> [H, W, C], or [crop, crop, C]."""
        # Integers are derived from raw bits, which are the same with and without 64-bit types.
        bits = jax.random.bits(key, (3,), jnp.uint32)
        if self.pad or self.crop:
            padded = jnp.pad(image, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))
            shape, places = image.shape, jnp.uint32(2 * self.pad + 1)
            if self.crop:
                shape, places = self._crop_shape_and_places(padded.shape)
            top, left = (bits[:2] % places).astype(jnp.int32)
            image = jax.lax.dynamic_slice(padded, (top, left, jnp.int32(0)), shape)
        if self.flip:
            image = jnp.where(bits[2] & 1, image[:, ::-1], image)
        return image

    def _crop_shape_and_places(self, padded: tuple[int, ...]) -> tuple[tuple[int, int, int], Array]:
        """Returns the shape of a crop, and how many vertical and horizontal places it can have in a padded image."""
        height, width, channels = padded
        if self.crop > min(height, width):
            raise ValueError(f"a crop of {self.crop} is larger than the padded images, {height}x{width}")
        places = jnp.asarray([height - self.crop + 1, width - self.crop + 1], jnp.uint32)
        return (self.crop, self.crop, channels), places


def stream_key(seed: int | Array, name: str) -> Array:
    """Returns the key of a named stream of random numbers, ``fold_in(key(seed), name)``; the seed is below 2**32."""
    # Python's hash of a string differs from process to process.
    code = 0
    for byte in name.encode():
        code = (code * 31 + byte) % 2**32
    return jax.random.fold_in(jax.random.key(seed), code)


def example_keys(seed: int | Array, name: str, step: Array, place: Array) -> Array:
    """Returns the random keys [n] of these places in a step's global batch.

    Args:
      seed: The seed of the run.
      name: The name of the stream of random numbers.
      place: [n] uint32, places in the global batch.
    """
    of_step = jax.random.fold_in(stream_key(seed, name), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(of_step, place)
