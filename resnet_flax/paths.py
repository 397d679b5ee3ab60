"""Files and folders as users name them."""

import os
import re
from pathlib import Path

from resnet_flax.errors import UserError


def expanded(name: str | Path) -> Path:
    """The path of that name; where nothing has it, ``~`` at its beginning is a home folder.

    Shells leave the ``~`` of ``--weights=~/resnet50.pth`` as it is, and a file may be called ``~notes.jpg``.

    Raises:
      UserError: it is an address such as ``gs://bucket/runs``, or longer than any path may be.
    """
    # Path("gs://x") is "gs:/x": an address that has been a path keeps one slash.
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(name)):
        raise UserError(
            f"{name}: an address is no path; mount what {found[1]}:// names, and give the folder where it is mounted"
        )
    if any(len(os.fsencode(part)) > 255 for part in str(name).split("/")) or len(os.fsencode(str(name))) > 4000:
        raise UserError(f"{name!s:.60}...: this path of {len(str(name))} characters is longer than file systems allow")
    return Path(name if os.path.exists(name) else os.path.expanduser(name))
