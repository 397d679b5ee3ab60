"""Highway layers with T = 1 and T = 0, and how far gates are open at the start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.analysis.gates import openness
from resnet_flax.data import datasets, pixels
from resnet_flax.errors import UserError
from resnet_flax.networks import build
from resnet_flax.networks.highway import gate_bias
from resnet_flax.networks.units import HighwayUnit, PlainUnit
from tests.marks import slow
from tests.networks.small import images_and_labels, network, variables_of


def outputs_and_gradients(unit, variables, x):
    """Returns the output; the gradients of its weighted sum with respect to parameters and input; and the weights."""
    weights = jnp.asarray(np.random.default_rng(2).standard_normal(x.shape))

    def weighted(params, x):
        y, _ = unit.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
        return (y * weights).sum(), y

    (_, y), (of_params, of_x) = jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))(variables["params"], x)
    return y, of_params, of_x, weights


@pytest.fixture(params=["basic", "single"])
def twins(double, request):
    """A highway unit, a function that sets its gates' bias, the plain unit with the same weights, and an input."""
    block = request.param
    x = jnp.asarray(np.random.default_rng(1).standard_normal((4, 6, 6, 8)))
    layers = network("highway", "basic").layers
    layers = type(layers)(**{**vars(layers), "block": block})
    highway, plain = HighwayUnit(8, 1, layers), PlainUnit(8, 1, layers)
    variables = jax.jit(highway.init, static_argnums=2)(jax.random.key(0), x, True)

    def with_bias(bias):
        params = {
            name: {**layer, "bias": jnp.full(8, float(bias))} if name.startswith("gate") else layer
            for name, layer in variables["params"].items()
        }
        return {**variables, "params": params}

    shared = {name: layer for name, layer in variables["params"].items() if not name.startswith("gate")}
    return highway, with_bias, plain, {**variables, "params": shared}, x


def test_open_gates_give_the_plain_layers(twins):
    highway, with_bias, plain, shared, x = twins
    y, of_params, of_x, _ = outputs_and_gradients(highway, with_bias(60), x)  # sigmoid(60) is 1 in float64
    expected, of_plain_params, of_plain_x, _ = outputs_and_gradients(plain, shared, x)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(of_x, of_plain_x, rtol=1e-9, atol=1e-11)
    for name, layer in of_plain_params.items():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), of_params[name], layer)
    gates = [leaf for name, layer in of_params.items() if name.startswith("gate") for leaf in jax.tree.leaves(layer)]
    assert gates
    assert max(float(np.abs(leaf).max()) for leaf in gates) < 1e-20


def test_closed_gates_give_the_identity(twins):
    highway, with_bias, _, _, x = twins
    y, of_params, of_x, weights = outputs_and_gradients(highway, with_bias(-60), x)
    np.testing.assert_allclose(y, x, rtol=1e-14)
    np.testing.assert_allclose(of_x, weights, rtol=1e-12)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(of_params)) < 1e-20


@pytest.mark.parametrize(("bias", "expected"), [slow(0.0, 0.5), (-2.2, 0.1)])
def test_openness_at_the_start_is_that_of_the_bias(bias, expected):
    """The mean T of every gate of highway-20 on digits is sigmoid(b_T).

    W_T x has a standard deviation of about 0.1 at the start. T = 1/(1 + exp(-z)) has slope T(1 - T) <= 1/4. So the mean
    of a gate over its few filters is within 0.025, and the mean of 16 gates much nearer.
    """
    c = config.resolve(config.load("configs/digits.py", "highway-20", {"model.gate_bias": bias}))
    data = datasets.load(c.data).train
    images = pixels.normalization("pixel_mean", data)(jnp.asarray(data.images[:64]), jnp.float32)
    net = build(c.model, 10)

    @jax.jit
    def look(key):
        variables = net.init(key, images)
        return net.apply(variables, images, True, mutable=["batch_stats", "gates"])[1]["gates"]

    gates = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(look(jax.random.key(0)))])
    assert len(gates) == 16  # of 18 layers in units, two change the shape and have no gate
    np.testing.assert_allclose(gates, expected, atol=0.025)
    np.testing.assert_allclose(gates.mean(), expected, atol=0.01)


def test_openness_is_the_mean_of_the_gate(double):
    """The test compares the openness with the gate's formula, in the unit after the stem."""
    x, _ = images_and_labels()
    net = network("highway", stage_units=(1,))
    variables = variables_of(net, x)
    (_, named), seen = net.apply(variables, x, False, True, mutable=["gates"])
    gate = variables["params"]["stage1"]["first"]["gate1"]
    z = jax.lax.conv_general_dilated(
        named["stem"], gate["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    openness = seen["gates"]["stage1"]["first"]["gate1"]["openness"]
    np.testing.assert_allclose(openness, (1 / (1 + np.exp(-(z + gate["bias"])))).mean(), rtol=1e-9)


def test_openness_of_a_network_with_dropout_is_measured_without_it(double):
    """The openness is that of the gate's formula, with the batch's statistics, in the unit after the stem."""
    x, _ = images_and_labels()
    net, without = (network("highway", stage_units=(1,), dropout=rate) for rate in (0.5, 0.0))
    variables = variables_of(net, x)
    (_, named), _ = without.apply(variables, x, True, True, mutable=["batch_stats"])
    gate = variables["params"]["stage1"]["first"]["gate1"]
    z = jax.lax.conv_general_dilated(
        named["stem"], gate["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    (layer, found), *_ = openness(net.clone(frozen=True), variables, x, train=True)  # as in a run of the head alone
    assert (layer, found) == ("stage1.1.gate1", pytest.approx((1 / (1 + np.exp(-(z + gate["bias"])))).mean(), rel=1e-9))


@pytest.mark.parametrize(
    ("depth", "bias"), [(8, -1), (14, -1), (20, -2), (26, -3), (32, -3), (56, -3), (110, -3), (1202, -3)]
)
def test_gate_bias_by_depth(depth, bias):
    assert gate_bias(depth) == bias
    c = config.load("configs/digits.py", f"highway-{depth}")
    assert build(c.model, 10).layers.gate_bias == bias
    assert config.resolve(c).model.gate_bias == bias


def test_gate_bias_in_configs():
    """A resolved config has the given or the default number for gated units only, and config.json restores it."""
    for name, given, expected in [("highway-20", -1, -1), ("highway-20", None, -2), ("plain-20", -1, None)]:
        c = config.resolve(config.load("configs/digits.py", name, {"model.gate_bias": given}))
        assert c.model.gate_bias == expected
        again = config.from_json(config.to_json(c))
        assert again.model.gate_bias == expected
        assert config.differences(c, config.resolve(again)) == []


@pytest.mark.parametrize("value", ["low", True, float("nan"), [1]])
def test_a_gate_bias_that_is_no_number_is_refused(value):
    c = config.base()
    with c.unlocked():
        del c.model.gate_bias
        c.model.gate_bias = value
    with pytest.raises(UserError, match="model.gate_bias=.*; it must be a float, or None"):
        config.validate(c)
    c = config.base()
    with c.unlocked():
        c.model.depth = None
    with pytest.raises(UserError, match="model.depth=None"):
        config.validate(c)
