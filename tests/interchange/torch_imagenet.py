"""ImageNet's bottleneck networks of Keras, written in PyTorch independently of our networks."""

import torch
from torch.nn import functional

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


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
