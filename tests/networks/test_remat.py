"""Rematerialisation computes the same numbers with less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.analysis.stage_costs import stage_costs
from resnet_flax.networks import build, stages
from resnet_flax.networks.units import UNITS
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.state import abstract_state
from resnet_flax.training.step import training_step
from tests.marks import slow
from tests.networks.small import images_and_labels, loss_and_gradients, network, variables_of

GIB = 2**30


CASES = [
    pytest.param(unit, "unit", False, marks=() if unit == "highway" else pytest.mark.slow) for unit in sorted(UNITS)
]
CASES += [slow("residual", "unit", True), slow("residual", "stage", False)]


@pytest.mark.parametrize(("unit", "remat", "unroll"), CASES)
def test_gradients_are_equal_with_and_without(double, unit, remat, unroll):
    """Loss, logits, updated statistics, and the gradients of parameters and images are equal."""
    x, labels = images_and_labels()
    plainly, again = network(unit), network(unit, remat=remat, unroll=unroll)
    variables = variables_of(plainly, x)
    a, b = (loss_and_gradients(net, variables, x, labels) for net in (plainly, again))
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12), a, b)


@pytest.mark.parametrize("most_unrolled", [0, slow(35)])
def test_the_formulation_for_gpus_computes_the_same(double, monkeypatch, most_unrolled):
    """Paired sums, and loops that save less or are unrolled, are run here on the CPU."""
    monkeypatch.setattr(stages, "_UNROLL_AT_MOST_ON_GPU", most_unrolled)
    x, labels = images_and_labels()
    plainly = network("preactivation", bn_group=4)
    on_gpu = plainly.clone(layers=dataclasses.replace(plainly.layers, gpu=True))
    variables = variables_of(plainly, x)
    a, b = (loss_and_gradients(net, variables, x, labels) for net in (plainly, on_gpu))
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12), a, b)


@pytest.mark.parametrize("remat", ["unit", "stage"])
def test_variables_and_probes_are_the_same(double, remat):
    x, _ = images_and_labels()
    plainly, again = network("highway"), network("highway", remat=remat)
    a, b = (jax.eval_shape(net.init, jax.random.key(0), x) for net in (plainly, again))
    assert a == b
    variables = variables_of(plainly, x)
    seen = [
        jax.jit(lambda v, net=net: net.apply(v, x, True, mutable=["batch_stats", "responses", "gates"]))(variables)[1]
        for net in (plainly, again)
    ]
    assert set(seen[0]) == {"batch_stats", "responses", "gates"}
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-9), *seen)


def memory_of_a_step(remat):
    """Returns the bytes that XLA plans for ResNet-1202's training step at batch 128."""
    c = config.base()
    c.model.update(depth=1202, remat=remat)
    net, everywhere = build(c.model, 10), replicated(data_mesh())
    optimizer = optimizers.build(c.optimizer, lambda step: 0.1)
    state = abstract_state(net, optimizer, (32, 32, 3), everywhere)
    images, labels = (
        jax.ShapeDtypeStruct((128, *shape), dtype, sharding=everywhere)
        for shape, dtype in (((32, 32, 3), jnp.float32), ((), jnp.int32))
    )
    step = jax.jit(lambda s, x, y: training_step(s, x, y, network=net, optimizer=optimizer), donate_argnums=0)
    m = step.lower(state, images, labels).compile().memory_analysis()
    return m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes + m.temp_size_in_bytes


@pytest.mark.slow  # compiles for 15 s; the next test counts the stored bytes without compiling
def test_1202_layers_train_within_4_gib():
    assert memory_of_a_step("unit") < 4 * GIB
    assert memory_of_a_step("none") > 8 * GIB


def test_rematerialisation_stores_the_inputs_of_stages_or_units():
    """Counted by hand for 56 layers: a stage stores the outputs of its units (except the last), or only its own."""
    side, batch = 32, 4
    kept = {}
    for remat in ("unit", "stage"):
        c = config.base()
        c.model.update(depth=56, remat=remat)
        kept[remat] = {s.name: s.activation_bytes for s in stage_costs(build(c.model, 10), (side, side, 3), batch)}
    unit_outputs = [4 * batch * side**2 * 16 // 2**i for i in range(3)]
    assert [kept["unit"][f"stage{i}"] for i in (1, 2)] == [9 * size for size in unit_outputs[:2]]
    assert kept["unit"]["stage3"] == 8 * unit_outputs[2]  # its output is only averaged
    assert [kept["stage"][f"stage{i}"] for i in (1, 2, 3)] == [*unit_outputs[:2], 0]
