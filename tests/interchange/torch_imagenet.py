"""ImageNet's residual networks of torchvision and Keras, written in PyTorch independently of our networks."""

import torch
from torch import nn
from torch.nn import functional

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def convolution(channels, filters, size, stride=1):
    return nn.Conv2d(channels, filters, size, stride, size // 2, bias=False)


class Basic(nn.Module):
    expansion = 1

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1, self.bn1 = convolution(channels, filters, 3, stride), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = convolution(filters, filters, 3), nn.BatchNorm2d(filters)

    def branch(self, x):
        return self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))

    def forward(self, x):
        same = x if not hasattr(self, "downsample") else self.downsample(x)
        return functional.relu(self.branch(x) + same)


class Bottleneck(Basic):
    expansion = 4

    def __init__(self, channels, filters, stride):
        nn.Module.__init__(self)
        self.conv1, self.bn1 = convolution(channels, filters, 1), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = convolution(filters, filters, 3, stride), nn.BatchNorm2d(filters)
        self.conv3, self.bn3 = convolution(filters, 4 * filters, 1), nn.BatchNorm2d(4 * filters)

    def branch(self, x):
        x = functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))
        return self.bn3(self.conv3(x))


class ResNet(nn.Module):
    """torchvision's ``resnet18`` to ``resnet152``."""

    def __init__(self, depth, classes=1000):
        super().__init__()
        block = Basic if depth < 50 else Bottleneck
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for stage, (units, filters) in enumerate(zip(STAGES[depth], (64, 128, 256, 512), strict=True), start=1):
            blocks = []
            for i in range(units):
                stride = 2 if stage > 1 and i == 0 else 1
                unit = block(channels, filters, stride)
                if stride > 1 or channels != filters * block.expansion:
                    wide = filters * block.expansion
                    unit.downsample = nn.Sequential(convolution(channels, wide, 1, stride), nn.BatchNorm2d(wide))
                blocks.append(unit)
                channels = filters * block.expansion
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def keras_logits(depth, tensors, images):
    """Logits of keras.applications.ResNet50, 101 or 152 for RGB images [N, H, W, 3] with pixels from 0 to 255.

    ``preprocess_input``: BGR, minus 103.939, 116.779, 123.68. Every convolution has a bias, BN's epsilon is 1.001e-5,
    the stride is on a block's first 1x1.
    """

    def t(name):
        return torch.tensor(tensors[name])

    def conv(x, name, stride=1, padding=0):
        kernel = t(f"{name}_conv/kernel").permute(3, 2, 0, 1)
        x = functional.conv2d(x, kernel, t(f"{name}_conv/bias"), stride, padding)
        mean, variance = t(f"{name}_bn/moving_mean"), t(f"{name}_bn/moving_variance")
        return functional.batch_norm(x, mean, variance, t(f"{name}_bn/gamma"), t(f"{name}_bn/beta"), eps=1.001e-5)

    x = torch.tensor(images[..., ::-1].copy()) - torch.tensor([103.939, 116.779, 123.68])
    x = functional.relu(conv(functional.pad(x.permute(0, 3, 1, 2), (3, 3, 3, 3)), "conv1", 2))
    x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
    for stage, units in enumerate(STAGES[depth], start=2):
        for unit in range(1, units + 1):
            name = f"conv{stage}_block{unit}"
            stride = 2 if unit == 1 and stage > 2 else 1
            same = conv(x, f"{name}_0", stride) if unit == 1 else x
            x = functional.relu(conv(x, f"{name}_1", stride))
            x = functional.relu(conv(x, f"{name}_2", padding=1))
            x = functional.relu(conv(x, f"{name}_3") + same)
    return (x.mean((2, 3)) @ t("predictions/kernel") + t("predictions/bias")).numpy()
