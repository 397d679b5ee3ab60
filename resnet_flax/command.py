"""Runs a command: parses its flags, sets up devices, and turns errors into one line and an exit code."""

import contextlib
import difflib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import flags
from ml_collections.config_flags import config_flags

from resnet_flax import config as configs
from resnet_flax.errors import DONE, Diverged, Failed, Interrupted, UserError
from resnet_flax.escaping import escape_hidden
from resnet_flax.runtime import exit_message, processes, stopping, streams

_CACHE = flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's cache folder.")
_MODULE = flags.DEFINE_multi_string(
    "module", [], "Python file to run first, which defines a unit, data set, metric, ... of your own; repeatable."
)

_HELP = ("--help", "-help", "-h")
_MISSING = "must have a value other than None"  # how absl says that a flag is missing

_arguments: list[str] = []


def arguments() -> list[str]:
    """Returns the positional arguments of the command line."""
    return list(_arguments)


def given_keys(flag: str) -> set[str]:
    """Lists the config keys that the command line sets, such as ``data.data_dir`` for ``--config.data.data_dir=...``.

    Args:
      flag: The name of the config flag, such as ``config``.
    """
    found = (argument.lstrip("-").partition("=")[0] for argument in sys.argv[1:] if argument.startswith("-"))
    # The prefix "no" sets a boolean key to False.
    return {
        name.removeprefix("no").removeprefix(f"{flag}.")
        for name in found
        if name.startswith((f"{flag}.", f"no{flag}."))
    }


def run(
    main: Callable[[], None] | str, uses_devices: bool = False, arguments: bool = False, ends_with_reader: bool = False
) -> None:
    """Parses the flags, calls main, and exits with a code of :mod:`resnet_flax.errors`.

    A user's mistake is reported as one line on stderr. If stdout or stderr is closed, or its reader has gone, the
    command continues without it. A result that cannot be written makes the command fail.

    Args:
      main: The command's function, or the name of the module that holds it as ``main``. A module is imported after the
        flags are parsed, so that ``--help`` and refusals do not wait for jax.
      uses_devices: Whether to set up jax's devices and compilation cache first.
      arguments: Whether the command accepts positional arguments, before, between or after the flags.
      ends_with_reader: Whether the command only prints, and so ends when its reader has gone.
    """
    output = streams.protect(ends_with_reader)
    stopping.exit_on_signal()
    try:
        given = [argument for argument in sys.argv[1:] if argument not in _HELP]
        asks_for_help = len(given) < len(sys.argv) - 1
        # In place: ml_collections, and others, read sys.argv.
        sys.argv[1:] = _config_files_first(_with_shipped_configs(_underscored(given)))
        flags.FLAGS.set_gnu_getopt(arguments)  # flags may come after arguments
        if asks_for_help:
            print(_help())
            return
        rest = _parse(sys.argv)
        if len(rest) > 1 and not arguments:
            raise UserError(f"argument {rest[1]!r} is not a flag; flags begin with --")
        _arguments[:] = rest[1:]
        if uses_devices:
            _set_up_devices()
        (importlib.import_module(main).main if isinstance(main, str) else main)()
        output.flush()
        if output.failure is not None and not output.reader_gone:
            raise Failed(f"error: the result could not be written to standard output: {output.failure.strerror}")
        stopping.exit_despite_stuck_threads()
    except (UserError, Interrupted, Diverged, Failed) as ending:
        _exit(ending)
    except streams.ReaderGoneError:
        stopping.exit_soon(DONE)
    except KeyboardInterrupt:
        print("stopped by a second SIGINT; not saved", file=sys.stderr)
        sys.exit(Interrupted.exit_code)
    except Exception as error:
        own = configs.explain_own_error(error)
        if own is None:
            raise
        traceback.print_exception(error)
        _exit(UserError(f"{str(own).rstrip('.')} (the traceback above shows how it was called)"))
    finally:
        exit_message.cancel()


