"""The setup of a run: the same examples for data in memory and on disk, and checks of its settings."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_flax import config
from resnet_flax.data import datasets, decoding, transforms
from resnet_flax.data.access import whole_batches
from resnet_flax.data.images import Found, Images
from resnet_flax.errors import UserError
from resnet_flax.training import step as steps
from resnet_flax.training.devices import replicated
from resnet_flax.training.executor import train_steps
from resnet_flax.training.readiness import check_settings
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.setup import prepare
from resnet_flax.training.state import abstract_state


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
    taken = np.random.RandomState(0).permutation(8)[:7]
    assert labels.tolist() == [int(i >= 4) for i in taken]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    assert len(images) == len(labels) == 7
    expected = [(decoding.resize_and_crop(train[i], 40, 32, 3, "bilinear") / 255 - mean) / std for i in taken]
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert len(setup.examples(100)[0]) == len(setup.dataset.train) == 8


@pytest.mark.parametrize("pipeline", ["resident", "stream"])
def test_examples_of_class_folders_are_of_all_classes(tmp_path, pipeline):
    """Class folders are sorted by class, and gradients of a single class would be those of another problem."""
    for value, name in enumerate(("ant", "bee", "cow", "dog")):
        (tmp_path / name).mkdir()
        for i in range(40):
            Image.new("RGB", (8, 8), (60 * value, i, 0)).save(tmp_path / name / f"{i}.png")
    given = {"data.folder": str(tmp_path), "data.image_size": 8, "data.resize": 8, "data.pipeline": pipeline}
    given["data.normalization"] = "none"
    images, labels = prepare(config.resolve(config.load("configs/folder.py", "residual-18", given))).examples(32)
    assert np.bincount(labels, minlength=4).min() >= 3
    np.testing.assert_array_equal(np.rint(images[:, 0, 0, 0] * 255), 60 * labels)


def test_examples_of_images_by_name_are_the_first_ones():
    setup = prepare(config.resolve(config.load("configs/digits.py", "plain-8")))
    _, labels = setup.examples(32)
    np.testing.assert_array_equal(labels, setup.dataset.train.labels[:32])


def test_images_that_lie_by_class_are_mixed(monkeypatch):
    """Regression test: only class folders were, so BN was re-estimated over batches of one class each."""
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))
    labels = np.repeat(np.arange(4), 40).astype(np.int32)
    images = np.broadcast_to(labels[:, None, None, None].astype(np.uint8), (160, 6, 6, 1))
    datasets.register("sorted")(lambda data: Found(Images(images, labels), Images(images, labels), "abcd", "here"))
    setup = prepare(config.resolve(config.load("configs/digits.py", "plain-8", {"data.name": "sorted"})))
    assert np.bincount(setup.examples(32)[1], minlength=4).min() >= 3
    access, train = setup.dataset.access, setup.dataset.train
    batches = list(whole_batches(access, access.mix_classes(train), 16))
    assert [len(batch) for batch in batches] == [16] * 10
    assert all(len(np.unique(batch)) >= 3 for batch in batches)
    one, two = (Images(images, np.arange(160, dtype=np.int32) % n) for n in (1, 2))
    for split in (one, two, Images(images[:0], labels[:0]), Images(images[:1], labels[:1])):
        assert access.mix_classes(split) is split


def test_the_bn_group_is_checked_only_where_groups_are_normalised():
    """Regression test: half a batch of 125 images, which the config file derives, was refused without BN, too.

    So it was where only the head is trained, since a frozen network has running statistics.
    """

    def check(**given):
        given = {key.replace("__", "."): value for key, value in given.items()}
        check_settings(config.resolve(config.load("configs/cifar10.py", "plain-8", given)), None, 1)

    with pytest.raises(UserError, match=r"^train\.bn_group=62 does not fit train\.batch_size=125 on 1 devices"):
        check(train__batch_size=125)
    with pytest.raises(UserError, match=r"^train\.accumulate=4 makes parts of 32 images, but BN normalises 64 images"):
        check(train__accumulate=4)
    for without in ({"model__norm": "none"}, {"optimizer__trainable": "head"}):
        check(train__batch_size=125, **without)
        check(train__accumulate=4, **without)


def test_the_settings_of_a_config_reach_the_step(monkeypatch):
    """BN over 64 of 128 images, label smoothing and parts of a batch would be lost without an error."""
    seen = {}
    monkeypatch.setattr(steps, "training_step", lambda state, images, labels, **keys: seen.update(keys) or state)
    given = {
        "train.bn_group": 2, "train.accumulate": 2, "train.label_smoothing": 0.1, "train.metrics": "top5_error",
        "optimizer.trainable": "head",
    }  # fmt: skip
    c = config.resolve(config.load("configs/digits.py", "residual-8", given))
    setup, recipe = prepare(c), Recipe(c)
    sharding = replicated(setup.mesh)
    like = abstract_state(setup.network, recipe.optimizer(), setup.image_shape, sharding, metrics=setup.metrics)
    layout, arrays = setup.dataset.access.training_shapes(setup.mesh, c.train.batch_size, 1442)
    train_steps(setup, recipe, layout).trace(like, arrays)
    assert (seen["network"].layers.bn_group, seen["network"].frozen) == (2, True)
    assert (seen["label_smoothing"], seen["accumulate"], seen["metrics"]) == (0.1, 2, ("top5_error",))


@pytest.mark.parametrize(
    ("augment", "returned"),
    [
        (lambda image, key: (50 * image).astype(jnp.uint8), "uint8"),
        (lambda image, key: image[1:-1, 1:-1], r"6, ?6, ?1"),
        (lambda image, key: image.mean(), r"shape=\(\)"),
        (lambda image, key: None, "None"),
    ],
)
def test_an_augmentation_returns_an_image_like_the_given_one(augment, returned, monkeypatch):
    """Regression test: numbers of another type and smaller images were accepted, other shapes ended in Flax's error."""
    monkeypatch.setattr(transforms, "AUGMENTATIONS", {"mine": augment, "cutout": transforms.cutout})
    c = config.load("configs/digits.py", "residual-8", {"data.transforms": "cutout,mine"})
    refusal = rf"^data\.transforms='cutout,mine': mine must return an image .* \(8, 8, 1\) float32, not .*{returned}"
    with pytest.raises(UserError, match=refusal):
        prepare(config.resolve(c))
    c.data.transforms = "cutout"
    prepare(config.resolve(c))
