"""Execution of the user's own Python files, which define units, data sets, metrics and the like.

Only the config file and the files in ``--module`` are executed. A run's config.json records in its key ``module``
which files its config depends on, but reading a run never executes them.
"""

import contextlib
import hashlib
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

import resnet_flax
from resnet_flax.config.key import import_named
from resnet_flax.config.table import KEYS, flatten
from resnet_flax.config.validation import names_in
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.registry import Registry
from resnet_flax.source_code import defining_file

# Registries of further keys. For the other keys, the row in table.py names the registry in its choices.
_MORE = {
    "data.name": ("data.datasets:DATASETS",),
    "data.transforms": ("data.transforms:AUGMENTATIONS",),
    "train.metrics": ("training.metric_functions:OF_EXAMPLES", "training.metric_functions:OF_STEPS"),
}
_OURS = Path(resnet_flax.__file__).parent

# The user's files that this process has executed, with the flag that named each, and the SHA-256 of what was executed.
_executed: dict[Path, tuple[str, str]] = {}

# The config files that were executed inside executed_once; None outside.
_kept: dict[Path, ModuleType] | None = None


def note_executed(path: str | Path, flag: str) -> bytes:
    """Notes that a Python file is executed, which the command-line flag ``flag`` named; returns its content."""
    file = expanded(path).absolute()
    content = file.read_bytes()
    _executed[file] = flag, hashlib.sha256(content).hexdigest()
    return content


@contextlib.contextmanager
def executed_once() -> Iterator[None]:
    """Executes a config file at most once inside the context, so that an edit does not change configs halfway."""
    global _kept
    before, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


def execute(path: str, flag: str) -> ModuleType:
    """Executes a Python file and returns it as a module.

    Args:
      path: The path of the file.
      flag: The command-line flag that named the file, for messages.

    Raises:
      UserError: There is no such file, or it raised an exception; the message names the line.
    """
    file = expanded(path)
    if not file.is_file():
        raise UserError(f"--{flag}={path}: there is no such file")
    loaded = sys.modules.get(file.stem)
    own = loaded is None or getattr(loaded, "__file__", None) == str(file)
    name = file.stem if own else f"{file.stem} ({file})"  # another imported module has the plain name
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"--{flag}={path}: it must be a Python file, with a name that ends in .py")
    if _kept is not None and flag == "config" and file.absolute() in _kept:
        return _kept[file.absolute()]
    content = note_executed(file, flag)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # inspect looks up a class's file there
    try:
        # Not exec_module: its cached bytecode may be of an older text of equal length, which the checksum is not of.
        exec(compile(content, file.absolute(), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        raise explain_error(error, str(file), flag) or error from None
    if _kept is not None and flag == "config":
        _kept[file.absolute()] = module
    return module


def explain_error(error: BaseException, path: str, flag: str = "config") -> UserError | None:
    """Returns a one-line message for an exception raised in a file; None if the file is not in its traceback."""
    if isinstance(error, UserError):
        return error
    what, line = " ".join(str(error).split()), None
    if isinstance(error, SyntaxError):
        what, line = error.msg, error.lineno
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).absolute() == Path(path).absolute():
            line = frame.lineno
    return UserError(f"--{flag}={path}, line {line}: {type(error).__name__}: {what}") if line else None


def explain_own_error(error: BaseException) -> UserError | None:
    """Returns a one-line message for an exception that a file of the user's own raised, directly or in what it called.

    None if no such file is in its traceback.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        flag, _ = _executed.get(Path(frame.filename).absolute(), ("", ""))
        if flag in ("config", "module"):
            return explain_error(error, frame.filename, flag)
    return None


def defining_files(values: Mapping[str, Any]) -> str:
    """Returns the user's files that define names used in a config, separated by commas; "" if there are none.

    Args:
      values: The values of the config by dotted key.
    """
    return ",".join(dict.fromkeys(map(str, own_files(values).values())))


def recorded_files(values: Mapping[str, Any]) -> str:
    """Returns the key ``module`` of a resolved config.

    These are the files that define its names. Those that the key already has are kept if one of them is not executed
    yet, so that a name is unknown.
    """
    found, before = names_in(defining_files(values)), names_in(values.get("module", ""))
    known = [({*names_in(values[name])}, {*itertools.chain(*_registries(name))}) for name in _MORE]
    return ",".join(dict.fromkeys([*found, *before] if not found or any(a - b for a, b in known) else found))


def own_files(values: Mapping[str, Any]) -> dict[str, Path]:
    """Returns the user's file that defines each name of the user's own in a config.

    Args:
      values: The values of the config by dotted key.

    Returns:
      The files by key and name, such as ``model.unit=tenth``.
    """
    found = {name: defining_file(registry[entry]) for name, (registry, entry) in _own_entries(values).items()}
    return {name: file for name, file in found.items() if file is not None}


def checksums(config: ConfigDict) -> dict[str, str]:
    """Returns the SHA-256 of the code of each name of the user's own in a config, as this process executed it.

    It is that of the file in :func:`own_files`. A name that a notebook defines has that of its functions.
    """
    found = {}
    for name, (registry, entry) in _own_entries(flatten(config)).items():
        file = defining_file(registry[entry])
        found[name] = _executed[file][1] if file in _executed else registry.checksum(entry)
    return {name: digest for name, digest in found.items() if digest}


def _own_entries(values: Mapping[str, Any]) -> dict[str, tuple[Registry[Any], str]]:
    """Returns the registry and the name of each entry of the user's own, by key and name."""
    found: dict[str, tuple[Registry[Any], str]] = {}
    for name, key in KEYS.items():
        if values.get(name) in (None, "", key.default):
            continue
        registries = [registry for registry in _registries(name) if isinstance(registry, Registry)]
        for entry in names_in(values[name]) if registries else ():
            for registry in registries:
                if entry not in registry or registry.is_reserved(entry):
                    continue  # such as one of jax's initializers, whose file is not ours, either
                file = defining_file(registry[entry])
                if file is None or _OURS not in file.parents:
                    found[f"{name}={entry}"] = registry, entry
    return found


def _registries(name: str) -> list[Mapping[str, Any]]:
    """Returns the registries of the names that a key may hold."""
    choices = KEYS[name].choices
    places = (choices,) if isinstance(choices, str) else _MORE.get(name, ())
    return [found for found in map(import_named, places) if isinstance(found, Mapping)]
