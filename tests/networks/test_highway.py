"""Highway layers at their two ends: T = 1 is the plain layer, T = 0 the identity; and how far gates are open."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.analysis.gates import openness
from resnet_flax.data import resident, sources
from resnet_flax.errors import UserError
from resnet_flax.networks import build
from resnet_flax.networks.highway import gate_bias
from resnet_flax.networks.units import HighwayUnit, PlainUnit
from tests.networks.small import images_and_labels, network, variables_of


def unit_and_variables(gate):
    """A highway unit that keeps its shape, its gates' bias set, and the plain unit with the same weights."""
    layers = network("highway").layers
    unit, plain = HighwayUnit(8, 1, layers), PlainUnit(8, 1, layers)
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 8), jnp.float64)
    variables = jax.tree.map(lambda a: a, jax.jit(unit.init, static_argnums=2)(jax.random.key(1), x, True))
    for i in (1, 2):
        variables["params"][f"gate{i}"]["bias"] = jnp.full(8, float(gate))
    shared = {"params": {k: v for k, v in variables["params"].items() if "gate" not in k}}
    return unit, variables, plain, shared | {"batch_stats": variables["batch_stats"]}, x


def output_and_gradients(unit, variables, x):
    """The output, and the gradients of its weighted sum with respect to parameters and input."""
    weights = jax.random.normal(jax.random.key(2), x.shape, x.dtype)

    def weighted(params, x):
        y, _ = unit.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
        return (y * weights).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True))(variables["params"], x)
    return y, gradients, weights


def test_an_open_gate_gives_the_plain_layer(double):
    unit, variables, plain, shared, x = unit_and_variables(gate=60)  # sigmoid(60) is 1 to the last bit of float64
    y, (of_params, of_x), _ = output_and_gradients(unit, variables, x)
    expected, (of_plain, of_plain_x), _ = output_and_gradients(plain, shared, x)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(of_x, of_plain_x, rtol=1e-10, atol=1e-12)
    for layer, leaves in of_plain.items():
        for name, leaf in leaves.items():
            np.testing.assert_allclose(of_params[layer][name], leaf, rtol=1e-9, atol=1e-10, err_msg=f"{layer} {name}")
    assert all(np.abs(leaf).max() < 1e-15 for k in ("gate1", "gate2") for leaf in jax.tree.leaves(of_params[k]))


def test_a_closed_gate_gives_the_identity(double):
    unit, variables, _, _, x = unit_and_variables(gate=-60)
    y, (of_params, of_x), weights = output_and_gradients(unit, variables, x)
    np.testing.assert_allclose(y, x, atol=1e-20)
    np.testing.assert_allclose(of_x, weights, rtol=1e-12)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(of_params)) < 1e-20


@pytest.mark.parametrize(("bias", "expected"), [(0.0, 0.5), (-2.197, 0.1)])
def test_the_bias_decides_how_far_gates_are_open_at_the_start(bias, expected):
    """Mean T of each of the 17 gates of highway-20, on digits: sigmoid(0) = 0.5, sigmoid(-2.197) = 0.1.

    W_T x is small at the start but not zero, and sigmoid bends upwards below zero: a few hundredths are allowed.
    """
    c = config.load("configs/digits.py", "highway-20", {"model.gate_bias": bias})
    data = sources.load(c.data)
    images = resident.normalization("pixel_mean", data.train)(jnp.asarray(data.train.images[:64]), jnp.float32)
    net = build(config.resolve(c).model, 10)
    found = openness(net, jax.jit(net.init)(jax.random.key(0), images), images, train=True)
    assert len(found) == 16  # 18 layers in units, less the two that change the shape
    assert [name for name, _ in found][:2] == ["stage1.1.gate1", "stage1.1.gate2"]
    values = np.array([value for _, value in found])
    assert np.abs(values - expected).max() < 0.05, values
    assert abs(values.mean() - expected) < 0.02


def test_openness_is_the_mean_of_the_gate(double):
    """Against the gate written out, in the first unit of a network."""
    x, _ = images_and_labels(4)
    net = network("highway", stage_units=(1,), gate_bias=-1.0)
    variables = variables_of(net, x)
    (name, first), _ = openness(net, variables, x)
    _, named = net.apply(variables, x, False, True)
    gate = variables["params"]["stage1"]["first"]["gate1"]
    w = jax.lax.conv_general_dilated(
        named["stem"], gate["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert name == "stage1.1.gate1"
    assert first == pytest.approx(float(jax.nn.sigmoid(w + gate["bias"]).mean()), rel=1e-9)


@pytest.mark.parametrize(("depth", "bias"), [(8, -1), (14, -1), (20, -2), (26, -3), (32, -3), (110, -3), (1202, -3)])
def test_gate_bias_by_depth(depth, bias):
    assert gate_bias(depth) == bias
    assert config.resolve(config.load("configs/digits.py", f"highway-{depth}")).model.gate_bias == bias


def test_gate_bias_is_a_number_or_none_and_survives_json():
    c = config.resolve(config.load("configs/digits.py", "highway-20", {"model.gate_bias": -1}))
    assert config.from_json(config.to_json(c)).model.gate_bias == -1
    other = config.resolve(config.load("configs/digits.py", "plain-20"))
    assert other.model.gate_bias is None
    assert config.differences(other, config.from_json(config.to_json(other))) == []
    with pytest.raises(UserError, match="gate_bias.*low"):
        config.from_json(config.to_json(other).replace('"gate_bias": null', '"gate_bias": "low"'))


def test_there_is_no_highway_bottleneck():
    c = config.base()
    config.apply_name(c, "highway-bottleneck-29")
    with pytest.raises(UserError, match="model.block='bottleneck' does not fit model.unit='highway', .* be basic"):
        config.validate(c)


def test_gates_keep_to_the_twins_widths():
    """A highway net is its plain twin and, in each layer that keeps its shape, a gate with a kernel and a bias."""
    from resnet_flax.analysis.counts import parameters

    c = config.base()
    c.model.update(depth=32)
    plain, highway = (build({**c.model, "unit": unit}, 10) for unit in ("plain", "highway"))
    gates = sum((9 * f * f + f) * n for f, n in ((16, 10), (32, 9), (64, 9)))
    assert parameters(highway, (32, 32, 3)) - parameters(plain, (32, 32, 3)) == gates
    assert dataclasses.replace(highway.layers, gate_bias=0.0) == dataclasses.replace(plain.layers, gate_bias=0.0)
