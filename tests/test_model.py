"""Trained networks from Python, and the code in docs/weights.md."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from resnet_flax import config, model
from resnet_flax.data import datasets, loaders, pixels
from resnet_flax.data.images import Images
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.errors import UserError
from resnet_flax.evaluation_set import load_evaluation_set
from resnet_flax.interchange import names
from resnet_flax.networks import build
from resnet_flax.training import loop
from tests.commands import ROOT
from tests.interchange import random_weights
from tests.pages import block
from tests.training.small import small_config


def photograph(path, seed, size=(300, 260)):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)


def torchvision_file(path, depth=50, classes=1000):
    """Writes weights with torchvision's names, without a config or preprocessing."""
    from safetensors.numpy import save_file

    network = build(config.load(str(ROOT / "configs/imagenet.py"), f"residual-{depth}").model, classes)
    save_file(
        {e.name: random_weights.tensor(e.name, e.shape) for e in names.entries(network, (224, 224, 3), "imagenet")},
        path,
    )


def test_the_pages_lines_run(tmp_path, monkeypatch):
    torchvision_file(tmp_path / "resnet50.safetensors")
    photograph(tmp_path / "dog.jpg", 0)
    photograph(tmp_path / "bird.png", 1, (200, 480))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(block("model.from_weights"), scope)
    features, net = scope["features"], scope["net"]
    assert list(features) == ["stem", "stage1", "stage2", "stage3", "stage4", "pooled", "logits"]
    assert features["logits"].shape == (2, 1000)
    assert net.title == "residual-50"
    assert net.preprocessing.classes[:2] == ("tench", "goldfish")


def test_classes_of_a_file_without_names_are_numbered(tmp_path):
    torchvision_file(tmp_path / "r18.safetensors", 18, 4)
    net = model.from_weights(tmp_path / "r18.safetensors", config.load("configs/imagenet.py", "residual-18"))
    assert net.preprocessing.classes == ("class 0", "class 1", "class 2", "class 3")


def test_a_run_on_images_that_are_not_square(tmp_path, monkeypatch):
    """The network trains and accepts such images. Photographs are refused, because they would be made square."""
    digits = loaders._digits

    def narrow(size):
        train, test, classes = digits(size)
        return *(Images(s.images[:, :, 1:7], s.labels) for s in (train, test)), classes

    monkeypatch.setattr(loaders, "_digits", narrow)
    monkeypatch.setattr(datasets, "DATASETS", {"digits": dataclasses.replace(datasets.DATASETS["digits"], side=None)})
    loop.run(small_config(model__stage_units=(1,), train__steps=1), tmp_path / "run")
    net = model.from_run(tmp_path / "run")
    assert net.preprocessing.image_shape == (8, 6, 1)
    assert net.features(np.zeros((2, 8, 6, 1), np.float32))["logits"].shape == (2, 10)
    photograph(tmp_path / "1.png", 0)
    with pytest.raises(UserError, match="images of 8x6 pixels, but photographs can only be resized to squares"):
        net.prepare([tmp_path / "1.png"])
    for content in (b"{}", b"\xff"):
        (tmp_path / "run" / "preprocessing.json").write_bytes(content)
        with pytest.raises(UserError, match=r"run/preprocessing\.json: "):
            model.from_run(tmp_path / "run")


