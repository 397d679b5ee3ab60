"""The paper's CIFAR networks in PyTorch, written apart from ours: what ours are compared with."""

import torch
from torch import nn
from torch.nn import functional


class Unit(nn.Module):
    def __init__(self, channels, filters, stride, residual):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.residual, self.stride, self.new = residual, stride, filters - channels

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.residual:
            y = y + functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        return functional.relu(y)


class CifarNetwork(nn.Module):
    def __init__(self, n, residual):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        units, channels = [], 16
        for filters in (16, 32, 64):
            for i in range(n):
                units.append(Unit(channels, filters, 2 if i == 0 and filters > 16 else 1, residual))
                channels = filters
        self.units = nn.ModuleList(units)
        self.dense = nn.Linear(64, 10)
        self.n = n

    def forward(self, x):
        x = functional.relu(self.bn(self.conv(x)))
        for unit in self.units:
            x = unit(x)
        return self.dense(x.mean((2, 3)))


def cifar_network(unit, n):
    return CifarNetwork(n, residual=unit == "residual")


def from_flax(model, params, batch_stats=None):
    """Copies our variables into a peer."""

    def convolution(layer, p):
        layer.weight.data = torch.tensor(p["kernel"]).permute(3, 2, 0, 1).contiguous()

    def norm(layer, p, s):
        layer.weight.data, layer.bias.data = torch.tensor(p["scale"]), torch.tensor(p["bias"])
        if s is not None:
            layer.running_mean.data, layer.running_var.data = torch.tensor(s["mean"]), torch.tensor(s["var"])

    import jax
    import numpy as np

    params, batch_stats = (jax.tree.map(np.array, t) for t in (params, batch_stats))
    convolution(model.conv, params["stem_conv"])
    norm(model.bn, params["stem_bn"], batch_stats and batch_stats["stem_bn"])
    for i, unit in enumerate(model.units):
        stage, place = f"stage{i // model.n + 1}", i % model.n

        def mine(tree, stage=stage, place=place):
            if tree is None:
                return None
            tree = tree[stage]
            return tree["first"] if place == 0 else jax.tree.map(lambda a: a[place - 1], tree["rest"])

        p, s = mine(params), mine(batch_stats)
        for j in (1, 2):
            convolution(getattr(unit, f"conv{j}"), p[f"conv{j}"])
            norm(getattr(unit, f"bn{j}"), p[f"bn{j}"], s and s[f"bn{j}"])
    model.dense.weight.data = torch.tensor(params["dense"]["kernel"]).T.contiguous()
    model.dense.bias.data = torch.tensor(params["dense"]["bias"])


def steps(model, batches, rate):
    """Losses of SGD steps: momentum 0.9, weight decay 1e-4 on every parameter."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    model.train()
    losses = []
    for images, labels in batches:
        loss = functional.cross_entropy(
            model(torch.tensor(images).permute(0, 3, 1, 2)), torch.tensor(labels, dtype=torch.long)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