def _exit(ending: UserError | Interrupted | Diverged | Failed) -> NoReturn:
    """Prints the message of an ending as the last line on stderr, and exits with its code."""
    text = escape_hidden(str(ending))  # names in it may hold escape sequences
    with contextlib.suppress(streams.ReaderGoneError):
        sys.stdout.flush()  # keeps the order of the lines where both streams share a file
    # A single write: print writes text and line break separately, and other threads may print in between.
    sys.stderr.write(f"{'error: ' if isinstance(ending, UserError) else ''}{text}\n")
    sys.stderr.flush()
    stopping.exit_soon(ending.exit_code)
    sys.exit(ending.exit_code)


def _help() -> str:
    """Returns the help text: the command's description, its flags without absl's own, and its config keys.

    The keys have the values of the config that the command line names, after the flags that change it.
    """
    _parse(sys.argv, for_help=True)
    modules = [m for m in flags.FLAGS.flags_by_module_dict() if not m.startswith("absl")]
    # The command's own flags come first, and flags that every command has come last.
    modules.sort(key=lambda module: module.startswith(f"{__package__}.") + (module in (__name__, processes.__name__)))
    described = [flags.FLAGS.module_help(m).strip("\n") for m in modules]
    keys = [configs.keys_in_help(name, flags.FLAGS[name].value) for name in _config_flags()]
    return "\n\n".join([(sys.modules["__main__"].__doc__ or "").strip(), *described, *keys])


def _underscored(given: list[str]) -> list[str]:
    """Replaces dashes in flag names by underscores: ``--batch_size=1``. Flags defined with dashes keep them."""
    flags_end = given.index("--") if "--" in given else len(given)

    def name(argument: str) -> str:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--") or flag[2:] in flags.FLAGS:
            return argument
        return "--" + flag[2:].replace("-", "_") + equals + value

    return [name(argument) for argument in given[:flags_end]] + given[flags_end:]


def _parse(argv: list[str], for_help: bool = False) -> list[str]:
    """Parses the flags; returns the program's name and the positional arguments.

    Args:
      argv: The command line.
      for_help: Whether flags that are required may be missing, and unknown flags are ignored.
    """
    _check_config_flags(argv)
    rest: list[str] = []
    try:
        try:
            rest = flags.FLAGS(argv, known_only=for_help)
        except flags.IllegalFlagValueError as error:  # absl raises it after it has parsed the other flags
            if not for_help or _MISSING not in str(error):
                raise
        for path in _MODULE.value:
            configs.execute(path, "module")
        for path in _config_files(argv):
            configs.note_executed(path, "config")  # ml_collections has executed it
        for name in _config_flags():
            config = flags.FLAGS[name].value
            if config is not None:
                config.keys()  # raises if the config could not be loaded
                configs.check_depth(config, given_keys(name))
        return rest
    except flags.UnrecognizedFlagError as error:
        raise _unknown_flag(error.flagname) from None
    except (Exception, SystemExit) as error:
        raise _refusal(error, _config_files(argv)) from None


def _unknown_flag(name: str) -> UserError:
    """Returns the error for a flag that does not exist, with suggestions."""
    if (flag := name.partition(".")[0]) in _config_flags():
        return UserError(f"--{name} sets a key of a config; name the config, too: --{flag}=FILE")
    near = [f"{flag}.{key}" for flag in _config_flags() for key in configs.namesakes(name)]
    if not near and (instead := configs.not_a_key(name)):
        return UserError(f"unknown flag --{name}; {instead}")
    near = near or difflib.get_close_matches(name, list(flags.FLAGS), n=3)
    hint = f"did you mean --{' or --'.join(near)}?" if near else "--help lists them"
    return UserError(f"unknown flag --{name}; {hint}")


