"""Tests per-step metrics against gradients and updates of each layer, and that measuring them does not affect a run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.networks import build
from resnet_flax.training import loop, metric_functions
from resnet_flax.training.state import initial_state
from resnet_flax.training.step import training_step
from tests.commands import lines
from tests.training.small import small_config

METRICS = ("gradient_norm", "update_ratio", "top5_error")


def flat(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf, np.float64)
            for path, leaf in jax.tree.leaves_with_path(tree)}  # fmt: skip


def norm_of(arrays, layer, unit=None):
    """Returns the norm of all arrays of a layer; ``unit`` selects one of several scanned units."""
    own = [array if unit is None else array[unit] for name, array in arrays.items() if name.startswith(layer + ".")]
    return float(np.sqrt(sum((array**2).sum() for array in own)))


@pytest.fixture(scope="module")
def step():
    """The states of a network with scanned units before and after a step of SGD, and the gradients between them."""
    c = config.load("configs/digits.py", "residual-26")
    c.model.width = 0.25
    network, optimizer = build(c.model, 10), optax.sgd(0.1)
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((8, 8, 8, 1)).astype(np.float32), rng.integers(0, 10, 8).astype(np.int32)
    state = initial_state(network, optimizer, 0, (8, 8, 1), metrics=METRICS)

    def loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    after = jax.jit(lambda s: training_step(s, images, labels, network=network, optimizer=optimizer, metrics=METRICS))(
        state
    )
    return state, jax.jit(jax.grad(loss))(state.params), jax.device_get(after)


def test_norms_are_those_of_each_layer_and_unit(step):
    before, gradients, after = step
    found = metric_functions.training_metrics(after.sums, METRICS, 8)
    gradients, old, new = map(flat, (gradients, before.params, after.params))
    updates = {name: new[name] - old[name] for name in old}
    for name, layer, unit in [
        ("stem_conv", "stem_conv", None), ("stage1.1.conv1", "stage1.first.conv1", None),
        ("stage2.2.conv2", "stage2.rest.conv2", 0), ("stage3.4.bn1", "stage3.rest.bn1", 2), ("dense", "dense", None),
    ]:  # fmt: skip
        assert found[f"gradient_norm/{name}"] == pytest.approx(norm_of(gradients, layer, unit), rel=1e-4)
        ratio = norm_of(updates, layer, unit) / norm_of(new, layer, unit)
        assert found[f"update_ratio/{name}"] == pytest.approx(ratio, rel=1e-3)
    norms = [found[name] ** 2 for name in found if name.startswith("gradient_norm/")]
    assert sum(norms) == pytest.approx(sum((array**2).sum() for array in gradients.values()), rel=1e-4)
    names = [name.partition("/")[2] for name in found if name.startswith("gradient_norm/")]
    assert names[0].startswith("stem")
    assert names[-1] == "dense"
    assert [name for name in names if name.endswith("conv1")] == [f"stage{s}.{u}.conv1" for s in (1, 2, 3)
                                                                  for u in (1, 2, 3, 4)]  # fmt: skip


def test_the_update_ratio_is_zero_without_an_update():
    tree = {"bn1": {"scale": jnp.zeros(3)}, "dense": {"kernel": jnp.ones((2, 2))}}
    updates = {"bn1": {"scale": jnp.zeros(3)}, "dense": {"kernel": jnp.full((2, 2), -0.5)}}
    assert metric_functions.update_ratio(None, tree, updates) == {"bn1": 0, "dense": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("plain") / "run"
    loop.run(small_config(), workdir)
    return workdir


@pytest.mark.slow  # the test of a resumed run, below, covers the same
def test_measuring_more_does_not_affect_a_run(run, tmp_path):
    c = small_config(train__metrics=",".join(METRICS))
    loop.run(c, tmp_path)
    usual, found = lines(run), lines(tmp_path)
    for line, more in zip(usual, found, strict=True):
        for name, value in line.items():
            assert more[name] == pytest.approx(value, rel=1e-4), name
    assert {name.partition("/")[0] for name in found[-1].keys() - usual[-1].keys()} == {
        "gradient_norm", "update_ratio", "train_top5_error", "test_top5_error",
    }  # fmt: skip
    assert 0 <= found[-1]["test_top5_error"] <= found[-1]["test_error"]
    assert all(value > 0 for name, value in found[-1].items() if name.startswith("gradient_norm/"))
    assert json.loads((tmp_path / "config.json").read_text())["train"]["metrics"]


def test_names_that_are_not_registered_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"train.metrics='gradient': 'gradient' is not known; choose from gradient_norm, "
    ):
        loop.run(small_config(train__metrics="gradient"), tmp_path)
    with pytest.raises(UserError, match=r"data.transforms='cutout,blur': 'blur' is not known; choose from cutout"):
        loop.run(small_config(data__transforms="cutout,blur"), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_a_metric_may_be_added_where_a_run_is_resumed(run, tmp_path):
    c = small_config(train__steps=8)
    loop.run(c, tmp_path)
    c = small_config(train__metrics=",".join(METRICS))
    loop.run(c, tmp_path)
    usual, found = lines(run), lines(tmp_path)
    assert [line["step"] for line in found] == [4, 8, 12]
    assert found[:2] == usual[:2]
    assert found[2]["train_loss"] == pytest.approx(usual[2]["train_loss"], rel=1e-4)
    assert found[2]["gradient_norm/dense"] > 0
    c = small_config(train__steps=16)
    assert "gradient_norm/dense" not in loop.run(c, tmp_path)
