"""The networks and the training step in PyTorch: channels_last, autocast to bfloat16, optionally compiled."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.network_sizes import NetworkSizes


def convolution(channels: int, filters: int, stride: int = 1, size: int = 3) -> nn.Conv2d:
    """Returns a convolution with padding ``size // 2``, without bias."""
    return nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=False)


def option_a(x: Tensor, filters: int, stride: int) -> Tensor:
    """Applies the shortcut without parameters: every stride-th position, with zeros for new channels."""
    return functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, filters - x.shape[1]))


class _Unit(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int, sizes: NetworkSizes) -> None:
        super().__init__()
        self.stride, self.out = stride, filters * (4 if sizes.bottleneck else 1)
        convolutions = ((1, filters), (3, filters), (1, self.out)) if sizes.bottleneck else ((3, filters), (3, filters))
        layers: list[nn.Module] = []
        inputs = channels
        for i, (size, outputs) in enumerate(convolutions):
            layers += [nn.ReLU(inplace=True)] if i else []
            strided = i == (1 if sizes.bottleneck and sizes.stride_on_3x3 else 0)
            layers += [convolution(inputs, outputs, stride if strided else 1, size), nn.BatchNorm2d(outputs)]
            inputs = outputs
        self.branch = nn.Sequential(*layers)
        self.shortcut = None
        if sizes.projection and (stride, channels) != (1, self.out):
            self.shortcut = nn.Sequential(convolution(channels, self.out, stride, 1), nn.BatchNorm2d(self.out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif x.shape != y.shape:
            x = option_a(x, self.out, self.stride)
        return functional.relu(x + y, inplace=True)


class ResNet(nn.Module):
    """A residual network of the given sizes."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        size, stride = (7, 2) if sizes.large_stem else (3, 1)
        width = sizes.filters[0]
        self.stem = nn.Sequential(convolution(3, width, stride, size), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1) if sizes.large_stem else nn.Identity()
        units, channels = [], width
        for stage, (count, filters) in enumerate(zip(sizes.stage_units, sizes.filters, strict=True)):
            for i in range(count):
                units.append(_Unit(channels, filters, 2 if stage and i == 0 else 1, sizes))
                channels = units[-1].out
        self.units = nn.Sequential(*units)
        self.dense = nn.Linear(channels, sizes.classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> logits [N, classes]."""
        return self.dense(self.units(self.pool(self.stem(x))).mean((2, 3)))


def network_of(sizes: NetworkSizes) -> nn.Module:
    """Returns torchvision's network if it is installed and has this one, else :class:`ResNet`."""
    if sizes.stage_units == (3, 4, 6, 3) and sizes.large_stem and sizes.bottleneck and sizes.stride_on_3x3:
        try:
            from torchvision.models import resnet50
        except ImportError:
            pass
        else:
            return resnet50(num_classes=sizes.classes)
    return ResNet(sizes)


class _Done:
    """Result of a step on which ``jax.block_until_ready`` can wait."""

    def __init__(self, loss: Tensor) -> None:
        self.loss = loss

    def block_until_ready(self) -> "_Done":
        self.loss.item()
        return self


def training(sizes: NetworkSizes, dtype: str, batch: int, compiled: bool) -> Callable[[int], Any]:
    """Returns ``run(count)``: ``count`` SGD steps (momentum 0.9, decay 1e-4) on one random batch.

    They run on a GPU if there is one. There float32 uses TF32, as in XLA.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    model = network_of(sizes).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=device == "cuda")
    images = torch.randn(batch, 3, sizes.side, sizes.side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, sizes.classes, (batch,), device=device)

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device, getattr(torch, dtype), enabled=dtype != "float32"):
            return functional.cross_entropy(model(images), labels)

    loss_of = torch.compile(loss_of, mode="max-autotune" if device == "cuda" else "default") if compiled else loss_of

    def run(count: int) -> Any:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(images, labels)
            loss.backward()
            optimizer.step()
        return _Done(loss.detach())

    return run
