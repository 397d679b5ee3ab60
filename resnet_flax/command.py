"""The frame of every command: flags, devices, exit codes, and one line for a mistake."""

import contextlib
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator

from absl import flags
from ml_collections.config_flags import config_flags

from resnet_flax import config as configs
from resnet_flax.errors import DONE, Diverged, Failed, Interrupted, UserError
from resnet_flax.runtime import compilation, exit_message, processes, stopping, streams
from resnet_flax.visible import visible

_CACHE = flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's own cache folder.")
_MODULE = flags.DEFINE_multi_string(
    "module", [], "File of Python that defines a unit, data set, metric, ... of your own and runs first; repeatable."
)

_arguments: list[str] = []


def arguments() -> list[str]:
    """Returns the arguments of the command line that are no flags, of a command that takes such."""
    return list(_arguments)


def set_keys(flag: str) -> set[str]:
    """The keys of a config flag that the command line sets: ``{"data.data_dir"}`` of ``--config.data.data_dir=...``."""
    found = (argument.lstrip("-").partition("=")[0] for argument in sys.argv[1:] if argument.startswith("-"))
    return {name.removeprefix(f"{flag}.") for name in found if name.startswith(f"{flag}.")}


def run(
    main: Callable[[], None] | str, uses_devices: bool = False, arguments: bool = False, ends_with_reader: bool = False
) -> None:
    """Parses the flags, calls main, and exits with its code.

    0 done, 1 failed in part, 2 the user's mistake, 3 stopped and resumable, 4 diverged. A mistake is one
    line on stderr. Where standard output or error is closed, or its reader gone, the work goes on without it; a result
    that could not be written is a failure.

    Args:
      main: the command's work; or the module that has it as ``main``, which is imported once the flags are parsed, so
        that neither ``--help`` nor a refusal waits for jax.
      uses_devices: whether jax's devices and cache are set up before it.
      arguments: whether there may be arguments that are no flags, before, between or after them.
      ends_with_reader: whether the command's only work is to print, so that it ends when nobody reads.
    """
    output = streams.protect(ends_with_reader)
    stopping.exit_on_signal()
    try:
        if {"--help", "-help", "-h"} & set(sys.argv[1:]):
            print(_help())
            return
        sys.argv[1:] = _underscored(sys.argv[1:])  # in place: ml_collections, and others, read it
        sys.argv[1:] = _with_shipped_configs(sys.argv[1:])
        flags.FLAGS.set_gnu_getopt(arguments)  # flags may come after arguments
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
        # At once, with its line break: print has two parts, between which other threads may print.
        text = visible(str(ending))  # a name in it may hide something
        with contextlib.suppress(streams.ReaderGoneError):
            sys.stdout.flush()  # what was printed before it stands before it
        sys.stderr.write(f"{'error: ' if isinstance(ending, UserError) else ''}{text}\n")
        sys.stderr.flush()
        stopping.exit_soon(ending.exit_code)
        sys.exit(ending.exit_code)
    except streams.ReaderGoneError:
        stopping.exit_soon(DONE)
    except KeyboardInterrupt:
        print("stopped by a second SIGINT; not saved", file=sys.stderr)
        sys.exit(Interrupted.exit_code)
    finally:
        exit_message.cancel()


def _help() -> str:
    """Says what the command does, its flags, and the keys of its config; of absl's own flags, none."""
    modules = [m for m in flags.FLAGS.flags_by_module_dict() if not m.startswith("absl")]
    # The command's own come first, those of all commands last.
    modules.sort(key=lambda module: module.startswith(f"{__package__}.") + (module in (__name__, processes.__name__)))
    described = [flags.FLAGS.module_help(m).strip("\n") for m in modules]
    keys = [configs.keys_in_help(name) for name in _config_flags()]
    return "\n\n".join([(sys.modules["__main__"].__doc__ or "").strip(), *described, *keys])


def _underscored(given: list[str]) -> list[str]:
    """``--batch-size=1`` becomes ``--batch_size=1``: dashes in names are underscores, where no flag has the dashes."""
    flags_end = given.index("--") if "--" in given else len(given)

    def name(argument: str) -> str:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--") or flag[2:] in flags.FLAGS:
            return argument
        return "--" + flag[2:].replace("-", "_") + equals + value

    return [name(argument) for argument in given[:flags_end]] + given[flags_end:]


