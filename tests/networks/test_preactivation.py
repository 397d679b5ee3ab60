"""Losses and gradients of pre-activation networks, compared with an independent PyTorch version (arXiv:1603.05027)."""

import jax
import numpy as np
import pytest

from tests.marks import slow
from tests.networks.small import images_and_labels, network, variables_of

torch = pytest.importorskip("torch")
F = torch.nn.functional


class Peer:
    """The networks in PyTorch, with our names of variables, in double precision; BN uses the batch's statistics."""

    def __init__(self, variables, block, shortcut):
        self.block, self.shortcut = block, shortcut
        self.p = jax.tree.map(lambda a: torch.tensor(np.array(a), requires_grad=True), variables["params"])

    def conv(self, x, kernel, stride=1):
        return F.conv2d(x, kernel.permute(3, 2, 0, 1), stride=stride, padding=kernel.shape[0] // 2)

    def bn_relu(self, x, p):
        return F.relu(F.batch_norm(x, None, None, p["scale"], p["bias"], training=True, eps=1e-5))

    def unit(self, x, p, stride, first):
        y = x if first else self.bn_relu(x, p["bn1"])
        activated = y
        strides = (stride, 1) if self.block == "basic" else (stride, 1, 1)
        for i, step in enumerate(strides, start=1):
            if i > 1:
                y = self.bn_relu(y, p[f"bn{i}"])
            y = self.conv(y, p[f"conv{i}"]["kernel"], step)
        if "shortcut_conv" in p:
            return y + self.conv(activated, p["shortcut_conv"]["kernel"], stride)
        x = x[:, :, ::stride, ::stride]
        return y + F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))

    def loss(self, images, labels):
        p = self.p
        x = self.bn_relu(self.conv(images, p["stem_conv"]["kernel"]), p["stem_bn"])
        for i, units in ((1, 3), (2, 2)):
            stage = p[f"stage{i}"]
            x = self.unit(x, stage["first"], i, first=i == 1)  # the stride is 1, then 2
            for j in range(units - 1):
                x = self.unit(x, jax.tree.map(lambda a, j=j: a[j], stage["rest"]), 1, first=False)
        x = self.bn_relu(x, p["final_bn"]).mean((2, 3))
        return F.cross_entropy(x @ p["dense"]["kernel"] + p["dense"]["bias"], labels)


@pytest.mark.parametrize(("block", "shortcut"), [slow("basic", "A"), ("bottleneck", "B"), slow("basic", "C")])
def test_loss_and_gradients_are_pytorchs(double, block, shortcut):
    import optax

    x, labels = images_and_labels(6)
    net = network("preactivation", block, shortcut=shortcut)
    variables = variables_of(net, x)

    def loss(params):
        logits, _ = net.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    ours, gradients = jax.jit(jax.value_and_grad(loss))(variables["params"])
    peer = Peer(variables, block, shortcut)
    theirs = peer.loss(torch.tensor(np.array(x)).permute(0, 3, 1, 2), torch.tensor(np.array(labels)).long())
    theirs.backward()
    assert float(ours) == pytest.approx(theirs.item(), rel=1e-9)
    expected = jax.tree.map(lambda t: t.grad.numpy(), peer.p)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), gradients, expected)
    # The first unit has no activation of its own, and projections no BN.
    first = variables["params"]["stage1"]["first"]
    assert "bn1" not in first
    assert not any("shortcut_bn" in name for name in first)
    assert ("shortcut_conv" in first) == (shortcut != "A")
