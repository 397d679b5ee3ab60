"""Published sizes: each is found for its network and no other, and equals our counts."""

import dataclasses
import functools

import pytest

from resnet_flax import config
from resnet_flax.analysis import counts
from resnet_flax.analysis.published_sizes import PublishedSize, published, rows
from resnet_flax.networks import build
from resnet_flax.networks.units import UNITS
from tests.marks import slow


def configs_of(row):
    """Yields configs that a row describes: all combinations of its lists do, and the first and the last are tested."""
    for pick in (0, -1):
        keys = {key: value[pick] if isinstance(value, list) else value for key, value in row["model"].items()}
        if keys["unit"] in UNITS:
            c = config.base()
            c.model.update({k: tuple(v) if isinstance(v, list) else v for k, v in keys.items()})
            yield config.resolve(c)


def ours(row, c):
    return _count(row["quantity"], build(c.model, row["classes"]), tuple(row["image"]))


@functools.cache
def _count(quantity, network, image):
    """Counts a network's size; cached, since several sources print the same number."""
    return getattr(counts, quantity)(network, image)


def _is_long(row):
    return row["image"][0] == 224 and (row["model"]["depth"] in (34, 101, 152) or row["quantity"] == "multiply_adds")


@pytest.mark.parametrize(
    "row",
    [slow(row) if _is_long(row) else row for row in rows()],
    ids=lambda row: f"{row['name']}-{row['quantity']}-{row['printed']}",
)
def test_each_published_number_is_found_and_equals_the_count(row):
    keys = config.flatten(config.base())
    assert {f"model.{key}" for key in row["model"]} <= set(keys)
    assert float(row["printed"].replace(",", "")) == row["value"]
    for c in configs_of(row):
        found = published(c.model, tuple(row["image"]), row["classes"])
        assert PublishedSize(**{f.name: row[f.name] for f in dataclasses.fields(PublishedSize)}) in found
        here = ours(row, c)
        if "torchvision" in row["source"]:
            assert here == row["value"] or f"{here / 1e9:.3f}e9" == row["printed"]
        else:
            # The papers truncate some numbers and round others: they print 1.814e9 as 1.8e9, and 3.664e9 as 3.6e9.
            assert here == pytest.approx(row["value"], rel=0.03)


def test_every_residual_network_for_imagenet_has_published_sizes():
    for depth in (18, 34, 50, 101, 152):
        c = config.resolve(config.load("configs/imagenet.py", f"residual-{depth}"))
        found = {(p.quantity, p.source.partition(",")[0]) for p in published(c.model, (224, 224, 3), 1000)}
        assert {q for q, _ in found} == {"parameters", "multiply_adds"}
        assert ("multiply_adds", "arXiv:1512.03385") in found


@pytest.mark.parametrize(
    "keys",
    [
        {"model.width": 2.0}, {"model.shortcut": "B"}, {"model.stage_units": (2, 3, 4)}, {"model.unit": "plain"},
    ],
    ids=str,
)  # fmt: skip
def test_a_variant_is_not_the_published_network(keys):
    image = (32, 32, 3)
    same = config.resolve(config.load("configs/cifar10.py", "residual-20", {"model.initialization": "lecun"}))
    assert len(published(same.model, image, 10)) == 1
    assert published(same.model, image, 100) == published(same.model, (16, 16, 3), 10) == []
    other = config.resolve(config.load("configs/cifar10.py", "residual-20", keys))
    assert published(other.model, image, 10) == []