def _parse(argv: list[str]) -> list[str]:
    _check_config_flags(argv)
    try:
        rest = flags.FLAGS(argv)
        for path in _MODULE.value:
            configs.execute(path, "module")
        for name in _config_flags():
            config = flags.FLAGS[name].value
            if config is not None:
                config.keys()  # one that could not be loaded says so when it is read
                configs.check_depth(config, set_keys(name))
        return rest
    except flags.UnrecognizedFlagError as error:
        if (flag := error.flagname.partition(".")[0]) in _config_flags():
            raise UserError(f"--{error.flagname} sets a key of a config: name that, too, by --{flag}=FILE") from None
        near = [f"{name}.{key}" for name in _config_flags() for key in configs.namesakes(error.flagname)]
        near = near or difflib.get_close_matches(error.flagname, list(flags.FLAGS), n=3)
        hint = f"; did you mean --{' or --'.join(near)}?" if near else "; --help lists them"
        raise UserError(f"unknown flag --{error.flagname}{hint}") from None
    except (Exception, SystemExit) as error:
        if refusals := [origin for origin in _with_origins(error) if isinstance(origin, UserError)]:
            raise refusals[-1] from None
        for path in _config_files(argv):
            for origin in _with_origins(error):
                if refusal := configs.explain_error(origin, path):
                    raise refusal from None
        if isinstance(error, flags.Error):
            raise UserError(_flag_error(_one_line(error))) from None
        # What ml_collections raises for a config file or key that does not exist, or a value of another type.
        raise UserError(_one_line(error)) from None


def _with_origins(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised for: ml_collections and absl put a config file's into others' words."""
    while error is not None:
        yield error
        error = error.__context__


def _config_flags() -> Iterator[str]:
    return (name for name in flags.FLAGS if config_flags.is_config_flag(flags.FLAGS[name]))


def _check_config_flags(argv: list[str]) -> None:
    """Refuses a config key that does not exist, in our words instead of ml_collections'."""
    for name in _config_flags():
        for argument in argv[1:]:
            if found := re.fullmatch(rf"--?(no)?{name}\.(.+)", argument.partition("=")[0]):
                known = list(configs.KEYS)
                if found[2] not in known and not any(k.startswith(found[2] + ".") for k in known):
                    raise UserError(configs.unknown_key(found[2], known))


def _with_shipped_configs(given: list[str]) -> list[str]:
    """``--config=digits:plain-8`` becomes ``--config=FOLDER/digits.py:plain-8``, where no such file is at hand.

    Raises:
      UserError: there is no such config file.
    """
    result = list(given)
    for place, flag, path, rest in _named_configs(given):
        result[place] = f"{flag}{configs.config_path(path)}{rest}"
    return result


def _config_files(argv: list[str]) -> list[str]:
    """The config files that the command line names, without what follows their colon."""
    return [path for _, _, path, _ in _named_configs(argv)]


def _named_configs(given: list[str]) -> Iterator[tuple[int, str, str, str]]:
    """Finds the config files that a command line names.

    Yields:
      The place of the argument, the flag in it up to its ``=`` (empty where that is the argument before), the file, and
      what follows the file: a colon and the name of a network, or nothing.
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
    """Returns absl's message about a flag, made shorter where we know more."""
    if found := re.match(r"flag --(\S+)=None: Flag --\1 must have", message):
        return f"--{found[1]} is missing: {flags.FLAGS[found[1]].help}"
    if (found := re.match(r"flag --(\S+?\.)([^=\s]+)=(.*?): ", message)) and found[2] in configs.KEYS:
        return f"--{found[1]}{found[2]}={found[3]}: it must be {configs.KEYS[found[2]].wanted()}"
    return message


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    return text or type(error).__name__


def _set_up_devices() -> None:
    if _CACHE.value:
        from resnet_flax.data.cache import cache_root  # with numpy, for which --help does not wait

        compilation.use_cache(cache_root() / "xla")
    if processes.join() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (to the end); results are printed once
