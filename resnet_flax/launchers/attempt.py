"""One run, to whatever it ends as."""

import sys
import traceback
from pathlib import Path

from ml_collections import ConfigDict

from resnet_flax.errors import Busy, Diverged, Interrupted, UserError
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.sweeps.endings import SUCCESS, Ending, first_line
from resnet_flax.tracking.tracker import Tracking
from resnet_flax.training import loop


def attempt(config: ConfigDict, workdir: Path, tracking: Tracking) -> Ending:
    """Trains; a run that diverges, is refused or crashes says so in its ending.

    Raises:
      Busy: another process is at it.
      Interrupted: SIGTERM or SIGINT came; everything is saved.
    """
    directory = RunDirectory(workdir)
    directory.forget_crash()
    try:
        loop.run(config, workdir, tracking)
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
    return SUCCESS
