"""Checks that a run's folder of checkpoints can be read and written, and explains a failure in one line. No jax."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from resnet_flax.errors import UserError, first_line


def check_folder(folder: Path, read_only: bool = False) -> None:
    """Refuses a folder of checkpoints without the needed permissions; orbax's threads would each print a traceback.

    Raises:
      UserError: The folder cannot be read or written, or is not a folder.
    """
    if not os.path.lexists(folder):
        return
    what = "" if folder.is_dir() else os.strerror(errno.ENOTDIR)
    if not what and not os.access(folder, os.R_OK | os.X_OK):
        what = f"cannot be read: {os.strerror(errno.EACCES)}"
    elif not what and not read_only and not os.access(folder, os.W_OK):
        what = f"cannot be written: {os.strerror(errno.EACCES)}"
    if what:
        raise UserError(f"{folder}: {what}; the run's checkpoints are kept there")


def check_room(folder: Path, wanted: int) -> None:
    """Refuses to save a checkpoint that is larger than the free disk space; orbax's threads would print tracebacks.

    Args:
      wanted: The checkpoint's size in bytes.

    Raises:
      UserError: The space does not suffice, or the folder cannot be written.
    """
    check_folder(folder)
    free = shutil.disk_usage(folder.parent).free
    if wanted > free:
        raise _unwritten(folder, f"it takes {wanted / 2**20:.1f} MiB, and {free / 2**20:.1f} are free")


@contextlib.contextmanager
def report_failure(folder: Path) -> Iterator[None]:
    """Context manager that turns an error while writing a checkpoint into one line with the reason.

    Raises:
      UserError: The checkpoint could not be written; earlier checkpoints are kept.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        disk = re.search(r"os_error_code=|RESOURCE_EXHAUSTED|DATA_LOSS", str(error))  # in TensorStore's messages
        if isinstance(error, ValueError) and not disk:
            raise
        reasons = re.findall(r": ([^:\n]+) \[os_error_code=", str(error))  # not always in the first line
        reason = f"{first_line(error):.200}"
        if isinstance(error, OSError) and error.strerror and error.filename:
            reason = f"{error.strerror}: {error.filename}"
        raise _unwritten(folder, reasons[-1] if reasons else reason) from None


def _unwritten(folder: Path, reason: str) -> UserError:
    last = max((int(p.name) for p in folder.glob("*") if p.name.isdecimal()), default=None)
    kept = "there is none yet" if last is None else f"the last complete one is of step {last}"
    full = any(os.strerror(code) in reason for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    room = full or "are free" in reason or "RESOURCE_EXHAUSTED" in reason
    cure = "Free disk space" if room else "Repair that"
    return UserError(f"{folder}: a checkpoint cannot be written: {reason}; {kept}. {cure}; the same command resumes")
