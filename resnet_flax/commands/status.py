"""The main function of ``python -m experiments.status``."""

import sys
import time

from absl import flags

from resnet_flax import command
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.reporting import status

_CLEAR = "\x1b[H\x1b[2J"  # terminal escape sequences: move the cursor to the top left, then clear the screen


def main() -> None:
    """Prints the table, once or until all runs have ended.

    Raises:
      UserError: Not one folder is named, or it holds neither runs nor plans.
    """
    given = [*filter(None, [flags.FLAGS.workdir]), *command.arguments()]
    if len(given) != 1:
        raise UserError("name one folder: --workdir=FOLDER, or FOLDER alone")
    folder, watched = expanded(given[0]), flags.FLAGS.watch
    while True:
        now = status.read(folder)
        print(f"{_CLEAR * (watched and sys.stdout.isatty())}{now}", flush=True)
        if not watched or not now.is_active:
            return
        time.sleep(flags.FLAGS.every)
