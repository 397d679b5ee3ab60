"""Tests that a setup gives the same examples for data in memory and data on disk."""

import numpy as np
import pytest
from PIL import Image

from resnet_flax import config
from resnet_flax.data import decoding
from resnet_flax.training.setup import prepare


@pytest.mark.parametrize("pipeline", ["resident", "stream"])
def test_examples_are_central_crops(tmp_path, pipeline):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    given = {"data.folder": str(tmp_path), "data.image_size": 32, "data.resize": 40, "data.pipeline": pipeline}
    setup = prepare(config.resolve(config.load("configs/folder.py", "residual-18", given)))
    images, labels = setup.examples(7)
    train = [path for path in sorted(tmp_path.rglob("*.png")) if not path.name.startswith("2")]
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    assert len(images) == len(labels) == 7
    expected = [(decoding.resize_and_crop(path, 40, 32, 3, "bilinear") / 255 - mean) / std for path in train[:7]]
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert len(setup.examples(100)[0]) == len(setup.dataset.train) == 8
