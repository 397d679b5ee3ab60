"""One run, to whatever it ends as; what it ended as before."""

import sys
import traceback
from pathlib import Path

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import Busy, Diverged, Interrupted, UserError
from resnet_flax.runs.directory import RunDirectory

Ending = tuple[str, str]  # "diverged", "failed", "crashed" or empty; the reason, one line
WELL: Ending = ("", "")


def attempt(config: ConfigDict, workdir: Path) -> Ending:
    """Trains; a run that diverges, is refused or crashes says so in its ending.

    Raises:
      Busy: another process is at it.
      Interrupted: SIGTERM or SIGINT came; everything is saved.
    """
    from resnet_flax.training import loop

    directory = RunDirectory(workdir)
    directory.forget_crash()
    try:
        loop.run(config, workdir)
    except Diverged as error:
        return "diverged", str(error)
    except (Busy, Interrupted):
        raise
    except UserError as error:  # that no check before the first run could know of, such as a full disk
        return "failed", str(error)
    except Exception as error:  # the other runs are not lost with this one
        text = traceback.format_exc()
        print(text, file=sys.stderr)
        return "crashed", f"{type(error).__name__}: {first_line(error):.200} (see {directory.write_crash(text)})"
    return WELL


def earlier_failure(config: ConfigDict, workdir: Path) -> Ending | None:
    """That of a run that diverged before: it would diverge again. One that crashed is worth another attempt."""
    directory = RunDirectory(workdir)
    found, there = directory.diverged(), directory.config()
    if found is None or there is None or configs.flatten(there) != configs.flatten(config):
        return None
    return "diverged", found["message"]


def first_line(error: BaseException) -> str:
    """Of what the error says; some say pages."""
    return (str(error).strip().splitlines() or [""])[0]
