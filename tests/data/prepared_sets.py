"""Writes TFDS data sets for tests, without TensorFlow, with any splits, labels and builder configs."""

import contextlib
import io

import numpy as np
from PIL import Image


def png(pixels):
    """The bytes of a PNG file of an array or a PIL image."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.squeeze(pixels))
    image.save(file, "PNG")
    return file.getvalue()


def prepare(folder, name, splits, classes=None, channels=3, builder_config=None):
    """Writes a data set to ``folder/NAME[/CONFIG]/1.0.0``.

    Args:
      folder: The folder of data sets.
      name: The name in camel case; the data set gets it in snake case.
      splits: By name, a list of (array or image, label).
      classes: The names of the classes; None makes the labels plain integers.
      channels: The number of channels that the data set declares.
      builder_config: The name of its builder config, if it has one.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        import tensorflow_datasets as tfds

        label = tfds.features.Scalar(np.int64) if classes is None else tfds.features.ClassLabel(names=classes)
        features = {"image": tfds.features.Image(shape=(None, None, channels)), "label": label}

        class Base(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=builder_config)] if builder_config else []

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(examples) for split, examples in splits.items()}

            def _generate_examples(self, examples):
                for i, (image, number) in enumerate(examples):
                    yield i, {"image": io.BytesIO(png(image)), "label": int(number)}

        with tfds.core.registered.skip_registration():
            builder = type(name, (Base,), {"__module__": __name__})
        builder(data_dir=str(folder), file_format="array_record", config=builder_config).download_and_prepare()
    return folder


def grey(values, labels, size=(8, 8)):
    """A list of (RGB image of one value, label)."""
    return [(np.full((*size, 3), v, np.uint8), label) for v, label in zip(values, labels, strict=True)]
