"""Refuses a run's folder of checkpoints that cannot be used or written, in one line that says why; without jax."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from resnet_flax.errors import UserError


def check_folder(folder: Path, read_only: bool = False) -> None:
    """Refuses a folder of checkpoints that cannot be used, before orbax's threads fail at it one by one.

    Raises:
      UserError: it says why.
    """
    if not os.path.lexists(folder):
        return
    what = "" if folder.is_dir() else os.strerror(errno.ENOTDIR)
    if not what and not os.access(folder, os.R_OK | os.X_OK):
        what = f"cannot be read: {os.strerror(errno.EACCES)}"
    elif not what and not read_only and not os.access(folder, os.W_OK):
        what = f"cannot be written: {os.strerror(errno.EACCES)}"
    if what:
        raise UserError(f"{folder}: {what}; it is where a run's checkpoints lie")


def check_room(folder: Path, wanted: int) -> None:
    """Refuses a folder without room for a checkpoint of so many bytes, as far as that can be known.

    What fails in orbax's threads, they print in full.

    Raises:
      UserError: it says why.
    """
    check_folder(folder)
    free = shutil.disk_usage(folder.parent).free
    if wanted > free:
        raise _unwritten(folder, f"it takes {wanted / 2**20:.1f} MiB, and {free / 2**20:.1f} are free")


@contextlib.contextmanager
def report_failure(folder: Path) -> Iterator[None]:
    """Says in one line that a checkpoint could not be written, and why.

    Raises:
      UserError: it could not; the checkpoints before it stay.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        text = (str(error).strip().splitlines() or [""])[0]
        disk = re.search(r"os_error_code=|RESOURCE_EXHAUSTED|DATA_LOSS", str(error))  # in TensorStore's
        if isinstance(error, ValueError) and not disk:
            raise
        reasons = re.findall(r": ([^:\n]+) \[os_error_code=", str(error))  # not always in its first line
        reason = f"{text:.200}"
        if isinstance(error, OSError) and error.strerror and error.filename:
            reason = f"{error.strerror}: {error.filename}"
        raise _unwritten(folder, reasons[-1] if reasons else reason) from None


def _unwritten(folder: Path, reason: str) -> UserError:
    whole = max((int(p.name) for p in folder.glob("*") if p.name.isdecimal()), default=None)
    kept = "there is none yet" if whole is None else f"the last whole one is of step {whole}"
    full = any(os.strerror(code) in reason for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    room = full or "are free" in reason or "RESOURCE_EXHAUSTED" in reason
    cure = "With room there" if room else "With that mended"
    return UserError(f"{folder}: a checkpoint cannot be written: {reason}; {kept}. {cure}, the same command goes on")
