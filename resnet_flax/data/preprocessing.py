"""What happens to an image between its file and a network, as something that travels with the network's weights."""

import base64
import dataclasses
import io
import json

import numpy as np

from resnet_flax.data.resident import Normalization

IMAGENET_CROP = 224  # the side that ImageNet networks are trained on


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image is brought to what the network was trained on, and what its answers mean.

    Attributes:
      resize: the shorter side before the crop, in pixels.
      image_size: the side of the central crop.
      channels: of the images, 1 or 3.
      interpolation: of the resizing: ``box``, ``bilinear`` or ``bicubic``, with antialiasing.
      normalization: of pixels; its mean may be an image of ``resize`` x ``resize``.
      classes: names, in the order of the logits.
    """

    resize: int
    image_size: int
    channels: int
    interpolation: str
    normalization: Normalization
    classes: tuple[str, ...]

    def to_json(self) -> str:
        """As text; mean and std keep every bit."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {
            "normalization": {"mean": _encode(self.normalization.mean), "std": _encode(self.normalization.std)}
        }
        return json.dumps(fields)

    @staticmethod
    def from_json(text: str) -> "Preprocessing":
        """What :meth:`to_json` wrote.

        Raises:
          ValueError: it is something else.
        """
        try:
            fields = json.loads(text)
            numbers = fields["normalization"]
            fields["normalization"] = Normalization(_decode(numbers["mean"]), _decode(numbers["std"]))
            return Preprocessing(**fields | {"classes": tuple(fields["classes"])})
        except (KeyError, TypeError, ValueError, EOFError) as error:
            raise ValueError(f"not a preprocessing: {error}") from None


def _encode(array: np.ndarray) -> str:
    file = io.BytesIO()
    np.save(file, np.asarray(array, np.float64), allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def _decode(text: str) -> np.ndarray:
    return np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False)
