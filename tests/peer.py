"""CIFAR networks in PyTorch, written independently, with which ours are compared."""

import torch
from torch import nn
from torch.nn import functional

torch.set_num_threads(1)  # PyTorch's threads spin while they wait, which takes the cores from other tests


def convolution(channels, filters, stride=1, size=3):
    return nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=False)


def option_a(x, filters, stride):
    return functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, filters - x.shape[1]))


class Unit(nn.Module):
    """A plain or residual unit (arXiv:1512.03385)."""

    def __init__(self, channels, filters, stride, residual):
        super().__init__()
        self.conv1, self.bn1 = convolution(channels, filters, stride), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = convolution(filters, filters), nn.BatchNorm2d(filters)
        self.residual, self.stride, self.filters = residual, stride, filters

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.residual:
            y = y + option_a(x, self.filters, self.stride)
        return functional.relu(y)


class PreActivation(nn.Module):
    """A pre-activation unit (arXiv:1603.05027), basic or a bottleneck, with a shortcut of option A, B or C."""

    def __init__(self, channels, filters, stride, bottleneck, shortcut, first):
        super().__init__()
        self.stride, self.filters = stride, 4 * filters if bottleneck else filters
        if not first:
            self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = convolution(channels, filters, stride, size=1 if bottleneck else 3)
        self.bn2, self.conv2 = nn.BatchNorm2d(filters), convolution(filters, filters)
        if bottleneck:
            self.bn3, self.conv3 = nn.BatchNorm2d(filters), convolution(filters, self.filters, size=1)
        if shortcut == "C" or (shortcut == "B" and (stride, channels) != (1, self.filters)):
            self.shortcut_conv = convolution(channels, self.filters, stride, size=1)

    def forward(self, x):
        a = functional.relu(self.bn1(x)) if hasattr(self, "bn1") else x
        y = self.conv2(functional.relu(self.bn2(self.conv1(a))))
        if hasattr(self, "conv3"):
            y = self.conv3(functional.relu(self.bn3(y)))
        if hasattr(self, "shortcut_conv"):
            return y + self.shortcut_conv(a)
        return y + option_a(x, self.filters, self.stride)


class Highway(nn.Module):
    """A highway unit of two layers y = H T + x (1 - T) (arXiv:1507.06228); a layer that changes the shape is plain."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1, self.bn1 = convolution(channels, filters, stride), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = convolution(filters, filters), nn.BatchNorm2d(filters)
        if (stride, channels) == (1, filters):
            self.gate1 = nn.Conv2d(filters, filters, 3, padding=1)
        self.gate2 = nn.Conv2d(filters, filters, 3, padding=1)

    def forward(self, x):
        h = functional.relu(self.bn1(self.conv1(x)))
        if hasattr(self, "gate1"):
            t = torch.sigmoid(self.gate1(x))
            h = h * t + x * (1 - t)
        t = torch.sigmoid(self.gate2(h))
        return functional.relu(self.bn2(self.conv2(h))) * t + h * (1 - t)


class CifarNetwork(nn.Module):
    def __init__(self, n, unit, final_bn=False, expansion=1):
        super().__init__()
        self.stem_conv, self.stem_bn = convolution(3, 16), nn.BatchNorm2d(16)
        units, channels = [], 16
        for filters in (16, 32, 64):
            for i in range(n):
                units.append(unit(channels, filters, 2 if i == 0 and filters > 16 else 1, not units))
                channels = filters * expansion
        self.units = nn.ModuleList(units)
        if final_bn:
            self.final_bn = nn.BatchNorm2d(channels)
        self.dense = nn.Linear(channels, 10)
        self.n = n

    def forward(self, x):
        x = functional.relu(self.stem_bn(self.stem_conv(x)))
        for unit in self.units:
            x = unit(x)
        if hasattr(self, "final_bn"):
            x = functional.relu(self.final_bn(x))
        return self.dense(x.mean((2, 3)))


def cifar_network(unit, n, shortcut="A", block="basic"):
    """Builds the network of 6n+2 layers, or of 9n+2 with bottlenecks; only pre-activation units have these."""
    bottleneck = block == "bottleneck"
    units = {
        "plain": lambda c, f, s, first: Unit(c, f, s, residual=False),
        "residual": lambda c, f, s, first: Unit(c, f, s, residual=True),
        "highway": lambda c, f, s, first: Highway(c, f, s),
        "preactivation": lambda c, f, s, first: PreActivation(c, f, s, bottleneck, shortcut, first),
    }
    return CifarNetwork(n, units[unit], final_bn=unit == "preactivation", expansion=4 if bottleneck else 1)


def from_flax(model, params, batch_stats=None):
    """Copies our variables (or gradients, which have the same shapes) to the peer's layers of the same names."""
    import jax
    import numpy as np

    params, batch_stats = (jax.tree.map(np.array, t) for t in (params, batch_stats))
    _copy([m for m in model.named_children() if m[0] != "units"], params, batch_stats)
    for i, unit in enumerate(model.units):
        stage, place = f"stage{i // model.n + 1}", i % model.n

        def mine(tree, stage=stage, place=place):
            if tree is None:
                return None
            tree = tree[stage]
            return tree["first"] if place == 0 else jax.tree.map(lambda a: a[place - 1], tree["rest"])

        _copy(list(unit.named_children()), mine(params), mine(batch_stats))


def _copy(layers, params, batch_stats):
    for name, layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            values = {"weight": params[name]["scale"], "bias": params[name]["bias"]}
            if batch_stats is not None:
                layer.running_mean.data = torch.tensor(batch_stats[name]["mean"])
                layer.running_var.data = torch.tensor(batch_stats[name]["var"])
        else:
            kernel = (params[name]["conv"] if name.startswith("gate") else params[name])["kernel"]
            values = {"weight": kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)}
            if layer.bias is not None:
                values["bias"] = params[name]["bias"]
        for key, value in values.items():
            assert getattr(layer, key).shape == value.shape, (name, key)
            getattr(layer, key).data = torch.tensor(value.copy())
    ours = {k for k in params if not k.startswith("stage")}
    assert {name for name, _ in layers} == ours, "the two networks have different layers"


def loss_and_gradients(model, images, labels):
    """Returns the loss in training, and each parameter's gradient by name."""
    model.train()
    loss = functional.cross_entropy(
        model(torch.tensor(images).permute(0, 3, 1, 2)), torch.tensor(labels, dtype=torch.long)
    )
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


def steps(model, batches, rate):
    """Takes SGD steps (momentum 0.9, weight decay 1e-4 on every parameter); returns their losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        losses.append(loss_and_gradients(model, images, labels)[0])
        optimizer.step()
    return losses
