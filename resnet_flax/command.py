"""What every command does around its work: flags, devices, exit codes, and one line for a mistake."""

import difflib
import os
import sys
from collections.abc import Callable

from absl import flags

from resnet_flax.errors import Diverged, Failed, Interrupted, UserError

_CACHE = flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's own cache folder.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0; only where it is not detected.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are; with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0; with --coordinator.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the hosts that jax detects (a cluster, TPU pods).")


def run(main: Callable[[], None], uses_devices: bool = False) -> None:
    """Parses the flags, calls main, and exits with its code.

    0 done, 1 failed in part, 2 the user's mistake, 3 stopped and resumable, 4 diverged. A mistake is one
    line on stderr.
    """
    try:
        rest = _parse(sys.argv)
        if len(rest) > 1:
            raise UserError(f"argument {rest[1]!r} is not a flag; flags begin with --")
        if uses_devices:
            _set_up_devices()
        main()
    except (UserError, Interrupted, Diverged, Failed) as ending:
        print(f"{'error: ' if isinstance(ending, UserError) else ''}{ending}", file=sys.stderr)
        # Other threads (of the checkpoint writer, of the distributed service) must not keep the process alive.
        sys.stdout.flush()
        sys.stderr.flush()
        sys.exit(ending.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(Interrupted.exit_code)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(flags.FLAGS), n=3)
        hint = f"; did you mean --{' or --'.join(near)}?" if near else "; --help lists them"
        raise UserError(f"unknown flag --{error.flagname}{hint}") from None
    except flags.Error as error:
        raise UserError(_one_line(error)) from None
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError) as error:
        # What ml_collections raises for a config file or key that does not exist, or a value of another type.
        raise UserError(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    return text or type(error).__name__


def _set_up_devices() -> None:
    import jax

    if _CACHE.value:
        from resnet_flax.data.cache import cache_root

        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
    given = [f is not None for f in (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)]
    if any(given) and not all(given):
        raise UserError("--coordinator, --processes and --process belong together; give all three or none")
    # Before anything else asks jax for devices.
    if all(given):
        jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    elif _DISTRIBUTED.value:
        jax.distributed.initialize()
