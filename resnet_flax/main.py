"""The console command ``resnet-flax COMMAND --FLAG=VALUE ...``, which works in any folder.

COMMAND is a command or an experiment. ``resnet-flax COMMAND --help`` describes it and lists its flags.
"""

import difflib
import runpy
import sys

from resnet_flax import shipped
from resnet_flax.errors import USER_MISTAKE

COMMANDS = ("train", "evaluate", "predict", "export", "summary", "preflight")


def main() -> None:
    """Runs the command that the first argument names, with the remaining arguments."""
    experiments = shipped.names("experiments")
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "-help", "help"):
        print(f"{(__doc__ or '').strip()}\n\ncommands: {', '.join(COMMANDS)}\nexperiments: {', '.join(experiments)}")
        return
    if name not in (*COMMANDS, *experiments):
        near = difflib.get_close_matches(name, (*COMMANDS, *experiments))
        hint = f"did you mean {' or '.join(near)}?" if near else "resnet-flax --help lists them"
        print(f"error: resnet-flax has no command {name!r}; {hint}", file=sys.stderr)
        sys.exit(USER_MISTAKE)
    del sys.argv[1]
    if name in COMMANDS:
        runpy.run_module(f"resnet_flax.{name}", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(shipped.folder("experiments") / f"{name}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
