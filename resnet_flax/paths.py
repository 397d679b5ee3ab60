"""Paths that users give, and paths relative to a folder."""

import os
import re
from pathlib import Path

from resnet_flax.errors import UserError


def relative(path: Path, folder: Path) -> str:
    """Returns the path relative to a folder. If it leaves the folder, links in both paths are followed.

    Inside the folder no link is followed, so the folder can be moved with its links.
    """
    text = os.path.relpath(path, folder)
    outside = text.split(os.sep)[0] == os.pardir
    return os.path.relpath(os.path.realpath(path), os.path.realpath(folder)) if outside else text


def expanded(name: str | Path) -> Path:
    """Returns the path of a name, with a leading ``~`` expanded to the home folder unless the name itself exists.

    Shells do not expand the ``~`` in ``--weights=~/resnet50.pth``, but a file may be called ``~notes.jpg``.

    Raises:
      UserError: The name is a URL such as ``gs://bucket/runs``, or is longer than file systems allow.
    """
    # One slash, because str(Path("gs://x")) is "gs:/x".
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(name)):
        raise UserError(
            f"{name}: URLs are not supported; mount the {found[1]}:// storage, and give the path where it is mounted"
        )
    if any(len(os.fsencode(part)) > 255 for part in str(name).split("/")) or len(os.fsencode(str(name))) > 4000:
        raise UserError(f"{name!s:.60}...: this path of {len(str(name))} characters is longer than file systems allow")
    return Path(name if os.path.exists(name) else os.path.expanduser(name))
