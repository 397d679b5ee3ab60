"""Tests that images in memory agree with their data set's row in the registry, or are refused."""

import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.data import datasets
from resnet_flax.data.images import Found, Images
from resnet_flax.errors import UserError


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
