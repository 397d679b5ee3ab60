"""Units compared with PyTorch's, from the same weights, and with their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax.networks.units import UNITS
from tests.marks import slow
from tests.networks.small import images_and_labels, loss_and_gradients, network, variables_of


@pytest.mark.parametrize(
    ("unit", "block", "shortcut"),
    [
        ("preactivation", "bottleneck", "B"),
        *(slow("preactivation", "basic", shortcut) for shortcut in "ABC"),
        ("highway", "basic", "A"),
    ],
)
def test_forward_and_backward_are_pytorchs(double, unit, block, shortcut):
    torch = pytest.importorskip("torch")
    from tests.peer import cifar_network, from_flax
    from tests.peer import loss_and_gradients as peers_loss_and_gradients

    x, labels = images_and_labels(side=9)
    net = network(unit, block, shortcut=shortcut, stage_units=(3, 3, 3), width=1.0)
    variables = variables_of(net, x)
    (ours, (_, updates)), (gradients, _) = loss_and_gradients(net, variables, x, labels)

    peer, expected = (cifar_network(unit, 3, shortcut, block).double() for _ in range(2))
    from_flax(peer, variables["params"], variables["batch_stats"])
    theirs, peers_gradients = peers_loss_and_gradients(peer, np.asarray(x), np.asarray(labels))
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    from_flax(expected, gradients, updates["batch_stats"])
    for name, gradient in expected.named_parameters():
        torch.testing.assert_close(gradient.data, peers_gradients[name], rtol=1e-7, atol=1e-10, msg=name)
    for (name, ours), (_, theirs) in zip(expected.named_buffers(), peer.named_buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12, msg=name)

    logits = jax.jit(net.apply)(variables, x)
    from_flax(peer, variables["params"], variables["batch_stats"])
    with torch.no_grad():
        theirs = peer.eval()(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits, theirs, rtol=1e-9, atol=1e-11)


def layers_of(unit, block="basic", shortcut="A"):
    net = network(unit, block, shortcut=shortcut, stage_units=(2, 2, 2))
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), x)["params"]


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_where_a_preactivation_network_has_its_bns(double, block):
    """Only the network's first unit lacks the BN before its first convolution; one more BN follows the last unit."""
    plain, ours = layers_of("plain", block), layers_of("preactivation", block)
    assert set(ours) == set(plain) | {"final_bn"}
    for i in (1, 2, 3):
        stage = f"stage{i}"
        assert set(plain[stage]["first"]) - set(ours[stage]["first"]) == ({"bn1"} if i == 1 else set())
        assert set(ours[stage]["rest"]) == set(plain[stage]["rest"])
    channels = {"basic": (8, 8, 16), "bottleneck": (None, 32, 64)}[block]  # input channels of each stage
    for i in (2, 3):
        assert ours[f"stage{i}"]["first"]["bn1"]["scale"].shape == (channels[i - 1],)


def test_preactivated_projections_have_no_bn(double):
    for option, unit, expected in (("A", "first", 0), ("B", "first", 1), ("B", "rest", 0), ("C", "rest", 1)):
        found = [name for name in layers_of("preactivation", shortcut=option)["stage2"][unit] if "shortcut" in name]
        assert found == ["shortcut_conv"] * expected


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_nothing_follows_the_addition_of_a_preactivation_unit(double, block):
    """If F is zero, the unit is the identity."""
    net = network("preactivation", block, stage_units=(3,))
    x, _ = images_and_labels()
    variables = variables_of(net, x)
    last = "conv2" if block == "basic" else "conv3"
    for unit in variables["params"]["stage1"].values():
        unit[last]["kernel"] = jnp.zeros_like(unit[last]["kernel"])
    _, named = net.apply(variables, x, False, True)
    filters = named["stem"].shape[-1]
    np.testing.assert_array_equal(named["stage1"][..., :filters], named["stem"])
    assert not named["stage1"][..., filters:].any()
    # The stem's output is not negative, so a ReLU after the addition would not show above.
    filters = named["stage1"].shape[-1]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 6, filters)))
    unit = UNITS["preactivation"](filters, 1, net.layers)
    variables = unit.init(jax.random.key(0), x, False)
    variables["params"][last]["kernel"] *= 0
    np.testing.assert_array_equal(unit.apply(variables, x, False), x)
