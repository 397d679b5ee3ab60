"""A PyTorch network with akamaster's names, written independently of our networks."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, channels, filters, stride, option, both):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.new, self.both, self.plain = stride, filters - channels, both, option is None
        self.shortcut = nn.Sequential()
        if self.new and option == "B":
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.plain:
            return functional.relu(y)
        if self.new and not len(self.shortcut):
            before = self.new // 2 if self.both else 0
            x = x[:, :, :: self.stride, :: self.stride]
            return functional.relu(y + functional.pad(x, (0, 0, 0, 0, before, self.new - before)))
        return functional.relu(y + self.shortcut(x))


class Network(nn.Module):
    def __init__(self, n, option="A", both=False, image_channels=3):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(image_channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        channels = 16
        for stage, filters in enumerate((16, 32, 64), start=1):
            blocks = []
            for i in range(n):
                blocks.append(Block(channels, filters, 2 if stage > 1 and i == 0 else 1, option, both))
                channels = filters
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def logits(model, images):
    """Logits for NHWC images, with BN's running statistics."""
    with torch.no_grad():
        return model.eval()(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
