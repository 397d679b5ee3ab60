"""Gradients and responses of the scanned program, compared with jax.grad of an unrolled copy and with a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from resnet_flax.analysis import propagation
from resnet_flax.analysis.layer_order import layers_in_order
from tests.marks import slow
from tests.networks.small import images_and_labels, network, variables_of

pytestmark = pytest.mark.usefixtures("double")


class Copy:
    """The networks written layer by layer, without Flax, scan or BN module; ``taps`` are added to the responses."""

    def __init__(self, unit, norm, params):
        self.unit, self.norm, self.params = unit, norm, params

    def convolve(self, x, kernel, stride):
        pad = kernel.shape[0] // 2
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), ((pad, pad),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def normalize(self, x, p):
        if self.norm == "none":
            return x + p["bias"]
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / jnp.sqrt(var + 1e-5) * p["scale"] + p["bias"]

    def run(self, kernels, taps, x, labels):
        """Returns the loss and the responses; kernels and taps are dicts with the names of :func:`layers_in_order`."""
        self.kernels, self.taps, self.responses = kernels, taps, {}
        relu = jax.nn.relu
        x = self.normalize(self.convolve(x, kernels["stem_conv"], 1), self.params["stem_bn"])
        x = relu(self.tap(x, "stem_response"))
        for i, units in ((1, 3), (2, 2)):
            for j in range(1, units + 1):
                stage = self.params[f"stage{i}"]
                p = stage["first"] if j == 1 else jax.tree.map(lambda a, j=j: a[j - 2], stage["rest"])
                x = self.apply_unit(x, p, f"stage{i}.{j}.", 2 if (i, j) == (2, 1) else 1, first=(i, j) == (1, 1))
        if self.unit == "preactivation":
            x = relu(self.normalize(x, self.params["final_bn"]))
        logits = x.mean((1, 2)) @ kernels["dense"] + self.params["dense"]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), self.responses

    def tap(self, x, name):
        x = x + self.taps.get(name, 0)
        self.responses[name] = x
        return x

    def apply_unit(self, x, p, at, stride, first):
        relu, y = jax.nn.relu, x
        for k in (1, 2):
            step, kernel = stride if k == 1 else 1, self.kernels[f"{at}conv{k}"]
            if self.unit == "preactivation":
                if not (first and k == 1):
                    y = relu(self.normalize(y, p[f"bn{k}"]))
                y = self.tap(self.convolve(y, kernel, step), f"{at}response{k}")
                continue
            h = self.tap(self.normalize(self.convolve(y, kernel, step), p[f"bn{k}"]), f"{at}response{k}")
            if self.unit == "highway":
                h = relu(h)
                if h.shape == y.shape:
                    gate = p[f"gate{k}"]
                    t = jax.nn.sigmoid(self.convolve(y, gate["conv"]["kernel"], 1) + gate["bias"])
                    h = h * t + y * (1 - t)
                y = h
            else:
                y = relu(h) if k == 1 or self.unit == "plain" else h
        if self.unit in ("residual", "preactivation"):
            y = y + jnp.pad(x[:, ::stride, ::stride], ((0, 0),) * 3 + ((0, y.shape[-1] - x.shape[-1]),))
        return relu(y) if self.unit == "residual" else y


@pytest.mark.parametrize(
    ("unit", "norm"),
    [slow("plain", "none"), ("highway", "batch")]
    + [slow(unit, "none") for unit in ("residual", "highway", "preactivation")]
    + [slow(unit, "batch") for unit in ("plain", "residual", "preactivation")],
)
def test_gradients_and_responses_are_those_of_an_unrolled_copy(unit, norm):
    """The gradients of all weights and activations agree, in the layers' order, and the deviations of all responses."""
    x, labels = images_and_labels(6)
    net = network(unit, norm=norm)
    variables = variables_of(net, x)
    found = propagation.measure(net, variables, x, labels)
    assert propagation.measure(net.clone(frozen=True), variables, x, labels) == found  # as in a run of the head alone

    copy = Copy(unit, norm, variables["params"])
    kernels = {n: k for n, k in layers_in_order(variables["params"], "kernel", r"stem_conv|conv\d|dense")}
    assert len(kernels) == 12  # stem, five units of two, dense
    shapes = jax.eval_shape(lambda: copy.run(kernels, {}, x, labels)[1])
    taps = {name: jnp.zeros(s.shape) for name, s in shapes.items()}
    gradient = jax.jit(jax.value_and_grad(copy.run, argnums=(0, 1), has_aux=True))
    (loss, responses), (of_kernels, of_taps) = gradient(kernels, taps, x, labels)

    assert found.loss == pytest.approx(float(loss), rel=1e-9)
    assert [name for name, _ in found.weights] == list(kernels) != sorted(kernels)
    assert [name for name, _ in found.activations] == [name for name, _ in found.responses] == list(copy.responses)
    for name, value in found.weights:
        assert value == pytest.approx(float(jnp.linalg.norm(of_kernels[name])), rel=1e-7), name
    for name, value in found.activations:
        assert value == pytest.approx(float(jnp.linalg.norm(of_taps[name])), rel=1e-7), name
    for name, value in found.responses:
        assert value == pytest.approx(float(responses[name].std()), rel=1e-7), name


