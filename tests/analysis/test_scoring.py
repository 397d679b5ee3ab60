"""Probabilities in batches against one view at a time; the fully convolutional form; the count of wrong ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_flax.analysis import scoring
from resnet_flax.data import views
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.data.resident import Normalization
from resnet_flax.errors import UserError
from tests.networks import small

PREPROCESSING = Preprocessing(36, 32, 3, "bilinear", Normalization(np.full(3, 0.5), np.full(3, 0.25)), ())
SIZES = [(50, 40), (40, 50), (50, 40), (64, 36), (40, 40), (50, 40), (36, 90)]


@pytest.fixture(scope="module")
def network():
    net = small.network("residual", width=0.25, dtype="float32", param_dtype="float32", stage_units=(1, 1))
    return net, small.variables_of(net, jnp.zeros((1, 32, 32, 3)))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    found = [folder / f"{i}.png" for i in range(len(SIZES))]
    for path, (width, height) in zip(found, SIZES, strict=True):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return found


@pytest.fixture(scope="module")
def expected(network, paths):
    """View by view, with no batches."""
    net, variables = network
    apply = jax.jit(lambda x: jax.nn.softmax(net.apply(variables, x, train=False)))

    def of(view):
        arrays = [views.views_of(path, PREPROCESSING, view) for path in paths]
        return np.stack([np.mean([apply(v[None])[0] for a in found for v in a], 0) for found in arrays])

    return {view: of(view) for view in views.VIEWS}


@pytest.mark.parametrize("view", views.VIEWS)
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_batches_are_one_at_a_time(network, paths, expected, view, batch_size):
    found = scoring.probabilities(*network, PREPROCESSING, paths, view, batch_size)
    assert found.shape == (7, 10)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[view], atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_batches_that_go_before_they_are_full(network, paths, expected, monkeypatch):
    monkeypatch.setattr(scoring, "_WAITING_BATCHES", 0)
    found = scoring.probabilities(*network, PREPROCESSING, paths, "multiscale", 4)
    np.testing.assert_allclose(found, expected["multiscale"], atol=1e-5)


@pytest.mark.parametrize(("view", "batch_size"), [("center", 3), ("10crop", 8), ("multiscale", 8)])
def test_each_shape_has_one_size_of_batch(network, paths, monkeypatch, view, batch_size):
    shapes, compute = [], scoring._softmax

    def watched(net, variables, images):
        shapes.append(images.shape)
        return compute(net, variables, images)

    monkeypatch.setattr(scoring, "_softmax", watched)
    scoring.probabilities(*network, PREPROCESSING, paths, view, batch_size)
    assert max(s[0] for s in shapes) <= batch_size
    assert len(set(shapes)) == len({s[1:] for s in shapes})
    # No more pixels at once than central crops have, unless a single view has more.
    assert all(s[0] == 1 or s[0] * s[1] * s[2] <= batch_size * 32 * 32 for s in shapes)


def test_whole_images_are_the_mean_of_logits_over_positions(network, monkeypatch):
    """The dense layer at each position of the last stage, then the mean: that is fully convolutional."""
    net, variables = network
    x = jnp.asarray(np.random.default_rng(2).standard_normal((1, 64, 96, 3)), jnp.float32)
    _, named = net.apply(variables, x, intermediates=True)
    dense, last = variables["params"]["dense"], named["stage2"]
    assert last.shape[1:3] == (32, 48)
    logits = (last @ dense["kernel"] + dense["bias"]).mean((1, 2))
    monkeypatch.setattr(scoring, "views_of", lambda path, preprocessing, view: [np.asarray(x)])
    found = scoring.probabilities(net, variables, PREPROCESSING, ["any"], "multiscale", 4)
    np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=1e-5)


def test_unreadable_files(network, paths, expected, tmp_path):
    broken, noted = tmp_path / "broken.png", []
    broken.write_bytes(b"nothing")
    given = [*paths[:2], broken, *paths[2:]]
    found = scoring.probabilities(*network, PREPROCESSING, given, "10crop", 8, lambda p, e: noted.append((p, str(e))))
    assert [path for path, _ in noted] == [broken]
    assert str(broken) in noted[0][1]
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(np.delete(found, 2, 0), expected["10crop"], atol=1e-5)
    with pytest.raises(UserError, match=r"broken\.png"):
        scoring.probabilities(*network, PREPROCESSING, given)


def test_no_images(network):
    assert scoring.probabilities(*network, PREPROCESSING, []).shape == (0, 10)


def test_networks_for_one_size_have_no_multiscale(network, paths):
    net, variables = network
    with pytest.raises(UserError, match="one size"):
        scoring.probabilities(net.clone(flattens=True), variables, PREPROCESSING, paths, "multiscale")


def test_top_k_error():
    scores = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2], [np.nan] * 3])
    labels = np.array([0, 1, 0, 1, 0])
    assert [scoring.top_k_error(scores, labels, k) for k in (1, 2, 3)] == [3, 2, 1]
