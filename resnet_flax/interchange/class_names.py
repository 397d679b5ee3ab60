"""The 1,000 classes of ImageNet 2012 (ILSVRC), in the usual order: that of their WordNet numbers."""

from functools import cache
from pathlib import Path

# One a line, in the short form that torchvision uses (pytorch/vision, BSD 3-clause).
_FILE = Path(__file__).with_name("imagenet_classes.txt")


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Their names, in the order of the logits."""
    return tuple(_FILE.read_text().splitlines())
