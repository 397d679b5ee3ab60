"""Trains one run and returns its ending, even if it fails."""

import contextlib
import sys
import traceback
from pathlib import Path

import jax
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import Busy, Diverged, Interrupted, UserError, first_line
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.sweeps.endings import SUCCESS, Ending
from resnet_flax.tracking.tracker import Tracking
from resnet_flax.training import loop


def attempt(config: ConfigDict, workdir: Path, tracking: Tracking) -> Ending:
    """Trains a run and returns its ending: success, or how it diverged, failed or crashed.

    Raises:
      Busy: Another process is training the run.
      Interrupted: SIGTERM or SIGINT stopped the run. A checkpoint is saved.
    """
    try:
        loop.run(config, workdir, tracking)
    except Diverged as error:
        return "diverged", str(error)
    except (Busy, Interrupted):
        raise
    except UserError as error:  # A problem that checks before the first run cannot find, such as a full disk.
        return "failed", str(error)
    except Exception as error:  # Whatever the program raises, the other runs must continue.
        text = traceback.format_exc()
        print(text, file=sys.stderr)
        what = configs.explain_own_error(error) or f"{type(error).__name__}: {first_line(error)}"
        reason = f"{what!s:.300}"
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            reason += "; model.remat=unit or a higher train.accumulate takes less memory"
        with contextlib.suppress(OSError):  # such as on a full disk
            reason += f" (see {RunDirectory(workdir).write_crash(text)})"
        return "crashed", reason
    return SUCCESS
