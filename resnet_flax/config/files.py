"""Reading of config files, and configs as JSON."""

import copy
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import shipped
from resnet_flax.config.names import check_depth
from resnet_flax.config.own_code import execute, explain_error
from resnet_flax.config.suggestions import unknown_key
from resnet_flax.config.table import KEYS, base, flatten
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded


def load(path: str, name: str | None = None, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Executes a Python file, calls its ``get_config`` with a name, and applies overrides.

    Args:
      path: The path of the file; or the name of one that comes with the project: ``digits``, ``configs/digits.py``.
      name: The name of the network, such as ``residual-56``; None for the file's default.
      overrides: Values by dotted key, which count as set by the user (:func:`set_by_user`).

    Raises:
      UserError: There is no such file or key, or the file raised an exception.
    """
    path = config_path(path)
    module = execute(path, "config")
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={path}: the file has no function get_config")
    try:
        c = module.get_config(name) if name else module.get_config()
    except (Exception, SystemExit) as error:
        raise explain_error(error, str(expanded(path))) or error from None
    if overrides:
        unknown = [key for key in overrides if key not in flatten(c)]
        if unknown:
            raise UserError(unknown_key(unknown[0], list(flatten(c))))
        for key, value in overrides.items():
            if key in KEYS:
                KEYS[key].check_type(value)
        c.update_from_flattened_dict(dict(overrides))
        check_depth(c, overrides.keys())
        object.__setattr__(c, _SET_BY_USER, frozenset(overrides))
    return c


# Python attributes of the ConfigDict, not keys of it.
_SET_BY_USER = "_set_by_user"
_AS_LOADED = "_as_loaded"


def track_changes(c: ConfigDict) -> ConfigDict:
    """Returns the config, of which keys that are changed from now on count as set by the user."""
    object.__setattr__(c, _AS_LOADED, copy.deepcopy(c))
    return c


def set_by_user(c: ConfigDict | None) -> frozenset[str]:
    """Returns the dotted keys that were ``overrides`` of :func:`load`, or were changed since :func:`track_changes`.

    A copy that ``copy_and_resolve_references`` makes of the config forgets them.
    """
    noted = getattr(c, "__dict__", {})
    found: frozenset[str] = noted.get(_SET_BY_USER, frozenset())
    if c is None or _AS_LOADED not in noted:
        return found
    expected = copy.deepcopy(noted[_AS_LOADED])

    def changed() -> dict[str, Any]:
        before = flatten(expected)
        return {key: value for key, value in flatten(c).items() if before.get(key, value) != value}

    # Derived keys follow the others here as they do in the config, so that only those that the user set are left.
    direct = {key: value for key, value in changed().items() if not (key in KEYS and KEYS[key].derived)}
    expected.update_from_flattened_dict(direct)
    return found | direct.keys() | changed().keys()


def to_json(c: ConfigDict) -> str:
    """Returns a config as JSON, with every key, so that the run can be repeated from it."""
    return json.dumps(c.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Returns the config that :func:`to_json` wrote."""
    c = base()
    try:
        with c.unlocked():
            c.update_from_flattened_dict(flatten(json.loads(text)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"not the JSON of a config: {' '.join(str(error).split())}") from None
    return c


def config_path(path: str) -> str:
    """Returns the path of a config file; files that come with the project are found from any working directory.

    Raises:
      UserError: There is no such file.
    """
    if (file := expanded(path)).is_file():
        return str(file)
    name = path.removeprefix("configs/").removesuffix(".py")
    if name not in (known := shipped.names("configs")):
        raise UserError(
            f"--config={path}: there is no such file; those that come with the project are {', '.join(known)}"
        )
    return str(shipped.folder("configs") / f"{name}.py")
