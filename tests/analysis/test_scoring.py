"""Class probabilities in batches, compared with one view at a time; the fully convolutional form; losses and errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_flax.analysis import scoring
from resnet_flax.data import views
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.errors import Diverged, UserError
from resnet_flax.training.evaluation import evaluate_log_probabilities
from tests.marks import slow
from tests.networks import small

PREPROCESSING = Preprocessing(36, 32, 3, "bilinear", Normalization(np.full(3, 0.5), np.full(3, 0.25)), ())
SIZES = [(50, 40), (40, 50), (50, 40), (64, 36), (40, 40), (50, 40), (36, 90)]


def log_probabilities(network, *arguments):
    return np.reshape(list(scoring.stream_log_probabilities(network, *arguments)), (-1, network.classes))


def probabilities(*arguments):
    return np.exp(log_probabilities(*arguments))


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
    """The probabilities of each photograph by view, computed without batches."""
    net, variables = network
    apply = jax.jit(lambda x: jax.nn.softmax(net.apply(variables, x, train=False)))

    def of(view):
        arrays = [views.views_of(path, PREPROCESSING, view) for path in paths]
        return np.stack([np.mean([apply(v[None])[0] for a in found for v in a], 0) for found in arrays])

    return {view: of(view) for view in views.VIEWS}


@pytest.mark.parametrize("view", views.VIEWS)
@pytest.mark.parametrize("batch_size", [slow(1), 4, slow(32)])
def test_batches_give_the_results_of_single_views(network, paths, expected, view, batch_size):
    found = probabilities(*network, PREPROCESSING, paths, view, batch_size)
    assert found.shape == (7, 10)
    np.testing.assert_allclose(found, expected[view], atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("limit", ["_WAITING_BYTES", "_BATCH_BYTES", "_WAITING_FILES"])
def test_batches_that_are_computed_before_they_are_full(network, paths, expected, monkeypatch, limit):
    monkeypatch.setattr(scoring, limit, 0)
    found = probabilities(*network, PREPROCESSING, paths, "multiscale", 4)
    np.testing.assert_allclose(found, expected["multiscale"], atol=1e-5)


def test_waiting_views_are_bounded_in_bytes(monkeypatch):
    """100 views of 1 MB on average have many different shapes, none of which fills a batch."""
    monkeypatch.setattr(scoring, "_WAITING_BYTES", 8 * 2**20)
    batches, given, out, most = scoring._Batches(32, 224, 100), 0, 0, 0
    for place in range(100):
        view = np.zeros((1, 224, 32 * (place + 1) % 800 + 32, 3), np.float32)
        given += view.nbytes
        out += sum(v.nbytes for batch in batches.put(place, view) for v in batch.views)
        most = max(most, given - out)
    assert 7 * 2**20 < most <= 8 * 2**20
    assert batches._size(1, np.zeros((2000, 2000, 3), np.float32)) == 1


def test_rows_come_as_soon_as_they_are_known(network, paths, monkeypatch):
    """Rows come after a few of 1,000 files, and an image of a rare shape does not delay them much."""
    read, views = [], np.zeros((1, 32, 32, 3), np.float32)

    def views_of(path, preprocessing, view):
        read.append(path)
        return [views[:, :, :16] if path == 0 else views]

    monkeypatch.setattr(scoring, "views_of", views_of)
    monkeypatch.setattr(scoring, "_WAITING_FILES", 64)
    rows = scoring.stream_log_probabilities(*network, PREPROCESSING, range(1000), "center", 4)
    next(rows)
    assert 64 < len(read) < 90
    assert 1 + sum(1 for _ in rows) == 1000
    rows = scoring.stream_log_probabilities(*network, PREPROCESSING, range(1, 1000), "center", 4)
    read.clear()
    next(rows)
    assert len(read) < 25
    rows.close()


@pytest.mark.parametrize(("view", "batch_size"), [("center", 3), ("10crop", 8), ("multiscale", 8)])
def test_each_shape_has_one_size_of_batch(network, paths, monkeypatch, view, batch_size):
    shapes, compile_for = [], scoring._log_softmax

    def watched(net):
        def compute(variables, images):
            shapes.append(images.shape)
            return compile_for(net)(variables, images)

        return compute

    monkeypatch.setattr(scoring, "_log_softmax", watched)
    probabilities(*network, PREPROCESSING, paths, view, batch_size)
    assert max(s[0] for s in shapes) <= batch_size
    assert len(set(shapes)) == len({s[1:] for s in shapes})
    # A batch has at most the pixels of batch_size centre crops, unless a single view has more.
    assert all(s[0] == 1 or s[0] * s[1] * s[2] <= batch_size * 32 * 32 for s in shapes)


def test_whole_images_are_the_mean_of_logits_over_positions(network, monkeypatch):
    """In fully convolutional form, the dense layer is applied at each position of the last stage, then averaged."""
    net, variables = network
    x = jnp.asarray(np.random.default_rng(2).standard_normal((1, 64, 96, 3)), jnp.float32)
    _, named = net.apply(variables, x, intermediates=True)
    dense, last = variables["params"]["dense"], named["stage2"]
    assert last.shape[1:3] == (32, 48)
    logits = (last @ dense["kernel"] + dense["bias"]).mean((1, 2))
    monkeypatch.setattr(scoring, "views_of", lambda path, preprocessing, view: [np.asarray(x)])
    found = probabilities(net, variables, PREPROCESSING, ["any"], "multiscale", 4)
    np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=1e-5)


def test_an_unreadable_file_has_an_error_in_its_place(network, paths, expected, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    given = [*paths[:2], broken, *paths[2:]]
    found = list(scoring.stream_log_probabilities(*network, PREPROCESSING, given, "10crop", 8))
    error = found.pop(2)
    assert isinstance(error, UserError)
    assert str(error).startswith(f"{broken}: ")
    np.testing.assert_allclose(np.exp(found), expected["10crop"], atol=1e-5)


def test_probabilities_that_are_not_finite_raise_an_error(network, paths):
    """The error names the photograph. (Its row of NaN was once mistaken for an unreadable file.)"""
    net, variables = network
    params = {**variables["params"], "dense": {k: v * 3e38 for k, v in variables["params"]["dense"].items()}}
    with pytest.raises(Diverged, match=r"/0\.png: the network's probabilities are not finite$"):
        log_probabilities(net, {**variables, "params": params}, PREPROCESSING, paths)


def test_no_images(network):
    assert probabilities(*network, PREPROCESSING, []).shape == (0, 10)


def test_networks_trained_on_images_that_are_not_squares_are_refused(network, paths):
    oblong = dataclasses.replace(PREPROCESSING, width=40)
    assert oblong.image_shape == (32, 40, 3)
    assert Preprocessing.from_json(oblong.to_json()).width == 40
    with pytest.raises(UserError, match="images of 32x40 pixels, but photographs can only be resized to squares"):
        probabilities(*network, oblong, paths)


def test_networks_for_images_of_one_size_refuse_multiscale(network, paths):
    net, variables = network
    with pytest.raises(UserError, match="one size"):
        probabilities(net.clone(flattens=True), variables, PREPROCESSING, paths, "multiscale")


def test_a_loss_averages_probabilities_without_underflow(network, monkeypatch):
    """A probability of exp(-4022) underflows in any floating-point type; the views' average is over probabilities."""
    logits = np.zeros((2, 10), np.float32)
    logits[:, 3] = 4022, 4020  # of two views
    monkeypatch.setattr(scoring, "views_of", lambda path, preprocessing, view: [np.zeros((2, 32, 32, 3), np.float32)])
    monkeypatch.setattr(scoring, "_log_softmax", lambda net: lambda variables, images: jax.nn.log_softmax(logits))
    found = log_probabilities(*network, PREPROCESSING, ["any"], "10crop", 2)
    wrong, right = (evaluate_log_probabilities(found, [label]) for label in (5, 3))
    assert wrong.loss == pytest.approx(4020 - np.log((1 + np.exp(-2)) / 2), abs=1e-3)
    assert (wrong.errors, right.errors) == (1, 0)
    assert right.loss == pytest.approx(0, abs=1e-6)
