"""Files and folders as users name them."""

import os
from pathlib import Path


def expanded(name: str | Path) -> Path:
    """The path of that name; where nothing has it, ``~`` at its beginning is a home folder.

    Shells leave the ``~`` of ``--weights=~/resnet50.pth`` as it is, and a file may be called ``~notes.jpg``.
    """
    return Path(name if os.path.exists(name) else os.path.expanduser(name))
