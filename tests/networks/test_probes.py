"""Probes record the layers' true values, also in scanned stages, and cost nothing unless they are requested."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from resnet_flax.networks.convolution import Convolution
from resnet_flax.networks.normalization import BatchNorm
from resnet_flax.networks.probes import COLLECTIONS, Probe
from resnet_flax.networks.units import UNITS
from resnet_flax.training.devices import DATA_AXIS, data_mesh
from tests.marks import slow
from tests.networks.small import images_and_labels, network, variables_of

PREACTIVATED = {"preactivation"}  # units whose responses are outputs of convolutions, not of BNs

SOME = [slow(unit) if unit != "preactivation" else unit for unit in sorted(UNITS)]


@pytest.fixture
def example(double):
    return images_and_labels()


def look(net, variables, x, collections, train=False, **keys):
    """Applies the network and returns the requested collections of its probes."""
    apply = jax.jit(lambda v, x: net.apply(v, x, train, mutable=["batch_stats", *collections], **keys)[1])
    return {name: found for name, found in apply(variables, x).items() if name != "batch_stats"}


def loss_of(net, variables, x, labels):
    def loss(asked):
        logits, _ = net.apply({**variables, **asked}, x, True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return jax.jit(loss)


def names(unit, units):
    """Lists the layers of the network in order, as ((stage, unit), layer)."""
    return [((f"stage{i}", j), k) for i, n in enumerate(units, start=1) for j in range(n) for k in (1, 2)]


def at(tree, place):
    stage, j = place
    return tree[stage]["first"] if j == 0 else jax.tree.map(lambda a: a[j - 1], tree[stage]["rest"])


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_deviations_are_those_of_each_layers_output(example, unit):
    """They are compared with the outputs of the layers, which Flax captures."""
    x, _ = example
    net = network(unit)
    variables = variables_of(net, x)
    layers = dict(capture_intermediates=lambda m, _: isinstance(m, BatchNorm | Convolution))
    seen = look(net, variables, x, ["responses", "intermediates"], train=True, **layers)
    layer = "conv" if unit in PREACTIVATED else "bn"
    for place, k in names(unit, (3, 2)):
        output = at(seen["intermediates"], place)[f"{layer}{k}"]["__call__"][0]
        deviation = at(seen["responses"], place)[f"response{k}"]["deviation"]
        np.testing.assert_allclose(deviation, np.std(output), rtol=1e-9)
    stem = seen["intermediates"]["stem_bn"]["__call__"][0]
    np.testing.assert_allclose(seen["responses"]["stem_response"]["deviation"], np.std(stem), rtol=1e-9)
    assert len(jax.tree.leaves(seen["responses"])) == 1 + 2 * 2 * 2  # stem; stages; first and rest; layers


def test_a_bottlenecks_1x1_layers_have_other_names(example):
    x, _ = example
    net = network("residual", "bottleneck")
    seen = jax.eval_shape(lambda: look(net, variables_of(net, x), x, ["responses"]))
    assert set(seen["responses"]["stage1"]["first"]) == {"pointwise1", "response2", "pointwise3"}


@pytest.mark.parametrize("unit", SOME)
def test_gradients_with_respect_to_responses(example, unit):
    """In a scanned network they equal finite differences, and summed, the gradient of the BN's bias before them."""
    x, labels = example
    net = network(unit)
    variables = variables_of(net, x)
    zeros = look(net, variables, x, ["perturbations"], train=True)["perturbations"]
    assert zeros["stage1"]["rest"]["response2"]["response"].shape == (2, 8, 8, 8, 8)
    loss = loss_of(net, variables, x, labels)
    gradient_of = jax.jit(jax.grad(loss))
    gradients = gradient_of({"perturbations": zeros})["perturbations"]

    flat, structure = jax.tree.flatten(zeros)
    rng = np.random.default_rng(2)
    for i, gradient in enumerate(jax.tree.leaves(gradients)):
        direction = rng.standard_normal(gradient.shape)

        def along(t, i=i, direction=direction):
            shifted = [t * direction if i == k else zero for k, zero in enumerate(flat)]
            return loss({"perturbations": structure.unflatten(shifted)})

        difference = (along(1e-6) - along(-1e-6)) / 2e-6
        np.testing.assert_allclose(difference, np.vdot(gradient, direction), rtol=1e-4, atol=1e-7)

    if unit not in PREACTIVATED:
        of_params = gradient_of({"params": variables["params"]})["params"]
        for place, k in names(unit, (3, 2)):
            response = at(gradients, place)[f"response{k}"]["response"]
            np.testing.assert_allclose(response.sum((0, 1, 2)), at(of_params, place)[f"bn{k}"]["bias"], atol=1e-12)


@pytest.mark.parametrize("unit", SOME)
def test_probes_of_scanned_and_unrolled_networks_agree(example, unit):
    x, labels = example
    seen = []
    for unroll in (False, True):
        net = network(unit, unroll=unroll)
        variables = variables_of(net, x)
        found = look(net, variables, x, COLLECTIONS)
        gradient = jax.jit(jax.grad(loss_of(net, variables, x, labels)))
        seen.append((found, gradient({"perturbations": found["perturbations"]})))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), *seen)


@pytest.mark.parametrize("unit", SOME)
def test_probes_on_eight_devices_and_on_one_agree(example, unit):
    x, _ = example
    variables = variables_of(network(unit), x)
    seen = []
    for devices in (1, 8):
        net = network(unit, axis_name=DATA_AXIS)
        mesh = Mesh(np.array(jax.devices()[:devices]), (DATA_AXIS,), axis_types=data_mesh().axis_types)

        @jax.jit
        @partial(
            jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec(DATA_AXIS)), out_specs=PartitionSpec(),
            check_vma=False,
        )  # fmt: skip
        def on_all(variables, x, net=net):
            return look(net, variables, x, ["responses", "gates"], train=True)

        seen.append(jax.device_get(on_all(variables, x)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), *seen)


@pytest.mark.parametrize("unit", SOME)
def test_without_a_request_the_program_contains_no_probe(example, unit, monkeypatch):
    x, _ = example
    net = network(unit)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    assert set(variables) == {"params", "batch_stats"}
    apply = lambda v, x: net.apply(v, x, True, mutable=["batch_stats"])  # noqa: E731
    program = str(jax.make_jaxpr(apply)(variables, x))
    monkeypatch.setattr(Probe, "__call__", lambda self, x: x)
    jax.clear_caches()
    assert str(jax.make_jaxpr(apply)(variables, x)) == program


def test_bfloat16_deviations_are_float32():
    x = images_and_labels()[0].astype(jnp.float32)
    half, whole = (network("residual", dtype=dtype, param_dtype="float32") for dtype in ("bfloat16", "float32"))
    variables = variables_of(whole, x)
    a, b = (look(net, variables, x, ["responses"], train=True) for net in (half, whole))
    assert {leaf.dtype for leaf in jax.tree.leaves(a)} == {jnp.dtype("float32")}
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=0.02), a, b)  # bfloat16 has 8 bits