def test_scaling_all_kernels_scales_the_ratio_of_gradients_by_a_power():
    """In a plain net without BN and biases, kernels times s multiply the gradients' ratio over L layers by s**L.

    ReLU commutes with a positive factor, so the same ReLUs are active, and the backward signal passes each kernel once.
    The dense layer's kernel is so small that probabilities are equal for any output of the stages, and so the loss's
    gradient with respect to the logits does not change.
    """
    x, labels = images_and_labels(6)
    net, s = network("plain", norm="none"), 1.3
    variables = variables_of(net, x)

    def scaled(factor):
        def one(path, leaf):
            name = path[-1].key
            if path[-2].key == "dense":
                return leaf * 1e-12
            return leaf * factor if name == "kernel" else leaf * 0 if name == "bias" else leaf

        return jax.tree_util.tree_map_with_path(one, variables)

    before, after = ([v for _, v in propagation.measure(net, scaled(f), x, labels).activations] for f in (1.0, s))
    assert len(before) == 11
    for i in range(11):
        for j in range(i, 11):
            # The gradient at layer i has passed j - i more kernels than the gradient at layer j: layers i + 1 to j.
            assert (after[i] / after[j]) / (before[i] / before[j]) == pytest.approx(s ** (j - i), rel=1e-6)


def test_layers_come_in_the_order_of_the_network():
    tree = {
        "dense": {"kernel": 9}, "hidden1": {"kernel": 8.5}, "last_conv": {"kernel": 8.2},
        "stage10": {"first": {"conv1": {"kernel": 8}}}, "stem_conv": {"kernel": 0},
        "stage2": {
            "first": {"conv1": {"kernel": 1}, "bn1": {"scale": -1}},
            "rest": {"conv1": {"kernel": np.array([2, 4])}, "conv2": {"kernel": np.array([3, 5])}},
        },
    }  # fmt: skip
    assert layers_in_order(tree, "kernel") == [
        ("stem_conv", 0), ("stage2.1.conv1", 1), ("stage2.2.conv1", 2), ("stage2.2.conv2", 3), ("stage2.3.conv1", 4),
        ("stage2.3.conv2", 5), ("stage10.1.conv1", 8), ("last_conv", 8.2), ("hidden1", 8.5), ("dense", 9),
    ]  # fmt: skip


def test_a_network_with_dropout_is_measured_without_it():
    """Its gradients are those of jax.grad of the network without dropout, on the same variables."""
    x, labels = images_and_labels(6)
    net, without = (network("residual", stage_units=(1,), hidden=(16,), dropout=rate) for rate in (0.5, 0.0))
    variables = variables_of(net, x)

    def loss_of(params):
        logits, _ = without.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(variables["params"])
    found = propagation.measure(net, variables, x, labels)
    assert found.loss == pytest.approx(float(loss), rel=1e-9)
    kernels = layers_in_order(gradients, "kernel", r"stem_conv|conv\d|hidden1|dense")
    assert [name for name, _ in found.weights] == [name for name, _ in kernels]
    norms = [float(jnp.linalg.norm(kernel)) for _, kernel in kernels]
    assert [value for _, value in found.weights] == pytest.approx(norms, rel=1e-7)
