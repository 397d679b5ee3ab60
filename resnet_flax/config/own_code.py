"""Files of the user's own, which define units, data sets, metrics and the like: their execution, and their record.

A config's file and what ``--module`` names are executed. A run's config.json only says in its key ``module`` which
files there were, and is never a reason to execute any.
"""

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import resnet_flax
from resnet_flax.config.key import there
from resnet_flax.config.table import KEYS
from resnet_flax.config.validation import names_in
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded

# Registries of the keys that name their entries, beside those whose rows in table.py say the registry.
_MORE = {
    "data.name": ("data.datasets:DATASETS",),
    "data.transforms": ("data.transforms:AUGMENTATIONS",),
    "train.metrics": ("training.metric_functions:OF_EXAMPLES", "training.metric_functions:OF_STEPS"),
}
_OURS = Path(resnet_flax.__file__).parent


def execute(path: str, flag: str) -> ModuleType:
    """Executes a Python file, and returns it as a module.

    Args:
      flag: that named it, for messages.

    Raises:
      UserError: there is no such file, or it raised; the line says where.
    """
    file = expanded(path)
    if not file.is_file():
        raise UserError(f"--{flag}={path}: there is no such file")
    loaded = sys.modules.get(file.stem)
    own = loaded is None or getattr(loaded, "__file__", None) == str(file)
    name = file.stem if own else f"{file.stem} ({file})"  # not that of a module that was imported
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"--{flag}={path}: it must be a file of Python, with a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # classes are asked for their file by it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise explained(error, str(file), flag) or error from None
    return module


def explained(error: BaseException, path: str, flag: str = "config") -> UserError | None:
    """Explains a file that raised by its line and its error, without a traceback; None if others raised."""
    if isinstance(error, UserError):
        return error
    what, line = " ".join(str(error).split()), None
    if isinstance(error, SyntaxError):
        what, line = error.msg, error.lineno
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).absolute() == Path(path).absolute():
            line = frame.lineno
    return UserError(f"--{flag}={path}, line {line}: {type(error).__name__}: {what}") if line else None


def defining(values: Mapping[str, Any]) -> str:
    """The files outside of the package that define what a config names, with commas between; empty for none.

    Args:
      values: of the config, by dotted key.
    """
    files: dict[str, None] = {}
    for name, key in KEYS.items():
        if values.get(name) in (None, "", key.default):
            continue
        places = (key.choices,) if isinstance(key.choices, str) else _MORE.get(name, ())
        for registry in filter(lambda found: isinstance(found, Mapping), map(there, places)):
            for entry in names_in(values[name]):
                source = _source(registry.get(entry))
                if source is not None and _OURS not in source.parents:
                    files[str(source)] = None
    return ",".join(files)


def _source(entry: Any) -> Path | None:
    """The file with the function or class of a registry's entry; some are rows that hold one. A notebook is no file."""
    for code in (entry, *vars(entry).values()) if hasattr(entry, "__dict__") else ():
        if inspect.isfunction(code) or inspect.isclass(code):
            with contextlib.suppress(TypeError, OSError):  # a class of a notebook
                file = Path(inspect.getsourcefile(code) or "").absolute()
                return file if file.is_file() else None
            return None
    return None
