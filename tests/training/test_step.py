"""Tests of the training step: against PyTorch, on different numbers of devices, and of the size of its program."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.data import datasets, layouts, pixels, transforms
from resnet_flax.networks import build
from resnet_flax.networks.units import UNITS
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training import step as steps
from resnet_flax.training.devices import DATA_AXIS, data_mesh, replicated
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.schedule import learning_rate
from resnet_flax.training.state import abstract_state, initial_state
from resnet_flax.training.step import make_train_steps, reset_sums, training_step
from tests.marks import slow
from tests.networks.test_new_unit import StochasticUnit


def network_of(unit, depth, dtype="float32", **keys):
    c = config.base()
    c.model.update(unit=unit, depth=depth, dtype=dtype, param_dtype=dtype)
    c.model.update(**keys)
    return c, build(c.model, 10)


@pytest.mark.parametrize(
    ("unit", "dtype", "rate", "tolerance"),
    [
        slow("plain", "float64", 0.1, 1e-7),
        ("residual", "float64", 0.1, 1e-7),
        slow("plain", "float32", 1e-5, 1e-4),
        slow("residual", "float32", 1e-4, 1e-4),
    ],
)
def test_ten_steps_agree_with_pytorch(unit, dtype, rate, tolerance):
    """Compares losses and parameters after ten SGD steps of 14 layers.

    This covers convolutions, padding, option A, BN, weight decay and momentum. In float64 the rate is the paper's; in
    float32 it is smaller, because the first steps amplify rounding errors, most of all in a plain network.
    """
    torch = pytest.importorskip("torch")
    from tests.peer import cifar_network, from_flax, steps

    with jax.enable_x64(dtype == "float64"):
        c, network = network_of(unit, 14, dtype)
        rng = np.random.default_rng(0)
        batches = [
            (rng.standard_normal((16, 8, 8, 3)).astype(dtype), rng.integers(0, 10, 16).astype(np.int32))
            for _ in range(10)
        ]
        c.optimizer.learning_rate = rate
        optimizer = optimizers.build(c.optimizer, learning_rate(c.optimizer, c.schedule))
        state = initial_state(network, optimizer, 0, (8, 8, 3))
        peer = cifar_network(unit, 2).to(getattr(torch, dtype))
        from_flax(peer, state.params)
        theirs = steps(peer, batches, rate)

        step = jax.jit(lambda s, x, y: training_step(s, x, y, network=network, optimizer=optimizer))
        ours = []
        for images, labels in batches:
            state = step(reset_sums(state), images, labels)
            ours.append(float(state.sums["loss"]) / 16)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance)

        expected = cifar_network(unit, 2)
        from_flax(expected, state.params, state.batch_stats)
    for (name, a), (_, b) in zip(expected.state_dict().items(), peer.state_dict().items(), strict=True):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


def run_on(devices, split, *rest, **keys):
    """Returns the state after calls of ``split`` steps each; see :func:`made_for` for the other arguments."""
    steps, begin, arrays = made_for(devices, *rest, **keys)
    return after(steps, begin(), arrays, split)


def after(steps, state, arrays, split):
    for count in split:
        state = steps(state, arrays, np.int32(count))
    return jax.device_get(state)


def made_for(devices, bn_group=0, dtype="float32", unit="residual", **keys):
    """Returns steps on the first ``devices`` devices, a function that makes their initial state, and the digits."""
    c, _ = network_of(unit, 8, dtype, width=0.25, stage_units=(1, 1), **keys)
    network = build(c.model, 10, bn_group, DATA_AXIS)
    data = datasets.load(config.load("configs/digits.py").data).train
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), (DATA_AXIS,), axis_types=data_mesh().axis_types)
    optimizer = optimizers.build(c.optimizer, learning_rate(c.optimizer, c.schedule))
    transform = transforms.Transform(pixels.normalization("pixel_mean", data), jnp.dtype(dtype), pad=1)
    steps = make_train_steps(network, Recipe(c), layouts.shuffled(32), transform, 0, 32, mesh)
    begin = partial(initial_state, network, optimizer, 0, (8, 8, 1), replicated(mesh))
    return steps, begin, layouts.put(data, replicated(mesh))


@pytest.mark.parametrize(
    ("unit", "bn_group"),
    [
        slow("residual", 0),
        slow("residual", 8),
        ("residual", 2),
        slow("preactivation", 0),
        slow("highway", 0),
    ],
)
def test_eight_devices_agree_with_one(double, unit, bn_group):
    """Covers BN over the global batch, over the shares of two devices, and within a device."""
    one = run_on(1, [10], bn_group, "float64", unit)
    eight = run_on(8, [10], bn_group, "float64", unit)
    assert one.sums["images"] == eight.sums["images"] == 320
    assert one.sums["errors"] == eight.sums["errors"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), one, eight)


def test_eight_devices_drop_the_same_branches_as_one(double, monkeypatch):
    """The unit of docs/extending.md, in both stages of one unit each; with BN groups of 4 images."""
    monkeypatch.setitem(UNITS, "stochastic", StochasticUnit)
    one, eight = (run_on(devices, [10], 4, "float64", "stochastic") for devices in (1, 8))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), one, eight)
    monkeypatch.setattr(StochasticUnit, "is_random", False)
    kept = run_on(1, [10], 4, "float64", "stochastic")
    assert abs(float(one.sums["loss"] / kept.sums["loss"]) - 1) > 1e-3


@pytest.mark.slow  # test_layouts.py and test_dropout.py test that random numbers do not depend on the device
def test_eight_devices_drop_the_same_features_as_one(double):
    one, eight = (run_on(devices, [10], 0, "float64", dropout=0.3, hidden=(12,)) for devices in (1, 8))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), one, eight)
    undropped = run_on(1, [10], 0, "float64", hidden=(12,))
    assert abs(float(one.sums["loss"] / undropped.sums["loss"]) - 1) > 1e-3


@pytest.mark.parametrize("rate", [slow(0.0), 0.3])
def test_splitting_steps_into_calls_changes_no_bit(rate):
    steps, begin, arrays = made_for(8, dropout=rate)
    a, b = (after(steps, begin(), arrays, split) for split in ([7], [1, 4, 2]))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert a.step == 7


def test_one_program_for_every_number_of_steps():
    c, _ = network_of("residual", 8, width=0.25)
    network = build(c.model, 10, 0, DATA_AXIS)
    data = datasets.load(config.load("configs/digits.py").data).train
    mesh = data_mesh()
    optimizer = optimizers.build(c.optimizer, learning_rate(c.optimizer, c.schedule))
    transform = transforms.Transform(pixels.normalization("none", data), jnp.float32, pad=1)
    steps = make_train_steps(network, Recipe(c), layouts.shuffled(16), transform, 0, 16, mesh)
    state = initial_state(network, optimizer, 0, (8, 8, 1), replicated(mesh))
    on_device = layouts.put(data, replicated(mesh))
    for count in (1, 3, 2):
        state = reset_sums(steps(state, on_device, np.int32(count)))
    assert steps.program._cache_size() == 1


def test_the_first_step_with_a_nonfinite_loss_is_recorded():
    c, network = network_of("residual", 8, width=0.25)
    optimizer = optimizers.build(c.optimizer, lambda step: 0.01)
    state = initial_state(network, optimizer, 0, (8, 8, 1))
    step = jax.jit(lambda s, x, y: training_step(s, x, y, network=network, optimizer=optimizer))
    good, labels = jnp.ones((4, 8, 8, 1)), jnp.zeros(4, jnp.int32)
    for images in (good, good, good * jnp.nan, good):
        state = step(state, images, labels)
    assert state.sums["first_bad_step"] == 2


def test_without_dropout_no_mask_is_drawn(monkeypatch):
    """The program then contains neither masks nor their random keys. Keys depend on the step."""
    drawn, of_steps = [], []
    keys = transforms.example_keys

    def keep(seed, name, step, place):
        drawn.append(name)
        of_steps.append(step)
        return keys(seed, name, step, place)

    for module in (transforms, steps):
        monkeypatch.setattr(module, "example_keys", keep)
    monkeypatch.setattr("resnet_flax.networks.network.dropout", lambda x, *_: drawn.append("mask") or x)

    def trace(**keys):
        made, begin, arrays = made_for(1, **keys)
        made.trace(jax.eval_shape(begin), arrays)

    trace()
    assert set(drawn) == {"augmentation"}
    drawn.clear()
    trace(dropout=0.1)
    assert set(drawn) == {"augmentation", "dropout", "mask"}
    assert all(isinstance(step, jax.core.Tracer) for step in of_steps)  # that of the state, no constant


def equations(jaxpr):
    """Counts the equations of a program, including those of inner programs as often as the compiler will see them."""
    total = 0
    for equation in jaxpr.eqns:
        total += 1
        times = equation.params["unroll"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                total += times * equations(inner) if hasattr(inner, "eqns") else 0
    return total


@pytest.mark.parametrize("unit", ["highway", *(slow(u) for u in sorted(UNITS) if u != "highway")])
def test_the_program_does_not_grow_with_depth(unit):
    """ResNet-1202 has no more equations in a step than ResNet-20, which is unrolled: so compiling is quick."""

    def size(depth, unroll=False):
        c, network = network_of(unit, depth, unroll=unroll)
        optimizer = optimizers.build(c.optimizer, lambda step: 0.1)
        state = abstract_state(network, optimizer, (32, 32, 3), replicated(data_mesh()))
        images, labels = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.int32)
        step = lambda s, x, y: training_step(s, x, y, network=network, optimizer=optimizer)  # noqa: E731
        return equations(jax.make_jaxpr(step)(state, images, labels).jaxpr)

    assert size(1202) <= size(20)
    assert size(110, unroll=True) > 5 * size(110)  # The count sees unrolling.


def test_the_state_holds_no_random_key():
    c, network = network_of("residual", 8)
    optimizer = optimizers.build(c.optimizer, lambda step: 0.1)
    state = abstract_state(network, optimizer, (8, 8, 1), replicated(data_mesh()))
    assert not [a for a in jax.tree.leaves(state) if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key)]


def test_parameters_do_not_depend_on_how_the_batch_is_split():
    c, network = network_of("residual", 8)
    split = build(c.model, 10, 4, DATA_AXIS)
    optimizer = optimizers.build(c.optimizer, lambda s: 0.1)
    a, b = (initial_state(n, optimizer, 3, (8, 8, 1)).params for n in (network, split))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert dataclasses.replace(split.layers, axis_name=None, bn_group=0) == network.layers
