"""The names of the 1,000 classes of ImageNet 2012 (ILSVRC), in the usual order, sorted by WordNet number."""

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

# One class per line, with the short names of torchvision (pytorch/vision, BSD 3-clause).
_FILE = Path(__file__).with_name("imagenet_classes.txt")


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Returns the class names, in the order of the logits."""
    return tuple(_FILE.read_text().splitlines())


def in_imagenets_order(folders: Collection[str]) -> tuple[str, ...] | None:
    """Returns the names of class folders in the order of ImageNet's classes; None if they are not ImageNet's.

    The names of ImageNet's 1,000 classes are WordNet numbers, such as n01440764, or the labels 0 to 999, also as 000 to
    999. The order of other names, such as 1 to 1000, would be a guess.
    """
    if len(folders) != 1000:
        return None
    if all(re.fullmatch(r"n[0-9]{8}", name) for name in folders):
        return tuple(sorted(folders))
    if all(re.fullmatch(r"[0-9]{1,3}", name) for name in folders) and {int(name) for name in folders} == {*range(1000)}:
        return tuple(sorted(folders, key=int))
    return None
