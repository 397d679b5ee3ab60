"""The names of the 1,000 classes of ImageNet 2012 (ILSVRC), in the usual order, sorted by WordNet number."""

from functools import cache
from pathlib import Path

# One class per line, with the short names of torchvision (pytorch/vision, BSD 3-clause).
_FILE = Path(__file__).with_name("imagenet_classes.txt")


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Returns the class names, in the order of the logits."""
    return tuple(_FILE.read_text().splitlines())
