"""PyTorch's ``DataLoader`` for files of photographs, with torchvision's transforms reimplemented.

The transforms follow torchvision 0.20 on PIL images (transforms/transforms.py and functional.py): ``ImageFolder``,
``RandomResizedCrop`` or ``Resize`` and ``RandomCrop``, ``RandomHorizontalFlip``, ``PILToTensor`` or ``ToTensor`` and
``Normalize``. So torchvision need not be installed.
"""

import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

Transform = Callable[[Image.Image], Image.Image]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ENDLESS = 2**40  # images


class RandomResizedCrop:
    """A crop of random area and shape, resized to a square."""

    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Image.Image) -> Image.Image:
        top, left, height, width = self._draw(*image.size)
        cropped = image.crop((left, top, left + width, top + height))
        return cropped.resize((self.side, self.side), Image.Resampling.BILINEAR)

    def _draw(self, width: int, height: int) -> tuple[int, int, int, int]:
        area, log_ratio = height * width, torch.log(torch.tensor(self.ratio))
        for _ in range(10):
            target = area * torch.empty(1).uniform_(*self.scale).item()
            ratio = torch.exp(torch.empty(1).uniform_(log_ratio[0], log_ratio[1])).item()
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = torch.randint(0, height - h + 1, size=(1,)).item()
                left = torch.randint(0, width - w + 1, size=(1,)).item()
                return top, left, h, w
        w, h = width, height
        if width / height < min(self.ratio):
            h = round(width / min(self.ratio))
        elif width / height > max(self.ratio):
            w = round(height * max(self.ratio))
        return (height - h) // 2, (width - w) // 2, h, w


class RandomScaleCrop:
    """A resize to a random shorter side, then a random crop: ``Resize`` and ``RandomCrop``."""

    def __init__(self, side: int, scales: tuple[int, int]) -> None:
        self.side, self.scales = side, scales

    def __call__(self, image: Image.Image) -> Image.Image:
        shorter = int(torch.randint(self.scales[0], self.scales[1] + 1, size=(1,)).item())
        short, long = sorted(image.size)
        other = int(shorter * long / short)
        size = (shorter, other) if image.width <= image.height else (other, shorter)
        image = image.resize(size, Image.Resampling.BILINEAR)
        top = torch.randint(0, image.height - self.side + 1, size=(1,)).item()
        left = torch.randint(0, image.width - self.side + 1, size=(1,)).item()
        return image.crop((left, top, left + self.side, top + self.side))


class Photographs(Dataset):
    """Files and labels as a data set; with ``floats``, images are float32 and normalised (as usual), else uint8."""

    def __init__(self, files: Sequence[str], labels: Sequence[int], transform: Transform, floats: bool) -> None:
        self.files, self.labels, self.transform, self.floats = files, labels, transform, floats

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        with open(self.files[place], "rb") as file:
            image = Image.open(file).convert("RGB")
        image = self.transform(image)
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1)
        if not self.floats:
            return pixels, self.labels[place]
        pixels = pixels.contiguous().to(torch.float32).div(255)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (_MEAN, _STD))
        return pixels.clone().sub_(mean).div_(std), self.labels[place]


def batches(dataset: Photographs, batch: int, workers: int) -> Iterator[list[Tensor]]:
    """Yields endless batches in random order, from ``workers`` processes that are each two batches ahead (the default).

    Close the generator to end the processes.
    """
    # Workers are forked from a server process that has imported PyTorch, since forking this process does not work with
    # jax's threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    yield from DataLoader(
        dataset, batch, sampler=RandomSampler(dataset, num_samples=_ENDLESS), num_workers=workers, drop_last=True,
        multiprocessing_context=context,
    )  # fmt: skip