def _refusal(error: BaseException, files: Sequence[str]) -> UserError:
    """Returns the error of a flag, of a config file or of ml_collections in one line.

    Args:
      files: The config files of the command line.
    """
    origins = list(_with_origins(error))
    if refusals := [origin for origin in origins if isinstance(origin, UserError)]:
        return refusals[-1]
    for path in files:
        for origin in origins:
            if refusal := configs.explain_error(origin, path):
                return refusal
    # ml_collections raises various errors for a missing config file or key, or a value of the wrong type.
    text = _one_line(error)
    return UserError(_flag_error(text) if isinstance(error, flags.Error) else text)


def _with_origins(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and the errors that caused it: ml_collections and absl wrap those of a config file."""
    while error is not None:
        yield error
        error = error.__context__


def _config_flags() -> Iterator[str]:
    return (name for name in flags.FLAGS if config_flags.is_config_flag(flags.FLAGS[name]))


def _check_config_flags(argv: list[str]) -> None:
    """Refuses a config key that does not exist, or a section, with a message that suggests keys."""
    for name in _config_flags():
        for argument in argv[1:]:
            found = re.fullmatch(rf"--?(no)?{name}\.(.+)", argument.partition("=")[0])
            if found and found[2] == "module":
                raise UserError("--config.module: training records this key; use --module=FILE")
            if found and found[2] not in configs.KEYS:
                raise UserError(configs.unknown_key(found[2], list(configs.KEYS)))


def _with_shipped_configs(given: list[str]) -> list[str]:
    """Replaces the name of a shipped config, ``digits:plain-8``, by its path, ``FOLDER/digits.py:plain-8``.

    A file of that name in the current folder takes precedence.

    Raises:
      UserError: There is no such config file.
    """
    result = list(given)
    for place, flag, path, rest in _named_configs(given):
        result[place] = f"{flag}{configs.config_path(path)}{rest}"
    return result


def _config_files_first(given: list[str]) -> list[str]:
    """Moves the flags that name config files before all others: ml_collections refuses keys that are set before."""
    first = []
    for place, flag, _, _ in _named_configs(given):
        first += [place] if flag else [place - 1, place]
    return [given[i] for i in first] + [argument for i, argument in enumerate(given) if i not in first]


def _config_files(argv: list[str]) -> list[str]:
    """Lists the config files that the command line names, without the network's name after the colon."""
    return [path for _, _, path, _ in _named_configs(argv)]


def _named_configs(given: list[str]) -> Iterator[tuple[int, str, str, str]]:
    """Finds the config files that a command line names.

    Yields:
      The argument's index; the flag with its ``=``, or an empty text if the flag is the previous argument; the file;
      and the rest, which is a colon and the name of a network, or empty.
    """
    for name in _config_flags():
        for place, argument in enumerate(given):
            flag, equals, value = argument.partition("=")
            if flag not in (f"-{name}", f"--{name}"):
                continue
            if not equals:
                place, value = place + 1, given[place + 1] if place + 1 < len(given) else ""
            path = value if re.match(r"[A-Za-z0-9+.-]+://", value) else value.partition(":")[0]
            if path:
                yield place, f"{flag}=" if equals else "", path, value[len(path) :]


def _flag_error(message: str) -> str:
    """Replaces absl's message about a missing flag or a value of the wrong type by a shorter one."""
    if found := re.match(r"flag --(\S+)=None: Flag --\1 must have", message):
        return f"--{found[1]} is missing: {flags.FLAGS[found[1]].help}"
    if (found := re.match(r"flag --(\S+?\.)([^=\s]+)=(.*?): ", message)) and found[2] in configs.KEYS:
        return f"--{found[1]}{found[2]}={found[3]}: it must be {configs.KEYS[found[2]].wanted()}"
    return message


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    return text or type(error).__name__


def _set_up_devices() -> None:
    if processes.join() > 0:
        # Only process 0 prints the results.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)
    if _CACHE.value:
        # Lazy imports: they load numpy and jax, which --help does not need.
        from resnet_flax.data.cache import cache_root
        from resnet_flax.runtime import compilation

        compilation.use_cache(cache_root() / "xla")