def test_a_backbone_gives_features(tmp_path):
    """A file without the last layer, like timm's with num_classes=0, gives all features but the logits."""
    from safetensors.numpy import load_file, save_file

    torchvision_file(tmp_path / "whole.safetensors", 18, 4)
    tensors = load_file(tmp_path / "whole.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith("fc.")}, tmp_path / "backbone.safetensors")
    c = config.load("configs/imagenet.py", "residual-18")
    whole, backbone = (model.from_weights(tmp_path / f"{name}.safetensors", c) for name in ("whole", "backbone"))
    images = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    expected = whole.features(images)
    del expected["logits"]
    found = backbone.features(images)
    assert list(found) == ["stem", "stage1", "stage2", "stage3", "stage4", "pooled"]
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
    assert found["pooled"].shape == (2, 512)
    with pytest.raises(
        UserError, match="a network without its last layer, which has no classes; train that layer: .*--res"
    ):
        backbone.check_classifies()


def test_the_resized_image_follows_the_users_size(tmp_path):
    """Regression test: torchvision's layout set it to 256 pixels, so 288 were refused, and 160 cut from too large ones.

    Without a size of the user's, torchvision's are taken.
    """
    torchvision_file(tmp_path / "r18.safetensors", 18, 4)

    def sizes(**given):
        given = {f"data.{key}": value for key, value in given.items()}
        c = config.load("configs/imagenet.py", "residual-18", given)
        found = model.from_weights(tmp_path / "r18.safetensors", c).config.data
        return found.resize, found.image_size

    assert sizes() == sizes(image_size=224) == (256, 224)
    assert sizes(image_size=288) == (329, 288)
    assert sizes(image_size=160) == (183, 160)
    assert sizes(image_size=160, resize=160) == (160, 160)
    assert sizes(resize=232) == (232, 224)
    with pytest.raises(UserError, match=r"^data.resize=256 must be at least data.image_size=288"):
        sizes(image_size=288, resize=256)


def test_a_file_without_the_training_sets_mean_is_refused(tmp_path):
    """CIFAR's recipe subtracts the training set's mean, which a bare file of weights does not hold."""
    from safetensors.numpy import save_file

    c = config.load("configs/cifar10.py", "residual-8")
    network = build(c.model, 10)
    found = {e.name: random_weights.tensor(e.name, e.shape) for e in names.entries(network, (32, 32, 3), "cifar")}
    save_file(found, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"normalization='pixel_mean' is a statistic of its training images"):
        model.from_weights(tmp_path / "w.safetensors", c, {"data.normalization"})


def test_paths_images_and_arrays_give_the_same_pixels(tmp_path):
    """Strings, paths, PIL images and arrays, one or several, give the same pixels."""
    torchvision_file(tmp_path / "r18.safetensors", 18, 4)
    c = config.load("configs/imagenet.py", "residual-18")
    net = model.from_weights(str(tmp_path / "r18.safetensors"), c)
    path = tmp_path / "one.png"
    photograph(path, 0)
    expected = net.prepare([path])
    assert expected.shape == (1, 224, 224, 3)
    with Image.open(path) as image:
        array = np.asarray(image)
        for given in (path, str(path), image, array, (a for a in [array]), array[None]):
            np.testing.assert_array_equal(net.prepare(given), expected)
        np.testing.assert_array_equal(net.prepare([image, str(path)]), np.repeat(expected, 2, 0))
    assert net.prepare([]).shape == (0, 224, 224, 3)
    assert net.prepare(array[..., 0]).shape == net.prepare(array[..., :1]).shape == (1, 224, 224, 3)
    with pytest.raises(
        UserError, match=r"must be uint8 \[H, W\] or \[H, W, C\] .*; this one is float64 \[260, 300, 3\]$"
    ):
        net.prepare(array / 255)
    with pytest.raises(UserError, match=r"nowhere\.png: there is no such file"):
        net.prepare(str(tmp_path / "nowhere.png"))


def test_keys_that_only_training_uses_are_not_checked_in_evaluation(tmp_path):
    """The crop is larger than the smallest scale of training, which evaluation does not use."""
    torchvision_file(tmp_path / "r18.safetensors", 18, 4)
    sizes = {"data.image_size": 288, "data.resize": 288, "data.scales": (256, 480)}
    c = config.load("configs/imagenet.py", "residual-18", sizes)
    with pytest.raises(UserError, match="data.scales"):
        config.validate(c)
    net = model.from_weights(tmp_path / "r18.safetensors", c)
    assert net.preprocessing.image_shape == (288, 288, 3)


def test_a_network_with_a_weight_for_each_pixel_keeps_its_image_size():
    c = config.resolve(config.load("configs/imagenet.py", "vgg-11"))
    sizes = Preprocessing(256, 224, 3, "bilinear", pixels.constants("imagenet", 3), ("cat", "dog"))
    net = model.Model(build(c.model, 2), {}, sizes, c)
    with pytest.raises(UserError, match="data.image_size=192: vgg-11 has a weight for each pixel of its last layer"):
        net.for_images({**c.data, "image_size": 192, "normalization": "imagenet"})
    other = net.for_images({**c.data, "resize": 240, "normalization": "imagenet"})
    assert (other.preprocessing.resize, other.preprocessing.image_size) == (240, 224)


@pytest.fixture
def untrained():
    c = config.resolve(config.load("configs/digits.py", "residual-8"))
    return model.Model(build(c.model, 2), {}, Preprocessing(8, 8, 1, "box", pixels.constants("none", 1), ("0", "1")), c)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"view": "10-crop"}, "view='10-crop' must be one of center, 10crop, multiscale"),
        ({"top": -1}, "top=-1 must be a whole number of at least 1"),
        ({"top": 0}, "top=0 must be a whole number of at least 1"),
        ({"top": 2.0}, "top=2.0 must be a whole number of at least 1"),
    ],
)
def test_what_predict_does_not_know_is_refused(given, message, untrained):
    """Regression test: an unknown view was the centre crop, and the last of -1 classes was left out."""
    with pytest.raises(UserError) as refusal:
        untrained.predict(np.zeros((8, 8), np.uint8), **given)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("images", "there"),
    [
        (np.zeros((2, 8, 8, 1), np.uint8), r"uint8 \[2, 8, 8, 1\]"),
        (np.zeros((8, 8, 1), np.float32), r"float32 \[8, 8, 1\]"),
        (np.zeros((2, 8, 8, 3), np.float32), r"float32 \[2, 8, 8, 3\]"),
    ],
)
def test_features_of_images_that_are_not_prepared_are_refused(images, there, untrained):
    refusal = rf"^images must be floating-point numbers \[N, H, W, 1\]; these are {there}; prepare them first: net"
    with pytest.raises(UserError, match=refusal):
        untrained.features(images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": "val"}, "split='val' must be one of test, validation, train, all"),
        ({"split": "classes"}, "split='classes' must be one of test, validation, train, all"),
        ({"view": "10-crop"}, "view='10-crop' must be one of center, 10crop, multiscale"),
        ({"view": "10crop"}, "--view=10crop is for photographs in a folder; name it in --config.data.folder"),
    ],
)
def test_what_an_evaluation_does_not_know_is_refused(given, message):
    with pytest.raises(UserError) as refusal:
        load_evaluation_set(config.resolve(config.load("configs/digits.py", "residual-8")), **given)
    assert str(refusal.value) == message
