"""The preprocessing of images that a network expects, which is stored with its weights."""

import base64
import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from resnet_flax.config import PREPROCESSING_KEYS
from resnet_flax.data import pixels
from resnet_flax.data.pixels import Normalization
from resnet_flax.errors import UserError

IMAGENET_CROP = 224  # the side of the images that ImageNet networks are trained on


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a network's images, and the classes of its logits.

    Attributes:
      resize: The shorter side before the crop, in pixels.
      image_size: The side of the central crop, in pixels.
      channels: The number of channels, 1, 3 or 4.
      interpolation: The resizing filter: ``box``, ``bilinear`` or ``bicubic``, with antialiasing.
      normalization: The normalisation of pixels; its mean may be an image of ``resize`` x ``resize``.
      classes: The names of the classes, in the order of the logits; empty for a network without its last layer.
      width: The width of images that are not squares, whose height is ``image_size``; None for squares. Photographs
        cannot be resized to such a shape.
    """

    resize: int
    image_size: int
    channels: int
    interpolation: str
    normalization: Normalization
    classes: tuple[str, ...]
    width: int | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the network's input."""
        return (self.image_size, self.width or self.image_size, self.channels)

    def check_square(self) -> None:
        """Refuses shapes to which photographs cannot be resized.

        Raises:
          UserError: The network was trained on images that are not squares.
        """
        if self.width is not None:
            raise UserError(
                f"the network was trained on images of {self.image_size}x{self.width} pixels, but photographs "
                f"can only be resized to squares; evaluate it on the images of its data set instead"
            )

    def adjusted(self, trained: Mapping[str, Any], data: Mapping[str, Any]) -> "Preprocessing":
        """Returns the preprocessing with the sizes, filter and normalisation in which a config differs from training.

        Args:
          trained: The section ``data`` of the training run's config.
          data: The same section of the config for evaluation.

        Raises:
          UserError: The sizes do not fit together, or the normalisation is not known for them.
        """
        changed = {key for key in PREPROCESSING_KEYS if data[key] != trained[key]}
        if not changed:
            return self
        name, normalization = data["normalization"], self.normalization
        if "normalization" in changed:
            if name in pixels.STATISTICS:
                raise UserError(
                    f"data.normalization={name!r} is a statistic of the training images, which the network was trained "
                    f"without; leave the key out, or choose imagenet, caffe or none"
                )
            try:
                normalization = pixels.constants(name, self.channels)
            except ValueError as error:
                raise UserError(str(error)) from None
        changes: dict[str, Any] = {"interpolation": data["interpolation"], "normalization": normalization}
        if changed & {"image_size", "resize"}:
            side = data["image_size"] or self.image_size
            resize, mean = data["resize"] or side, normalization.mean
            if resize < side:
                raise UserError(f"data.resize={resize} must be at least data.image_size={side}, or 0 for the same")
            if mean.ndim == 3 and mean.shape[:2] != (resize, resize):
                raise UserError(
                    f"data.resize={resize}: the mean image of training, which is subtracted, has {mean.shape[0]}x"
                    f"{mean.shape[1]} pixels; keep that size, or set data.normalization to imagenet, caffe or none"
                )
            changes |= {"image_size": side, "resize": resize, "width": None}
        return dataclasses.replace(self, **changes)

    def differences(self, other: "Preprocessing") -> list[str]:
        """Lists in words the differences of another, current preprocessing from this earlier one.

        Statistics are compared with a tolerance, because they may differ in their last bits between versions of NumPy.
        """
        found = []
        if self.classes != other.classes:
            found.append(f"classes there: {_listed(self.classes)}; now: {_listed(other.classes)}")
        for name in ("resize", "image_size", "channels", "interpolation", "width"):
            if getattr(self, name) != getattr(other, name):
                found.append(f"{name} there: {getattr(self, name)}, now: {getattr(other, name)}")
        for name in ("mean", "std"):
            a, b = (getattr(p.normalization, name) for p in (self, other))
            if a.shape != b.shape or not np.allclose(a, b, rtol=1e-5, atol=1e-7):
                found.append(f"the {name} of the training images")
        return found

    def to_json(self) -> str:
        """Returns the preprocessing as JSON, in which mean and std keep every bit."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {
            "normalization": {"mean": _encode(self.normalization.mean), "std": _encode(self.normalization.std)}
        }
        return json.dumps(fields)

    @staticmethod
    def from_json(text: str) -> "Preprocessing":
        """Reads what :meth:`to_json` wrote.

        Raises:
          ValueError: The text is not that of a preprocessing.
        """
        try:
            fields = json.loads(text)
            numbers = fields["normalization"]
            fields["normalization"] = Normalization(_decode(numbers["mean"]), _decode(numbers["std"]))
            return _checked(Preprocessing(**fields | {"classes": tuple(fields["classes"])}))
        except (KeyError, TypeError, ValueError, AttributeError, EOFError, RecursionError) as error:
            raise ValueError(f"not a preprocessing: {error}") from None


def _checked(found: Preprocessing) -> Preprocessing:
    sides = (found.resize, found.image_size, found.channels, 1 if found.width is None else found.width)
    if not all(type(side) is int and 0 < side < 2**16 for side in sides):
        raise ValueError("a size is not a positive integer")
    if not all(isinstance(name, str) for name in (*found.classes, found.interpolation)):
        raise ValueError("a name is not a string")
    if not all(np.isfinite(a).all() for a in (found.normalization.mean, found.normalization.std)):
        raise ValueError("the mean or std is not finite")
    return found


def _listed(classes: tuple[str, ...], most: int = 10) -> str:
    more = f" and {len(classes) - most} more" if len(classes) > most else ""
    return f"{', '.join(classes[:most])}{more}"


def _encode(array: np.ndarray) -> str:
    file = io.BytesIO()
    np.save(file, np.asarray(array, np.float64), allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def _decode(text: str) -> np.ndarray:
    return np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False)
