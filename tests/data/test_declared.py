"""Tests that images in memory agree with their data set's row in the registry, or are refused."""

import re

import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.data import datasets
from resnet_flax.data.images import Found, Images
from resnet_flax.errors import UserError
from resnet_flax.training import loop
from tests.training.small import small_config

IMAGES, LABELS = np.zeros((30, 6, 6, 1), np.uint8), np.arange(30) % 3
SPLIT, NONE = Images(IMAGES, LABELS), Images(IMAGES[:0], LABELS[:0])


@pytest.mark.parametrize(
    ("found", "refusal"),
    [
        (None, "a data set must return Found(train, test, classes, where), not None"),
        (Found(Images(IMAGES.tolist(), LABELS), None, "abc", "x"), "train must be Images(images, labels) of two NumPy"),
        (Found(SPLIT, Images(IMAGES, LABELS.tolist()), "abc", "x"), "test must be Images(images, labels) of two NumPy"),
        (Found((IMAGES, LABELS), None, ("a", "b", "c"), "x"), "train must be Images(images, labels) of two NumPy"),
        (Found(SPLIT, None, range(3), "x"), "classes must be texts, the names of at least two"),
        (Found(SPLIT, None, np.unique(LABELS), "x"), "classes must be texts, the names of at least two"),
        (Found(Images(IMAGES, 0 * LABELS), None, ("a",), "x"), "classes must be texts, the names of at least two"),
        (Found(SPLIT, None, 3, "x"), "classes must be texts, the names of at least two"),
        (Found(NONE, None, ("a", "b", "c"), "x"), "train has no images"),
        (Found(SPLIT, NONE, ("a", "b", "c"), "x"), "test has no images"),
        (Found(SPLIT.take(np.arange(3)), None, ("a", "b", "c"), "x"), "no image is left for testing"),
    ],
)  # fmt: skip
def test_what_is_not_a_data_set_is_refused(found, refusal, tmp_path, monkeypatch):
    """Regression test: some of these ended in a traceback, after config.json was written; one class was accepted."""
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))
    datasets.register("mine")(lambda data: found)
    with pytest.raises(UserError, match=rf"^mine: {re.escape(refusal)}"):
        loop.run(small_config(data__name="mine"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.json"))


@pytest.mark.parametrize(
    ("declared", "refusal"),
    [
        ({}, ""),
        ({"side": 6, "channels": 1, "classes": 3}, ""),
        ({"classes": 4}, "the images have 3 classes, but the registry of data sets declares 4"),
        ({"channels": 3}, "the images have 1 channels, but the registry of data sets declares 3"),
        ({"side": 8}, "the images have 6 pixels a side, but the registry of data sets declares 8"),
    ],
)
def test_images_that_differ_from_their_row_are_refused(declared, refusal, monkeypatch):
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))

    @datasets.register("squares", **declared)
    def squares(data):
        return Found(Images(np.zeros((30, 6, 6, 1), np.uint8), np.arange(30) % 3), None, ("a", "b", "c"), "squares")

    data = config.base().data.to_dict() | {"name": "squares"}
    if refusal:
        with pytest.raises(UserError, match=rf"^squares: {refusal} for data.name='squares'; correct one of the two$"):
            datasets.load(data)
    else:
        assert datasets.load(data).classes == ("a", "b", "c")


@pytest.mark.parametrize("resize", [0, 5])
def test_images_without_a_test_split_are_resized(resize, monkeypatch):
    """Regression test: a traceback, as there are no test images until a fifth is set aside."""
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))
    datasets.register("squares")(lambda data: Found(SPLIT, None, ("a", "b", "c"), "squares"))
    data = datasets.load(config.base().data.to_dict() | {"name": "squares", "image_size": 4, "resize": resize})
    assert data.train.images.shape[1:] == data.test.images.shape[1:] == (resize or 4, resize or 4, 1)
    assert not data.own_split
