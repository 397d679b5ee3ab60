"""A scanned stage applies its units one after the other: compared with an explicit loop and the unrolled stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax.networks.units import UNITS
from tests.marks import slow
from tests.networks.small import images_and_labels, loss_and_gradients, network, variables_of

CASES = [("preactivation", "bottleneck", "B"), slow("highway", "basic", "A")]
OTHERS = [(unit, "basic", "A") for unit in sorted(UNITS) if unit != "highway"]
OTHERS += [(unit, "bottleneck", "A") for unit in sorted(UNITS) if "bottleneck" in UNITS[unit].blocks]
OTHERS += [("residual", "bottleneck", "C")]
CASES += [slow(*case) for case in OTHERS]


@pytest.mark.parametrize(("unit", "block", "shortcut"), CASES)
def test_scanned_and_unrolled_agree(double, unit, block, shortcut):
    """Outputs, updated statistics and gradients agree for the same variables, up to rounding of float64."""
    x, labels = images_and_labels()
    scanned, unrolled = (network(unit, block, shortcut=shortcut, unroll=unroll) for unroll in (False, True))
    variables = variables_of(scanned, x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, jax.eval_shape(unrolled.init, jax.random.key(0), x)
    )
    a = loss_and_gradients(scanned, variables, x, labels)
    b = loss_and_gradients(unrolled, variables, x, labels)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-8, atol=1e-10), a, b)


@pytest.mark.parametrize(
    ("family", "unit"),
    [("vgg", "plain"), ("highway", "highway"), slow("highway", "residual")],
)
def test_scanned_and_unrolled_agree_where_units_are_single_layers(double, family, unit):
    x, labels = images_and_labels(side=6)
    keys = dict(block="single", family=family, stage_units=(3, 1), hidden=(5,), stage_filters=(8, 12))
    scanned, unrolled = (network(unit, unroll=unroll, **keys) for unroll in (False, True))
    variables = variables_of(scanned, x)
    a, b = (loss_and_gradients(net, variables, x, labels) for net in (scanned, unrolled))
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-8, atol=1e-10), a, b)


def test_scanned_and_unrolled_agree_in_float32():
    x, labels = images_and_labels()
    keys = dict(dtype="float32", param_dtype="float32")
    nets = [network("residual", unroll=unroll, **keys) for unroll in (False, True)]
    variables = variables_of(nets[0], x.astype(jnp.float32))
    a, b = (loss_and_gradients(n, variables, x, labels) for n in nets)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-3, atol=2e-5), a, b)


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_a_stage_is_its_units_in_turn(double, unit):
    """The stem's output passes through unit after unit, each applied with its slice of the stacked variables."""
    x, _ = images_and_labels()
    net = network(unit)
    variables = variables_of(net, x)
    _, named = jax.jit(net.apply, static_argnums=(2, 3))(variables, x, False, True)

    y = named["stem"]
    for i, (units, filters) in enumerate(zip(net.stage_units, net.stage_filters, strict=True), start=1):
        stage = {kind: variables[kind][f"stage{i}"] for kind in variables if f"stage{i}" in variables[kind]}
        y = UNITS[unit](filters, 1 if i == 1 else 2, net.layers, i == 1).apply(
            {k: v["first"] for k, v in stage.items()}, y, False
        )
        for j in range(units - 1):
            mine = {k: jax.tree.map(lambda a, j=j: a[j], v["rest"]) for k, v in stage.items()}
            y = UNITS[unit](filters, 1, net.layers).apply(mine, y, False)
        np.testing.assert_allclose(y, named[f"stage{i}"], rtol=1e-9, atol=1e-11)


def test_units_start_with_different_kernels():
    net = network("residual", dtype="float32", param_dtype="float32")
    variables = jax.jit(net.init)(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    kernels = variables["params"]["stage1"]["rest"]["conv1"]["kernel"]
    assert len(np.unique(np.asarray(kernels[:, 0, 0, 0, 0]))) == len(kernels) == 2
