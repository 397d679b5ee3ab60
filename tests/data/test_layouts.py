"""Tests of training batches of a data set in memory: crops, flips and means against their definitions."""

import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from resnet_flax.data import layouts, pixels, transforms
from resnet_flax.data.images import Images
from resnet_flax.data.transforms import Transform, stream_key
from tests.marks import slow


def random_images(n=40, side=6, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return Images(rng.integers(0, 256, (n, side, side, channels), np.uint8), rng.integers(0, 10, n).astype(np.int32))


@dataclasses.dataclass(frozen=True)
class Stream:
    """A training stream of a data set in memory."""

    transform: Transform
    batch_size: int
    seed: int


def stream(data, batch_size=32, pad=0, flip=False, name="none", dtype=jnp.float32, seed=0):
    return Stream(Transform(pixels.normalization(name, data), dtype, pad, flip), batch_size, seed)


def on_device(data):
    return layouts.put(data, SingleDeviceSharding(jax.devices()[0]))


def batch(s, data, step, first=0, count=None):
    place = jnp.uint32(first) + jnp.arange(count or s.batch_size, dtype=jnp.uint32)
    layout = layouts.shuffled(s.batch_size)
    found = layout.batch_at(on_device(data), s.seed, jnp.int32(step), place) | {"place": place}
    return s.transform.train(found, s.seed, jnp.int32(step)), found["labels"]


def test_without_augmentation_an_epoch_is_the_data_set():
    data = random_images(n=40)
    s = stream(data, batch_size=10)
    batches = [batch(s, data, step) for step in range(4)]
    images = np.concatenate([b[0] for b in batches])
    order = np.argsort([i.tobytes() for i in images], kind="stable")
    expected = data.images.astype(np.float32) / 255
    np.testing.assert_allclose(images[order], expected[np.argsort([i.tobytes() for i in expected])], rtol=1e-6)


def test_labels_stay_with_their_images():
    data = random_images()
    images, labels = batch(stream(data), data, 5)
    for image, label in zip(images, labels, strict=True):
        which = [i for i, x in enumerate(data.images) if np.allclose(x / 255, image, atol=1e-6)]
        assert [data.labels[i] for i in which] == [label]


def test_all_crops_occur_equally_often():
    """Every image is one of the (2 pad + 1)^2 crops of the padded image, mirrored or not; all are equally likely."""
    data = Images(random_images(n=1).images, np.zeros(1, np.int32))
    pad = 2
    s = stream(data, batch_size=500, pad=pad, flip=True, name="pixel_mean")
    # One image minus its mean is zero: use another mean, so that padding (zeros) differs from the image.
    half = pixels.Normalization(np.full((6, 6, 3), 0.5), np.ones(1))
    s = dataclasses.replace(s, transform=dataclasses.replace(s.transform, normalization=half))
    images, _ = batch(s, data, 0)
    padded = np.pad(data.images[0] / 255 - 0.5, ((pad, pad), (pad, pad), (0, 0)))
    crops = [padded[i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
    crops = np.stack(crops + [c[:, ::-1] for c in crops])
    distances = np.abs(np.asarray(images)[:, None] - crops).max((2, 3, 4))
    assert (distances.min(1) < 1e-6).all()
    counts = np.bincount(distances.argmin(1), minlength=50)
    assert ((counts - 10) ** 2 / 10).sum() < 85.4  # chi-squared, 49 degrees of freedom: once in 1,000


@pytest.mark.parametrize("devices", [slow(2), 8])
def test_images_do_not_depend_on_their_device(devices):
    data = random_images()
    s = stream(data, pad=1, flip=True)
    whole = batch(s, data, 3)
    share = s.batch_size // devices
    parts = [batch(s, data, 3, first=d * share, count=share) for d in range(devices)]
    for i in (0, 1):
        np.testing.assert_array_equal(whole[i], np.concatenate([p[i] for p in parts]))


def test_batches_differ_between_steps_and_between_seeds():
    data = random_images()
    a = batch(stream(data, pad=1), data, 0)[0]
    assert not np.array_equal(a, batch(stream(data, pad=1), data, 1)[0])
    assert not np.array_equal(a, batch(stream(data, pad=1, seed=1), data, 0)[0])


def test_pixel_mean_subtracts_the_mean_image():
    data = random_images()
    normalize = pixels.normalization("pixel_mean", data)
    np.testing.assert_allclose(normalize.mean, (data.images / 255).mean(0), rtol=1e-12)
    result = normalize(jnp.asarray(data.images), jnp.float32)
    np.testing.assert_allclose(result.mean(0), 0, atol=1e-6)


def test_channel_normalises_each_channel():
    data = random_images()
    result = np.asarray(pixels.normalization("channel", data)(jnp.asarray(data.images), jnp.float32))
    np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std((0, 1, 2)), 1, atol=1e-5)


def test_imagenet_normalises_by_its_constants():
    data = random_images()
    result = pixels.normalization("imagenet", data)(jnp.asarray(data.images), jnp.float32)
    expected = (data.images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(result, expected, atol=1e-5)
    with pytest.raises(ValueError, match="but these have 1"):
        pixels.normalization("imagenet", random_images(channels=1))


def test_streams_have_different_keys():
    names = ["order", "augmentation", "parameters", "dropout"]
    keys = {tuple(np.asarray(jax.random.key_data(stream_key(0, n))).tolist()) for n in names}
    assert len(keys) == len(names)


@pytest.mark.parametrize("name", ["pixel_mean", "channel"])
def test_statistics_take_little_memory(name):
    """They take a tenth of the memory of the images; counting all images at once took three times their memory."""
    images = np.random.default_rng(0).integers(0, 256, (1000, 48, 48, 3), np.uint8)
    data = Images(images, np.zeros(1000, np.int32))
    tracemalloc.start()
    found = pixels.normalization(name, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.nbytes / 4
    axes = 0 if name == "pixel_mean" else (0, 1, 2)
    np.testing.assert_allclose(found.mean, images.mean(axes) / 255, rtol=1e-12)
    if name == "channel":
        np.testing.assert_allclose(found.std, images.std(axes) / 255, rtol=1e-9)


def test_cutout_zeroes_a_square_of_half_the_side_cut_at_the_edges():
    """As in arXiv:1708.04552: the centre is any pixel, so a square may lie partly outside."""
    keys = jax.random.split(jax.random.key(0), 200)
    cut = np.asarray(jax.vmap(transforms.cutout, (None, 0))(jnp.ones((8, 12, 3)), keys)) == 0
    rows, columns = cut.any((2, 3)).sum(1), cut.any((1, 3)).sum(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 4, 3, 6)
    np.testing.assert_array_equal(cut.sum((1, 2, 3)), 3 * rows * columns)
